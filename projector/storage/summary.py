"""How far the projection is and what it has, in a few queries that stay cheap however large the table is."""

import re
from datetime import datetime
from typing import Any

from projector.domain.summary import Summary
from projector.storage import locks
from projector.storage.checkpoints import PROJECTION, SHARD
from projector.storage.wire import decode_json

_CHECKPOINT = """
SELECT position, rules_version, skipped::text, anchor_stored_at, advanced_at
FROM projector_checkpoint WHERE projection = $1 AND shard = $2
"""
_PARKED = """
SELECT reason, count(*) FROM dead_letter WHERE stream = $1 AND state = 'parked' GROUP BY reason ORDER BY reason
"""
_PROGRESS = re.compile(r" (\d+)/(\d+)$")


async def read(connection: Any, stream: str) -> Summary:
    """Ask a connection that has the driver's own codecs."""
    checkpoint = await connection.fetchrow(_CHECKPOINT, PROJECTION, SHARD)
    position, rules_version, skipped, stored_at, committed_at = checkpoint or (0, None, "{}", None, None)
    active = await connection.fetchrow(locks.LEADER, locks.LEADER_LOCK, SHARD)
    rebuild = await connection.fetchrow(locks.REBUILD, locks.REBUILD_LOCK, SHARD)
    return Summary(
        position=position,
        rules_version=rules_version,
        skipped=decode_json(skipped),
        dead_letters=dict(await connection.fetch(_PARKED, stream)),
        last_event_stored_at=stored_at,
        last_commit_at=committed_at,
        active=None if active is None else dict(active),
        rebuild=None if rebuild is None else _progress(rebuild["application"], rebuild["since"]),
    )


def _progress(application: str, since: datetime | None) -> dict[str, Any]:
    """Return how far a rebuild is, which it says in the name of its connection."""
    found = _PROGRESS.search(application)
    position, target = map(int, found.groups()) if found else (0, 0)
    return {"position": position, "target": target, "since": since}
