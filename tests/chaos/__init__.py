"""The daemon under injected faults: the harness, its programs and short runs as tests.

The programs are `soak`, `outages`, `hosts` and `publishing`.
"""
