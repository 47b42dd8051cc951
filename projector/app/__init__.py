"""The one path a message takes, and what drives it."""
