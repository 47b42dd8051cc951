"""The ports of the application in memory, for tests of milliseconds.

They do what the application relies on and no more; `tests.conformance` holds them and the real ones to it.
Nothing here waits for time to pass: a call that would wait for a server yields to the event loop once.
"""
