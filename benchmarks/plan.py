"""What is measured, how often and at which sizes."""

from dataclasses import dataclass

PARTS = (
    "limits",
    "ours",
    "monitoring",
    "changes",
    "shards",
    "peers",
    "revisions",
    "foreign",
    "growth",
    "poison",
    "latency",
)
"""In the order in which a round runs them; `latency` lengthens the stream and so comes after all rounds of the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The sizes; counts are of events unless they say otherwise."""

    parts: tuple[str, ...] = PARTS
    rounds: int = 3

    endpoints: int = 100_000
    backlog: int = 200_000
    preload: int = 5
    """Events per endpoint that are folded before the backlog, so that its rows exist."""

    shards: tuple[tuple[int, int], ...] = ((1, 1), (2, 1), (2, 2), (4, 2))
    """Shards, and the processes that fold them."""

    orm_messages: int = 3_000
    faststream_messages: int = 5_000
    executemany_messages: int = 60_000

    latency_rate: int = 1_000
    """Events per second."""
    latency_s: int = 20

    connect_sizes: tuple[int, ...] = (1, 1_000)
    """Endpoints named by one connect of today's revision."""
    connect_changes: int = 200_000
    """Endpoints that the connects name altogether."""

    foreign_events: int = 20_000
    """Events of ours; none is folded before."""
    foreign_every: int = 10
    """One message in so many is ours."""

    growth_endpoints: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    growth_backlog: int = 200_000
    growth_preload: int = 3
    """As `preload`."""
    stream_lengths: tuple[int, ...] = (100_000, 1_000_000)
    disconnect_sizes: tuple[int, ...] = (1, 10, 1_000)
    """Endpoints named by one disconnect."""
    disconnect_changes: int = 200_000
    """Endpoints that the disconnects name altogether."""
    metadata_keys: tuple[int, ...] = (5, 50)
    metadata_endpoints: int = 20_000
    metadata_backlog: int = 100_000

    poison_messages: int = 100_000
    poison_every: int = 1_000
    """One message in so many cannot be folded."""
    poison_preload: int = 1
    """As `preload`."""


QUICK = Plan(
    rounds=1,
    endpoints=2_000,
    backlog=10_000,
    orm_messages=200,
    faststream_messages=200,
    executemany_messages=2_000,
    latency_s=3,
    connect_sizes=(1, 100),
    connect_changes=4_000,
    foreign_events=2_000,
    growth_endpoints=(1_000, 5_000),
    growth_backlog=10_000,
    stream_lengths=(5_000, 20_000),
    disconnect_sizes=(1, 10, 100),
    disconnect_changes=4_000,
    metadata_endpoints=500,
    metadata_backlog=3_000,
    poison_messages=10_000,
)
"""Small enough to see in a minute that everything works; its figures mean nothing."""
