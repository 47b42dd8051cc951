"""Inspection of NATS and Postgres before the first run, and the checks that turn what it shows into findings."""
