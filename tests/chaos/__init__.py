"""The daemon under injected faults: the harness, its command line (`soak`, `outages`) and a short run as tests."""
