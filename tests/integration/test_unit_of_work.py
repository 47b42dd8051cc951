import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from projector.domain.application import Application
from projector.domain.checkpoint import Anchor, Checkpoint
from projector.domain.configuration import Configuration, Failure
from projector.domain.connectivity import Connectivity
from projector.domain.endpoint import FACETS, Endpoint
from projector.domain.messages import DeadLetter, Message
from projector.domain.metadata import Key, Metadata
from projector.domain.registration import Registration
from projector.domain.rules import Rules
from projector.domain.stamps import Register, Stamp
from projector.errors import CheckpointMovedError, PoisonError
from projector.storage import store as store_module
from projector.storage.columns import FACET_COLUMNS
from projector.storage.store import Store
from projector.storage.unit_of_work import UnitOfWork
from tests.support.fixtures import Eventually, Query

EVERY_FACET = (1 << len(FACETS)) - 1
EPOCH = datetime.fromtimestamp(0, UTC)
T = 1_700_000_000_000

OpenStore = Callable[[], Awaitable[Store]]
Save = Callable[[Mapping[str, Endpoint]], Awaitable[None]]
Load = Callable[..., Awaitable[dict[str, Endpoint]]]
Step = Callable[[UnitOfWork], Awaitable[None]]

every_set_of_facets = pytest.mark.parametrize("facets", range(EVERY_FACET + 1), ids="{:05b}".format)


def stamp(position: int, replica: str | None = "kpc-0") -> Stamp:
    return Stamp(position, T + position, "kpc", replica)


def states(first: int) -> tuple[Any, ...]:
    """A state of each facet, whose registers were set from a position on."""
    return (
        Connectivity(stamp(first), stamp(first + 1, None)),
        Application(Register('"V1" \\ ☕', stamp(first)), Register(None, stamp(first + 1))),
        Registration(stamp(first + 2), stamp(first)),
        Metadata(
            {
                "site": Key(present=True, value=None, stamp=stamp(first)),
                "ключ\t": Key(present=True, value='{"a": [1, 2.50, "x", null, 1e30]}', stamp=stamp(first + 1)),
                "gone": Key(present=False, value=None, stamp=stamp(first + 2, None)),
            },
            stamp(first + 2),
        ),
        Configuration(
            Register(f"c{first}", stamp(first)),
            Register("c0", stamp(first + 1)),
            Register(Failure("c1", -1, "☕"), stamp(first + 2)),
        ),
    )


def endpoint(facets: int = EVERY_FACET, *, first: int = 1) -> Endpoint:
    """An endpoint of which a set of facets was changed, from a position on."""
    found = Endpoint.unseen()
    change(found, facets, first=first)
    return found


def change(found: Endpoint, facets: int, *, first: int) -> None:
    for index, state in enumerate(states(first)):
        if facets >> index & 1:
            found.states[index] = state
    found.changed = facets
    found.last_event_seq, found.last_event_at = first + 2, T + first + 2


def facts(found: Endpoint) -> tuple[Any, ...]:
    return (*found.states, found.last_event_seq, found.last_event_at)


async def transact(store: Store, *steps: Step) -> None:
    async with store.transaction() as work:
        for step in steps:
            await step(work)


async def columns(query: Query, url: str, endpoint_id: str) -> dict[str, Any]:
    """The columns of a row that users query, times in Unix ms."""
    names = [column.name for facet in FACET_COLUMNS for column in facet.columns]
    ((*row,),) = await query(url, f"SELECT {', '.join(names)} FROM endpoint_state WHERE endpoint_id = $1", endpoint_id)
    return {
        name: (value - EPOCH) // timedelta(milliseconds=1) if isinstance(value, datetime) else value
        for name, value in zip(names, row, strict=True)
    }


@pytest.fixture
async def open_store(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenStore]:
    """Opens stores that a busy machine may leave idle."""
    patient = dict.fromkeys(("idle_session_timeout", "idle_in_transaction_session_timeout", "lock_timeout"), "0")
    monkeypatch.setattr(store_module, "LEADER_SETTINGS", {**store_module.LEADER_SETTINGS, **patient})
    opened = []

    async def open_store() -> Store:
        opened.append(Store(database_url))
        await opened[-1].open()
        return opened[-1]

    yield open_store
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture
def save(store: Store) -> Save:
    async def save(endpoints: Mapping[str, Endpoint]) -> None:
        async with store.transaction() as work:
            await work.save(endpoints)

    return save


@pytest.fixture
def load(store: Store) -> Load:
    async def load(*endpoint_ids: str, facets: int = EVERY_FACET) -> dict[str, Endpoint]:
        async with store.transaction() as work:
            return await work.load(dict.fromkeys(endpoint_ids, facets))

    return load


@every_set_of_facets
async def test_a_new_row_keeps_the_facets_that_changed(save: Save, load: Load, facets: int) -> None:
    await save({"e": endpoint(facets)})
    assert facts((await load("e"))["e"]) == facts(endpoint(facets))


@every_set_of_facets
async def test_changing_some_facets_leaves_the_others_as_they_were(save: Save, load: Load, facets: int) -> None:
    await save({"e": endpoint()})
    working_copy = (await load("e", facets=facets))["e"]
    change(working_copy, facets, first=50)
    await save({"e": working_copy})
    expected = endpoint()
    change(expected, facets, first=50)
    assert facts((await load("e"))["e"]) == facts(expected)


async def test_only_requested_facets_are_loaded(save: Save, load: Load) -> None:
    await save({"e": endpoint()})
    assert (await load("e", facets=0b01001))["e"].states == [states(1)[0], None, None, states(1)[3], None]


async def test_rows_of_different_sets_of_facets_are_saved_in_one_transaction(save: Save, load: Load) -> None:
    mixed = {f"e{facets}": endpoint(facets, first=facets + 1) for facets in range(EVERY_FACET + 1)}
    await save(mixed)
    loaded = await load(*mixed)
    assert {name: facts(found) for name, found in loaded.items()} == {
        name: facts(found) for name, found in mixed.items()
    }


async def test_query_columns_follow_the_registers(save: Save, query: Query, database_url: str) -> None:
    await save({"e": endpoint(first=7)})
    assert await columns(query, database_url, "e") == {
        "connectivity_status": "disconnected",
        "connectivity_changed_at": T + 8,
        "connected_at": T + 7,
        "disconnected_at": T + 8,
        "connected_originator": "kpc",
        "connected_replica": "kpc-0",
        "app_version": '"V1" \\ ☕',
        "app_version_changed_at": T + 7,
        "previous_app_version": None,
        "registration_status": "registered",
        "registered_at": T + 9,
        "unregistered_at": T + 7,
        "metadata": '{"site": null, "ключ\\t": {"a": [1, 2.50, "x", null, 1000000000000000000000000000000]}}',
        "metadata_changed_at": T + 9,
        "config_status": "pending",
        "config_available_id": "c7",
        "config_available_at": T + 7,
        "config_applied_id": "c0",
        "config_applied_at": T + 8,
        "config_pending_id": "c7",
        "config_failed_id": "c1",
        "config_failed_at": T + 9,
        "config_failure_code": -1,
        "config_failure_reason": "☕",
    }


async def test_an_endpoint_without_a_row_is_loaded_as_unseen(load: Load) -> None:
    assert facts((await load("nobody"))["nobody"]) == facts(Endpoint.unseen())


async def test_endpoint_named_only_by_a_late_event_gets_a_row_of_defaults(
    save: Save, query: Query, database_url: str
) -> None:
    await save({"e": endpoint(facets=0)})
    row = await columns(query, database_url, "e")
    assert {name: value for name, value in row.items() if value is not None} == {
        "connectivity_status": "unknown",
        "registration_status": "unknown",
        "metadata": "{}",
        "config_status": "none",
    }


async def test_late_event_still_becomes_the_last_event(save: Save, load: Load) -> None:
    await save({"e": endpoint(first=1)})
    working_copy = (await load("e", facets=0b1))["e"]
    working_copy.last_event_seq, working_copy.last_event_at = 90, T - 5
    await save({"e": working_copy})
    after = (await load("e"))["e"]
    assert facts(after) == (*states(1), 90, T - 5)


async def test_25_000_endpoints_named_by_one_event_are_loaded_and_saved_together(save: Save, load: Load) -> None:
    names = [f"endpoint-{number}" for number in range(25_000)]
    await save({name: endpoint(0b1, first=3) for name in names[::2]})
    loaded = await load(*names, facets=0b1)
    assert {loaded[name].last_event_seq for name in names[::2]} == {5}
    assert {loaded[name].last_event_seq for name in names[1::2]} == {0}
    for found in loaded.values():
        change(found, 0b1, first=40)
    await save(loaded)
    assert {found.states[0] for found in (await load(*names, facets=0b1)).values()} == {states(40)[0]}


async def test_batches_on_one_connection_do_not_see_each_others_changes(
    save: Save, query: Query, database_url: str
) -> None:
    await save({"e1": endpoint(first=1)})
    await query(database_url, "DELETE FROM endpoint_state")
    await save({"e2": endpoint(first=1)})
    assert await query(database_url, "SELECT endpoint_id FROM endpoint_state") == [("e2",)]


async def test_error_in_the_block_rolls_back_rows_dead_letters_and_checkpoint(
    store: Store, query: Query, database_url: str
) -> None:
    await store.begin(CHECKPOINT)
    with pytest.raises(CheckpointMovedError):
        await transact(
            store,
            lambda work: work.save({"e": endpoint()}),
            lambda work: work.park("S", [DEAD_LETTER]),
            lambda work: work.advance(CHECKPOINT, replace(CHECKPOINT, position=5)),
            lambda work: work.advance(CHECKPOINT, replace(CHECKPOINT, position=6)),
        )
    assert await query(database_url, "SELECT endpoint_id FROM endpoint_state") == []
    assert await query(database_url, "SELECT position FROM dead_letter") == []
    assert await store.checkpoint() == CHECKPOINT


async def test_connection_works_after_a_rejected_statement(save: Save, load: Load) -> None:
    with pytest.raises(PoisonError, match="database-rejected"):
        await save({"e": endpoint(), "nul\0": endpoint()})
    await save({"e": endpoint(first=20)})
    assert facts((await load("e"))["e"]) == facts(endpoint(first=20))


DEAD_LETTER = DeadLetter(
    Message(9, T + 9, "kaa.v1.events.k\udcffpc.x", b"\x00\xff", {"Nats-Msg-Id": "a\0b", "é": "\udc80"}),
    "malformed-payload",
    "stopped at \0",
)


async def test_dead_letter_escapes_what_postgres_cannot_store(store: Store, query: Query, database_url: str) -> None:
    async with store.transaction() as work:
        await work.park("S", [DEAD_LETTER])
    assert await query(
        database_url,
        "SELECT stream, position, subject, headers, payload, stored_at, reason, detail, state, attempts, closed_at "
        "FROM dead_letter",
    ) == [
        (
            "S",
            9,
            r"kaa.v1.events.k\xffpc.x",
            r'{"é": "\\x80", "Nats-Msg-Id": "a\\x00b"}',
            b"\x00\xff",
            EPOCH + timedelta(milliseconds=T + 9),
            "malformed-payload",
            r"stopped at \x00",
            "parked",
            1,
            None,
        )
    ]


async def test_parking_again_counts_the_attempt_and_updates_the_reason(
    store: Store, query: Query, database_url: str
) -> None:
    for reason in ("malformed-payload", "database-rejected", "trailing-bytes"):
        async with store.transaction() as work:
            await work.park("S", [DEAD_LETTER._replace(reason=reason, detail=f"because of {reason}")])
    assert await query(database_url, "SELECT reason, detail, attempts FROM dead_letter") == [
        ("trailing-bytes", "because of trailing-bytes", 3)
    ]


CHECKPOINT = Checkpoint(
    stream="S", stream_created_at=T, rules=Rules(version=1, revision="kaa-2017-04", originators=("epr", "kpc"))
)


async def test_checkpoint_is_read_as_written(store: Store) -> None:
    assert await store.checkpoint() is None
    await store.begin(CHECKPOINT)
    assert await store.checkpoint() == CHECKPOINT
    after = replace(
        CHECKPOINT,
        position=2**53 + 1,
        anchor=Anchor(stored_at=T + 1, payload_hash=bytes(range(32))),
        skipped={"connectivity.suspended": 3, 'odd "type" ☕': 1},
    )
    async with store.transaction() as work:
        await work.advance(CHECKPOINT, after)
    assert await store.checkpoint() == after


async def test_first_checkpoint_does_not_replace_an_existing_one(store: Store) -> None:
    await store.begin(CHECKPOINT)
    await store.begin(replace(CHECKPOINT, stream_created_at=T + 1, position=7))
    assert await store.checkpoint() == CHECKPOINT


@pytest.mark.parametrize(
    "believed",
    [replace(CHECKPOINT, position=4), replace(CHECKPOINT, stream="OTHER")],
    ids=["other position", "other stream"],
)
async def test_advancing_from_a_stale_checkpoint_is_refused(store: Store, believed: Checkpoint) -> None:
    await store.begin(CHECKPOINT)
    with pytest.raises(CheckpointMovedError):
        await transact(store, lambda work: work.hold(believed))
    with pytest.raises(CheckpointMovedError):
        await transact(store, lambda work: work.advance(believed, replace(believed, position=9)))
    assert await store.checkpoint() == CHECKPOINT


@pytest.fixture
async def contest(
    open_store: OpenStore, query: Query, eventually: Eventually, database_url: str
) -> tuple[asyncio.Task[None], asyncio.Event, asyncio.Task[None]]:
    """The holder of the checkpoint, the signal to advance it and commit, and the waiter for the outcome."""
    first, second = await open_store(), await open_store()
    await first.begin(CHECKPOINT)
    held, decided = asyncio.Event(), asyncio.Event()

    async def hold(work: UnitOfWork) -> None:
        await work.hold(CHECKPOINT)
        held.set()

    async def advance(work: UnitOfWork) -> None:
        await decided.wait()
        await work.advance(CHECKPOINT, replace(CHECKPOINT, position=5))

    async def a_statement_waits() -> object:
        sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return await query(database_url, sql)

    holding = asyncio.create_task(transact(first, hold, advance))
    await held.wait()
    waiting = asyncio.create_task(transact(second, lambda work: work.hold(CHECKPOINT)))
    await eventually(a_statement_waits)
    return holding, decided, waiting


async def test_waiter_that_finds_the_checkpoint_moved_is_refused(contest: Any) -> None:
    holding, decided, waiting = contest
    assert not waiting.done()
    decided.set()
    await holding
    with pytest.raises(CheckpointMovedError) as refused:
        await waiting
    assert (refused.value.expected, refused.value.found) == (0, 5)


async def test_waiter_continues_when_the_holder_rolled_back(contest: Any) -> None:
    holding, _, waiting = contest
    holding.cancel()
    await waiting
