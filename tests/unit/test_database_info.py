"""What an inspected database says about its shards."""

from typing import Any

import pytest

from projector.domain.checkpoint import Checkpoint
from projector.domain.database_info import BackendInfo, DatabaseInfo
from projector.domain.rules import Rules
from projector.domain.shards import Shard

RULES = Rules(version=1, revision="kaa-2017-04", originators=())


def database(*positions: int | None, **fields: Any) -> DatabaseInfo:
    """Return a database with the checkpoints of shards at these positions; None: that shard has none."""
    checkpoints = tuple(
        Checkpoint(stream="S", stream_created_at=1, rules=RULES, shard=Shard(number, len(positions)), position=position)
        for number, position in enumerate(positions)
        if position is not None
    )
    given: dict[str, Any] = {
        "version": (18, 4),
        "schema": "public",
        "migration": "0001",
        "migration_wanted": "0001",
        "backends": BackendInfo(announced=1, first=frozenset({1}), second=frozenset({2})),
        "clock": (10.0, 10.1, 10.2),
    }
    return DatabaseInfo(**given | {"checkpoints": checkpoints} | fields)


def test_a_database_without_a_checkpoint_has_one_shard_at_the_beginning() -> None:
    empty = database()
    assert (empty.shards, empty.positions, empty.without_leader) == (1, (0,), (0,))


@pytest.mark.parametrize("positions", [(7,), (7, 5), (5, 9, 7)])
def test_each_shard_is_at_the_position_of_its_checkpoint(positions: tuple[int, ...]) -> None:
    found = database(*positions)
    assert (found.shards, found.positions) == (len(positions), positions)


def test_a_shard_without_a_checkpoint_is_at_the_beginning() -> None:
    assert database(7, None, 9).positions == (7, 0, 9)
    assert database(7, 8, None).positions == (7, 8, 0)


def test_the_shards_without_a_leader_are_those_that_are_not_led() -> None:
    assert database(7, 5, 9, led=frozenset({1})).without_leader == (0, 2)
    assert database(7, 5, led=frozenset({0, 1})).without_leader == ()


@pytest.mark.parametrize(("migration", "migrated"), [("0012", True), ("0011", False), ("0013", False), (None, False)])
def test_only_the_migration_of_this_version_is_the_right_one(migration: str | None, migrated: bool) -> None:
    wanted = f"{12:04}"  # another object than the one read from the database
    assert database(migration=migration, migration_wanted=wanted).migrated is migrated
