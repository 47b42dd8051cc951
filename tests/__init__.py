"""The tests, by the servers that they need.

| directory | tests | servers | run by |
|---|---|---|---|
| unit | domain, codec, settings, documents, and the application on ports in memory | none | `make test-fast` |
| fuzz | the decoder on mutated messages | none | `make test-fast`; `make fuzz` for more messages |
| conformance | the ports in memory and the real ones | none, or both | `make test-fast`, `make test` |
| integration | the daemon's parts inside the test's process | NATS and Postgres | `make test` |
| acceptance | the `projector` command as a process | NATS and Postgres | `make test` |
| migrations | every migration on a real database | Postgres | `make test` |
| chaos | the daemon under injected faults | NATS and Postgres | `make test`; `make chaos`, `make outages` for more |
| mutation | the unit tests of the pure core on mutants of it | none | `make mutants` |
| typing | the public API as programs use it, for mypy | none | `make check` |
| wheel | the wheel, installed outside of the checkout | none | `make wheel` |

`support` has what tests of several directories share.

`make test` runs all but the last three, in three worker processes for every two cores
(`make test WORKERS=4` sets their number).
A worker has one Postgres, in which each test gets a database of its own, and each test has its own NATS.
`support.servers` says how to run the tests on other versions of the servers,
and `support.versions` marks a test that needs a certain version.

A slow machine makes tests slow but must not make them fail:
a test waits for a condition, with a time limit that only a broken program reaches.
"""
