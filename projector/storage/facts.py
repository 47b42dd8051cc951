"""What can be known of a Postgres database by looking at it."""

from dataclasses import dataclass

from projector.domain.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """Which server processes were met through two connections that were open at the same time.

    A process belongs to one connection for as long as that lasts, unless a pooler hands it around.
    """

    announced: int
    """Process that the first connection was promised when it was opened."""
    first: frozenset[int]
    """Those that the first connection's transactions ran in."""
    second: frozenset[int]
    refusal: str | None = None
    """Why the second connection was refused, which asks for the parameters of the daemon's."""
    ignored: tuple[str, ...] = ()
    """Those of these parameters that it did not get."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """What a database tells about itself."""

    version: tuple[int, int]
    encoding: str = "UTF8"
    standby: bool = False
    off: frozenset[str] = frozenset()
    """Those of `fsync`, `full_page_writes` and `synchronous_commit` that are off."""
    schema: str | None
    """Where the tables are looked for; None if no schema of the search path may be used."""
    migration: str | None
    """None: there are no tables, or they may not be looked at."""
    migration_wanted: str
    missing_privileges: tuple[str, ...] = ()
    """What the daemon needs and may not do."""
    missing_to_rebuild: tuple[str, ...] = ()
    """What only a rebuild and a verification need and may not do."""
    backends: BackendFacts
    clock: tuple[float, float, float]
    """Unix s: ours when the server was asked, the server's, ours when it had answered."""
    checkpoint: Checkpoint | None = None
    """None: nothing was ever folded, or it may not be looked at."""
    led: bool = False
    """Whether a projector works on this database now."""

    @property
    def migrated(self) -> bool:
        """Whether the tables are those of this version."""
        return self.migration == self.migration_wanted
