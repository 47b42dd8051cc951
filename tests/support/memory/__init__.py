"""In-memory implementations of the application's ports, for fast tests.

They do what the application relies on and no more; `tests.conformance` holds them and the real ones to it.
Nothing here waits for time to pass: a call that would wait for a server yields to the event loop once.
"""
