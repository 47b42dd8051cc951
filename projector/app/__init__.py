"""The path of a message, and what drives it."""
