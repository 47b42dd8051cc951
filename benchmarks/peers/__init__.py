"""What people write today for the same stream and table, each as the documentation of its libraries suggests.

All keep the columns of `endpoint_state` that users query, let the later timestamp win,
and leave out what the projector does beyond that: fencing, tombstones, dead letters, a position of their own.
Run as `python -m benchmarks.peers.<name> <task>`.
"""
