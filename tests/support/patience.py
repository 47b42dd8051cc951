"""Timeouts of tests."""

import pytest

from projector.queries import inspection as database_inspection
from projector.storage import store
from projector.stream import change_stream, connection, inspection, pull

PATIENCE_S = 60.0
"""For what has to happen: only a broken program makes a test wait for so long, however busy the machine is."""

_LIMITS = (
    (change_stream, "_ANSWERED_S"),
    (connection, "_ANSWERED_S"),
    (connection, "_CONNECT_TIMEOUT_S"),
    (connection, "_CONNECT_WITHIN_S"),
    (database_inspection, "_TIMEOUT_S"),
    (inspection, "_TIMEOUT_S"),
    (pull, "_OVERDUE_S"),
    (store, "_PING_TIMEOUT_S"),
)
"""After which the projector gives up on a server: each a module and a name."""
_SETTINGS = ("idle_session_timeout", "idle_in_transaction_session_timeout", "lock_timeout")
"""After which Postgres gives up on the projector, or on a lock."""


def be_patient(patch: pytest.MonkeyPatch) -> None:
    """Raise the limits that a busy machine exceeds, for the projector in this process."""
    for module, limit in _LIMITS:
        patch.setattr(module, limit, PATIENCE_S)
    for settings in (store.WRITER_SETTINGS, store.LEADER_SETTINGS):
        for name in _SETTINGS:
            if settings.get(name, "0") != "0":
                patch.setitem(settings, name, f"{PATIENCE_S / 60:g}min")  # as Postgres shows it
