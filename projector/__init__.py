"""Keeps the present state of every endpoint in Postgres, exactly as its event stream implies."""

__version__ = "0.1.0"
