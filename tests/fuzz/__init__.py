"""Mutated messages through the decoder."""
