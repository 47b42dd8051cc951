"""The broker's side: subjects and Avro to domain events, and JetStream in ordered batches."""
