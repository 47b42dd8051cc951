"""Tables in memory: endpoints and dead letters."""

from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from projector.domain.endpoint import Endpoint, FacetSet, completed, missing
from projector.domain.messages import DeadLetter


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    letter: DeadLetter
    state: str = "parked"
    attempts: int = 1

    @property
    def stored_at(self) -> int:
        return self.letter.message.stored_at

    def again(self, letter: DeadLetter) -> "StoredDeadLetter":
        """Return the dead letter after one more attempt; in a recreated stream it is another message."""
        stays_discarded = self.state == "discarded" and self.stored_at == letter.message.stored_at
        return StoredDeadLetter(letter, "discarded" if stays_discarded else "parked", self.attempts + 1)


@dataclass(frozen=True, slots=True)
class Tables:
    """Endpoints and dead letters; stored objects are replaced, never mutated."""

    endpoints: MutableMapping[str, Endpoint] = field(default_factory=dict)
    dead_letters: MutableMapping[tuple[str, int], StoredDeadLetter] = field(default_factory=dict)
    """By stream and position."""

    def draft(self) -> "Tables":
        """Return a copy-on-write view of these tables."""
        return Tables(ChainMap({}, self.endpoints), ChainMap({}, self.dead_letters))

    def take(self, draft: "Tables") -> None:
        """Apply the writes of a draft."""
        for mine, theirs in ((self.endpoints, draft.endpoints), (self.dead_letters, draft.dead_letters)):
            assert isinstance(theirs, ChainMap)
            mine.update(theirs.maps[0])

    def become(self, other: "Tables") -> None:
        """Replace the contents with those of other tables; open transactions stay transactions on these."""
        self.clear()
        self.endpoints.update(other.endpoints)
        self.dead_letters.update(other.dead_letters)

    def clear(self) -> None:
        self.endpoints.clear()
        self.dead_letters.clear()

    def load(self, needed: Mapping[str, FacetSet]) -> dict[str, Endpoint]:
        """Return working copies, with the facets that are needed."""
        return {endpoint_id: self._load(endpoint_id, facets) for endpoint_id, facets in needed.items()}

    def save(self, endpoint_id: str, endpoint: Endpoint) -> None:
        """Write the facets that changed."""
        row = self.endpoints.get(endpoint_id, Endpoint.unseen())
        states = [
            new if endpoint.changed >> index & 1 else old
            for index, (new, old) in enumerate(zip(endpoint.states, row.states, strict=True))
        ]
        self.endpoints[endpoint_id] = Endpoint(states, endpoint.last_event_seq, endpoint.last_event_at)

    def _load(self, endpoint_id: str, facets: FacetSet) -> Endpoint:
        row = self.endpoints.get(endpoint_id)
        if row is None:
            return Endpoint.unseen()
        states = [state if facets >> index & 1 else None for index, state in enumerate(row.states)]
        return Endpoint(states, row.last_event_seq, row.last_event_at)


def load_over(
    tables: Tables, needed: Mapping[str, FacetSet], uncommitted: Mapping[str, Endpoint]
) -> dict[str, Endpoint]:
    """Return working copies of endpoints as if the uncommitted ones were saved."""
    return completed(needed, uncommitted, tables.load(missing(needed, uncommitted)))
