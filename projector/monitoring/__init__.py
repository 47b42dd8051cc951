"""Monitoring of a running daemon: its health, its metrics and its page, served over HTTP."""
