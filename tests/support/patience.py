"""Timeouts of tests."""

from projector.queries import inspection as database_inspection
from projector.storage import store
from projector.stream import change_stream, connection, inspection, pull

PATIENCE_S = 60.0
"""For what has to come: only a broken program lets a test wait for so long, however busy the machine is."""

LIMITS = (
    (change_stream, "_ANSWERED_S"),
    (connection, "_ANSWERED_S"),
    (connection, "_CONNECT_TIMEOUT_S"),
    (connection, "_CONNECT_WITHIN_S"),
    (database_inspection, "_TIMEOUT_S"),
    (inspection, "_TIMEOUT_S"),
    (pull, "_OVERDUE_S"),
    (store, "_PING_TIMEOUT_S"),
)
"""After which the projector takes a server for lost: each a module and a name."""
