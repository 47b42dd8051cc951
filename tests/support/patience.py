"""Timeouts of tests."""

PATIENCE_S = 60.0
"""For what has to come: only a broken program lets a test wait for so long, however busy the machine is."""
