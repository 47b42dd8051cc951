"""The contract of the application's ports, for the in-memory and the real implementations."""
