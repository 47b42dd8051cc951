"""What the tables must hold: the stream read back and folded by one thread, twice, and the differences found."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

import asyncpg

from projector.domain.endpoint import Endpoint, fold
from projector.domain.events import Event
from projector.domain.messages import Message, Skipped
from projector.domain.shards import shard_of
from projector.errors import PoisonError
from projector.storage.columns import FACET_COLUMNS
from projector.storage.wire import encode_json
from projector.stream.codec import Codec
from tests.chaos.model import Model, is_subscribed_to
from tests.chaos.traffic import REFUSED

_EPOCH = datetime.fromtimestamp(0, UTC)
_SHOWN = 5
_SHOWN_CHARACTERS = 1000

Row = dict[str, Any]


@dataclass(frozen=True)
class Tables:
    """Everything that derives from the stream, times in Unix ms."""

    rows: dict[str, Row]
    dead_letters: dict[int, Row]
    skipped: dict[str, int]
    position: int
    messages: int = 0
    """How many messages were folded, parked or skipped; 0 where that is not known."""


def plain_fold(codec: Codec, messages: Iterable[Message], tried_again: Mapping[int, int], shards: int = 1) -> Tables:
    """Fold with the projector's own rules, one message at a time, in memory.

    `tried_again` counts the retries of dead letters, by position.
    """
    endpoints: dict[str, Endpoint] = {}
    tables = Tables({}, {}, {}, 0)
    position = count = 0
    for message in messages:
        if is_subscribed_to(message.subject):
            position = message.position
            count += 1
        try:
            events = codec.decode(message)
        except PoisonError as error:
            tables.dead_letters[message.position] = _dead_letter(message, error.reason, tried_again)
            continue
        if isinstance(events, Skipped):
            tables.skipped[events.type] = tables.skipped.get(events.type, 0) + 1
            continue
        if any(REFUSED in event.endpoint_ids for event in events):
            tables.dead_letters[message.position] = _dead_letter(message, "database-rejected", tried_again)
            events = list(_accepted(events, shards))
        for event in events:
            for endpoint_id in event.endpoint_ids:
                endpoints.setdefault(endpoint_id, Endpoint.unseen())
        fold(events, endpoints)
    rows = {endpoint_id: _row(endpoint_id, endpoint) for endpoint_id, endpoint in endpoints.items()}
    return Tables(rows, tables.dead_letters, tables.skipped, position, count)


def independent_fold(
    revision: str, messages: Iterable[Message], tried_again: Mapping[int, int], shards: int = 1
) -> Tables:
    """Fold with the rules of docs/explanation/semantics.md, see `model`; registers are internal to the projector."""
    model = Model(revision, refused=REFUSED, shards=shards)
    dead_letters: dict[int, Row] = {}
    for message in messages:
        model.fold(message.position, message.stored_at, message.subject, message.payload)
        if message.position in model.dead_letters:
            reason = model.dead_letters[message.position]
            dead_letters[message.position] = _dead_letter(message, reason, tried_again)
    return Tables(model.rows(), dead_letters, dict(model.skipped), model.position)


async def stored(url: str, stream: str) -> Tables:
    """Read the tables."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT * FROM endpoint_state")
        letters = await connection.fetch("SELECT * FROM dead_letter WHERE stream = $1", stream)
        checkpoints = await connection.fetch("SELECT position, skipped FROM projector_checkpoint")
    finally:
        await connection.close()
    return Tables(
        {row["endpoint_id"]: {name: _plain(name, value) for name, value in row.items()} for row in rows},
        {letter["position"]: {name: _plain(name, letter[name]) for name in _DEAD_LETTER_COLUMNS} for letter in letters},
        dict(sum((Counter(json.loads(checkpoint["skipped"])) for checkpoint in checkpoints), Counter())),
        min((checkpoint["position"] for checkpoint in checkpoints), default=0),
    )


def differences(expected: Tables, found: Tables) -> list[str]:
    """Say how tables differ from what is expected, in the columns that are expected."""
    differing = [
        *_differing_rows("endpoint_state", expected.rows, found.rows),
        *_differing_rows("dead_letter", expected.dead_letters, found.dead_letters),
    ]
    for what, wanted, got in (
        ("skipped", expected.skipped, found.skipped),
        ("checkpoint", expected.position, found.position),
    ):
        if wanted != got:
            differing.append(f"{what} is {got}, not {wanted}")
    return differing


_DEAD_LETTER_COLUMNS = ("position", "subject", "payload", "stored_at", "reason", "state", "attempts")


def _accepted(events: Sequence[Event], shards: int) -> Iterator[Event]:
    """Yield what is folded by the shards that do not have the endpoint that the database objects to (decision 26)."""
    for event in events:
        others = tuple(one for one in event.endpoint_ids if shard_of(one, shards) != shard_of(REFUSED, shards))
        if others:
            yield event._replace(endpoint_ids=others)


def _dead_letter(message: Message, reason: str, tried_again: Mapping[int, int]) -> Row:
    # One attempt for each dead letter that was not retried: a message folded twice is parked twice.
    attempts = 1 + tried_again.get(message.position, 0)
    values = (message.position, message.subject, message.payload, message.stored_at, reason, "parked", attempts)
    return dict(zip(_DEAD_LETTER_COLUMNS, values, strict=True))


def _row(endpoint_id: str, endpoint: Endpoint) -> Row:
    row: Row = {
        "endpoint_id": endpoint_id,
        "last_event_seq": endpoint.last_event_seq,
        "last_event_at": endpoint.last_event_at,
    }
    for facet, state in zip(FACET_COLUMNS, endpoint.states, strict=True):
        touched = state != facet.facet.initial
        row |= zip((column.name for column in facet.columns), facet.values(state), strict=True)
        row[facet.registers.name] = json.loads(encode_json(state)) if touched else None
    row["metadata"] = _exact(encode_json(row["metadata"]))
    return row


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - _EPOCH) // timedelta(milliseconds=1)
    if isinstance(value, str) and name == "metadata":
        return _exact(value)
    if isinstance(value, str) and name.endswith("_registers"):
        return json.loads(value)
    return value


def _exact(text: str | bytes) -> Any:
    """Read JSON without losing a digit."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def _differing_rows(table: str, expected: dict[Any, Row], found: dict[Any, Row]) -> Sequence[str]:
    def complaints() -> Iterable[str]:
        for key in expected.keys() | found.keys():
            if key not in found:
                yield f"{table} {key!r} is missing"
            elif key not in expected:
                yield f"{table} {key!r} should not be there"
            else:
                wrong = {name for name, value in expected[key].items() if found[key][name] != value}
                if wrong:
                    pairs = ", ".join(f"{name}: {found[key][name]!r}, not {expected[key][name]!r}" for name in wrong)
                    yield f"{table} {key!r} has {pairs}"[:_SHOWN_CHARACTERS]

    return list(islice(complaints(), _SHOWN))
