"""The result of the rules on the corpus, and the recorded result of every version of the rules.

`python -m tests.support.golden_rules` records the current version.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from msgspec import Raw

from projector import resources
from projector.domain.endpoint import Endpoint, fold
from projector.domain.events import Event
from projector.domain.facets import Verdict
from projector.domain.messages import Message, Skipped
from projector.domain.rules import RULES_VERSION
from projector.errors import PoisonError
from projector.storage.columns import ENDPOINT_ID, FACET_COLUMNS, LAST_EVENT
from projector.storage.wire import encode_registers
from projector.stream.codec import Codec
from tests.support.corpus import CORPORA, corpus

RECORD = Path(__file__).with_suffix(".json")
COMMAND = "python -m tests.support.golden_rules"


class Result:
    """The result of folding a corpus."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Endpoint] = defaultdict(Endpoint.unseen)
        self.verdicts: Counter[tuple[type[Any], Verdict]] = Counter()
        self.parked: list[tuple[int, str]] = []
        self.skipped: Counter[str] = Counter()
        self._columns: dict[str, Digest] = defaultdict(Digest)

    def fold(self, event: Event) -> None:
        """Fold an event, and add its changes to the digests at once: a later event may overwrite them."""
        self.verdicts += fold([event], self.endpoints)
        for endpoint_id in event.endpoint_ids:
            endpoint = self.endpoints[endpoint_id]
            self._columns[ENDPOINT_ID.name].add(endpoint_id)
            for column in LAST_EVENT:
                self._columns[column.name].add(getattr(endpoint, column.name))
            for index, (facet, state) in enumerate(zip(FACET_COLUMNS, endpoint.states, strict=True)):
                if endpoint.changed >> index & 1:
                    for column, value in zip(facet.columns, facet.values(state), strict=True):
                        self._columns[column.name].add([endpoint_id, value])
                    self._columns[facet.registers.name].add([endpoint_id, encode_registers(state)])
            endpoint.changed = 0

    @property
    def columns(self) -> dict[str, str]:
        """A digest of every value that each column of `endpoint_state` took."""
        return {name: str(digest) for name, digest in self._columns.items()}


class Digest:
    """A digest of values, in their order."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self._hash = sha256()
        for value in values:
            self.add(value)

    def add(self, value: Any) -> None:
        self._hash.update(json.dumps(value, sort_keys=True, default=_raw).encode() + b"\n")

    def __str__(self) -> str:
        return self._hash.hexdigest()[:16]


@dataclass(frozen=True)
class Golden:
    """Result of a rules version on the corpus of a revision: digests by column of `endpoint_state`."""

    version: int
    revision: str
    corpus: str
    columns: dict[str, str]
    parked: str
    skipped: str

    def changed(self, other: "Golden") -> list[str]:
        """Return the names of the differing parts."""
        columns = self.columns.keys() | other.columns.keys()
        found = sorted(name for name in columns if self.columns.get(name) != other.columns.get(name))
        return [*found, *(name for name in ("parked", "skipped") if getattr(self, name) != getattr(other, name))]


def result(revision: str) -> Result:
    """Decode and fold the corpus."""
    codec = Codec(revision, resources.folder("schemas"))
    found = Result()
    for message in corpus(revision):
        try:
            decoded = codec.decode(message)
        except PoisonError as error:
            found.parked.append((message.position, error.reason))
            continue
        if isinstance(decoded, Skipped):
            found.skipped[decoded.type] += 1
        else:
            for event in decoded:
                found.fold(event)
    return found


def golden(revision: str, found: Result) -> Golden:
    """Return the part of a result that is recorded."""
    return Golden(
        version=RULES_VERSION,
        revision=revision,
        corpus=str(Digest(map(_written, corpus(revision)))),
        columns=found.columns,
        parked=str(Digest(found.parked)),
        skipped=str(Digest(sorted(found.skipped.items()))),
    )


def recorded() -> list[Golden]:
    """Return the recorded results."""
    return [Golden(**entry) for entry in json.loads(RECORD.read_text(encoding="utf-8"))]


def record() -> str | None:
    """Record the current rules version for every revision; return the reason if that is refused."""
    kept = recorded()
    for revision in CORPORA:
        now = golden(revision, result(revision))
        for before in [entry for entry in kept if (entry.version, entry.revision) == (now.version, revision)]:
            if before.corpus == now.corpus and before.changed(now):
                changed = ", ".join(before.changed(now))
                return f"version {now.version} is on record with other {changed}: raise RULES_VERSION"
            kept.remove(before)
        kept.append(now)
    RECORD.write_text(json.dumps([asdict(entry) for entry in kept], indent=2) + "\n", encoding="utf-8")
    return None


def _raw(value: Any) -> str:
    """Return the exact text of a metadata value in its column."""
    if not isinstance(value, Raw):
        raise TypeError(type(value))
    return bytes(value).decode()


def _written(message: Message) -> Sequence[Any]:
    return message.position, message.stored_at, message.subject, message.payload.hex()


if __name__ == "__main__":
    sys.exit(record())
