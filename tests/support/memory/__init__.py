"""The ports of the application in memory, for tests of milliseconds.

They do what the application relies on and no more; `tests.conformance` holds them and the real ones to it.
Nothing here waits for time to pass: whatever would wait for a server gives other tasks one turn of the event loop.
"""
