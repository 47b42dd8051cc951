"""The tests, by the servers that they need.

| directory | tests | servers |
|---|---|---|
| unit | domain, codec, settings, documents | none |
| fuzz | the decoder on mutated messages | none |
| integration | the daemon's parts inside the test's process | NATS and Postgres |
| acceptance | the `projector` command as a process | NATS and Postgres |
| migrations | every migration on a real database | Postgres |
| mutation | the unit tests of the pure core on mutants of it | none |
| chaos | the daemon under injected faults | a NATS cluster and Postgres |

`support` has what tests of several directories share.
"""
