"""Tables, and the statements of the one transaction that changes them.

Every query raises DatabaseUnavailableError if Postgres is not reachable now, and DatabaseRefusedError if it rejects
the request. Opening the tables raises NotMigratedError if they are not those of this version.
"""
