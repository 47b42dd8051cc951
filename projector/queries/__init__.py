"""Read-only queries on the tables: for status, monitoring, explanations, `doctor` and `projector sql`.

They raise what those of `storage` raise.
"""
