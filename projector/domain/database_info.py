"""What an inspection of a Postgres database shows."""

from dataclasses import dataclass

from projector.domain.checkpoint import Checkpoint
from projector.domain.summary import FeedState


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """Server processes that served two connections while both were open.

    Without a pooler, a process serves one connection for its whole life.
    """

    announced: int
    """Process id announced to the first connection when it was opened."""
    first: frozenset[int]
    """Processes that ran the first connection's transactions."""
    second: frozenset[int]
    """Processes that ran the second connection's transactions."""
    refusal: str | None = None
    """Why the second connection, which sets the daemon's parameters, was refused."""
    ignored: tuple[str, ...] = ()
    """Parameters of the daemon that the second connection did not get."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A node of Citus that has a part of the tables."""

    name: str
    prepared_transactions: int | None = None
    """How many it allows at a time (`max_prepared_transactions`); None: it did not answer."""
    error: str = ""
    """Why it did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseInfo:
    """A database as the daemon's role sees it."""

    version: tuple[int, int]
    encoding: str = "UTF8"
    standby: bool = False
    off: frozenset[str] = frozenset()
    """Those of `fsync`, `full_page_writes` and `synchronous_commit` that are off."""
    schema: str | None
    """Schema of the tables; None if the role may use no schema of its search path."""
    migration: str | None
    """Latest migration applied; None if there is none, or the role may not see it."""
    migration_wanted: str
    search_path_without_schema: str | None = None
    """The search path, if no schema in it exists."""
    absent: tuple[str, ...] = ()
    """Tables and columns of this version that do not exist although it is migrated."""
    row_security: tuple[str, ...] = ()
    """Tables whose policies may hide rows from the role."""
    missing_privileges: tuple[str, ...] = ()
    """Privileges that the daemon needs and the role lacks."""
    missing_to_rebuild: tuple[str, ...] = ()
    """Privileges that only `rebuild` and `verify` need and the role lacks."""
    backends: BackendInfo
    clock: tuple[float, float, float]
    """Unix s: local time of the request, the server's time, local time of the answer."""
    checkpoints: tuple[Checkpoint, ...] = ()
    """Those of the shards, in order; none if nothing was ever folded, or the role may not see them."""
    feed: FeedState | None = None
    """How far the changes are published; None: they are not, or the role may not see it."""
    workers: tuple[WorkerInfo, ...] = ()
    """Those of Citus, if it distributes the tables."""
    batch_table_missing: bool = False
    """Whether the tables are distributed, but the one that batches are copied into is missing or outdated."""
    led: frozenset[int] = frozenset()
    """Shards that have a leader."""

    @property
    def migrated(self) -> bool:
        """Whether the tables are those of this version."""
        return self.migration == self.migration_wanted

    @property
    def shards(self) -> int:
        """Number of shards, as far as the role may see it."""
        return max((checkpoint.shard.of for checkpoint in self.checkpoints), default=1)

    @property
    def positions(self) -> tuple[int, ...]:
        """The position of each shard, in order; 0 if it has no checkpoint."""
        known = {checkpoint.shard.number: checkpoint.position for checkpoint in self.checkpoints}
        return tuple(known.get(shard, 0) for shard in range(self.shards))

    @property
    def without_leader(self) -> tuple[int, ...]:
        """Shards that have no leader, in order."""
        return tuple(shard for shard in range(self.shards) if shard not in self.led)
