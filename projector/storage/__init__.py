"""Tables, and the statements of the one transaction that changes them.

What talks to Postgres raises DatabaseUnavailableError if it is not reachable now, and DatabaseRefusedError if it
rejects a request; what opens the tables raises NotMigratedError if they are not those of this version.
Docstrings name other errors only.
"""
