"""The database's side: tables, and the verbs of the one transaction that changes them."""
