"""What can go wrong, in three families that are three verdicts.

ProjectorError
├── TransientError          roll back, back off, do the same again
│   ├── DatabaseUnavailableError
│   ├── BrokerUnavailableError
│   ├── CheckpointMovedError
│   ├── RowsChangedError
│   ├── DeliveryInterruptedError
│   │   ├── ConsumerPausedError
│   │   └── MessagesSkippedError
│   ├── LoginRefusedAgainError
│   └── HeldRowsRefusedError
├── PoisonError             park this one message and go on
└── FatalError              stop, say why, exit non-zero
    ├── SettingError
    ├── NotMigratedError
    ├── DatabaseRefusedError
    │   └── DatabaseLoginError
    ├── BrokerRefusedError
    │   ├── BrokerLoginError
    │   └── NotPermittedError
    ├── StreamMissingError
    ├── StreamReplacedError
    ├── EventsLostError
    ├── OtherStreamError
    ├── RulesChangedError
    ├── DamagedRowError
    ├── StreamTrimmedError
    ├── RebuildRunningError
    ├── NoDeadLetterError
    └── QueryRefusedError

An error that has facts of its own keeps them as attributes.
Its text reaches a person as one line, and that of a fatal one ends in what to do next.
"""

from typing import Literal

PoisonReason = Literal[
    "malformed-payload",
    "trailing-bytes",
    "empty-endpoint-id",
    "endpoint-id-too-long",
    "unstorable-text",
    "unstorable-json",
    "database-rejected",
]
"""Why a message was parked, as it stands in `dead_letter.reason`."""


class ProjectorError(Exception):
    """Anything this program raises on purpose."""


class TransientError(ProjectorError):
    """It may work the next time: roll back, back off and retry the same batch."""


class DatabaseUnavailableError(TransientError):
    """Postgres is down, failing over, overloaded, or cut the connection."""


class BrokerUnavailableError(TransientError):
    """NATS is down, failing over, or did not answer in time."""


class CheckpointMovedError(TransientError):
    """Another projector has folded past the position this one believed to be the last."""

    def __init__(self, *, expected: int, found: int | None) -> None:
        where = "elsewhere" if found is None else f"at {found}"
        super().__init__(f"the checkpoint was expected at position {expected}, and is {where}")
        self.expected = expected
        self.found = found


class RowsChangedError(TransientError):
    """A rebuild or a retry has changed rows: what is remembered of them does not hold any more."""

    def __init__(self, *, generation: int) -> None:
        super().__init__("rows were changed by a rebuild or a retry; they are read anew")
        self.generation = generation


class DeliveryInterruptedError(TransientError):
    """The consumer skipped, repeated or stopped delivering: what is buffered cannot be trusted."""


class ConsumerPausedError(DeliveryInterruptedError):
    """A person has paused the consumer; the daemon waits until the pause ends."""

    def __init__(self, stream: str, consumer: str, *, until: str) -> None:
        super().__init__(
            f"consumer {consumer!r} is paused until {until}, and delivers nothing; "
            f"`nats consumer resume {stream} {consumer}` ends the pause"
        )
        self.stream = stream
        self.consumer = consumer
        self.until = until


class MessagesSkippedError(DeliveryInterruptedError):
    """The consumer skipped a message that the stream holds: a fault of the server."""

    def __init__(self, position: int) -> None:
        super().__init__(
            f"the consumer skipped position {position}, which the stream holds; another consumer is created"
        )
        self.position = position


class LoginRefusedAgainError(TransientError):
    """A server refuses a daemon that it accepted before: a rotated password, an auth service that is not up yet."""


class HeldRowsRefusedError(TransientError):
    """Postgres objects to some of many rows that were written together, long after the messages that made them."""


class PoisonError(ProjectorError):
    """One message can never be folded as it is."""

    def __init__(self, reason: PoisonReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: PoisonReason = reason
        self.detail = detail


class FatalError(ProjectorError):
    """Going on would be wrong or pointless: stop and say why."""


class SettingError(FatalError):
    """A setting is missing or wrong."""


class NotMigratedError(FatalError):
    """The database does not have the tables of this version."""

    def __init__(self, *, found: str | None, expected: str, newer: bool = False) -> None:
        remedy = "run the newer version, which made it" if newer else "run `projector init`"
        super().__init__(
            f"the database is at migration {found or 'none'}{', which this version does not know' if newer else ''}, "
            f"this version needs {expected}; {remedy}"
        )
        self.found = found
        self.expected = expected
        self.newer = newer


class DatabaseRefusedError(FatalError):
    """Postgres will not let us in, or not let us do what the projector needs."""


class DatabaseLoginError(DatabaseRefusedError):
    """Postgres refuses the login, or there is no such database."""


class BrokerRefusedError(FatalError):
    """NATS will not let us in, or not let us do what the projector needs."""


class BrokerLoginError(BrokerRefusedError):
    """NATS refuses the login."""


class NotPermittedError(BrokerRefusedError):
    """NATS does not let us use a subject."""

    def __init__(self, doing: str, subject: str) -> None:
        super().__init__(
            f"NATS does not let us {doing} {subject!r}; give the user the permissions that docs/how-to/connect.md lists"
        )
        self.doing = doing
        self.subject = subject


class StreamMissingError(FatalError):
    """The stream does not exist."""

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"there is no stream {stream!r}; run `projector init` to create it, or set PROJECTOR_STREAM to its name, "
            "or PROJECTOR_NATS_API_PREFIX to that of its JetStream domain or account"
        )
        self.stream = stream


class StreamReplacedError(FatalError):
    """The stream is not the one whose events were folded: recreated, restored, or without its tail."""

    def __init__(self, stream: str, evidence: str) -> None:
        super().__init__(
            f"stream {stream!r} is not the one that was folded: {evidence}; "
            "restore the original stream, or run `projector rebuild` to accept this one: "
            "what only the original stream said is lost then"
        )
        self.stream = stream
        self.evidence = evidence


class EventsLostError(FatalError):
    """Events left the stream before they were folded."""

    def __init__(self, stream: str, *, checkpoint: int, first: int) -> None:
        self.lost = first - checkpoint - 1
        super().__init__(
            f"{self.lost} positions of stream {stream!r} are gone before they were folded: "
            f"the checkpoint is at {checkpoint} and the stream begins at {first}; "
            "run once with --accept-gap to go on without them"
        )
        self.stream = stream
        self.checkpoint = checkpoint
        self.first = first


class OtherStreamError(FatalError):
    """The tables were built from another stream than the settings name."""

    def __init__(self, *, found: str, wanted: str) -> None:
        super().__init__(
            f"the tables were built from stream {found!r}, and PROJECTOR_STREAM is {wanted!r}; "
            "use a database for each stream; or end the daemon of the other stream and run `projector rebuild`, "
            "which replaces its rows"
        )
        self.found = found
        self.wanted = wanted


class RulesChangedError(FatalError):
    """The rows were built by other rules than those of this version and these settings."""

    def __init__(self, *, what: str, built_with: str | int, now: str | int, note: str = "") -> None:
        self.evidence = f"the rows were built with {what} {built_with!r}{note}, this projector has {now!r}"
        super().__init__(f"{self.evidence}; run `projector rebuild` to build them anew")
        self.what = what
        self.built_with = built_with
        self.now = now


class DamagedRowError(FatalError):
    """A row of `endpoint_state` was changed by somebody else, and nothing can be folded on it."""

    def __init__(self, endpoint_id: str, facet: str, evidence: str) -> None:
        super().__init__(
            f"the {facet} registers of endpoint {endpoint_id!r} are damaged ({evidence}); "
            "run `projector rebuild` to mend the table"
        )
        self.endpoint_id = endpoint_id
        self.facet = facet
        self.evidence = evidence


class StreamTrimmedError(FatalError):
    """Messages have left the stream, so that a replay does not see everything."""

    def __init__(self, stream: str, *, first: int, gone: int, known: bool) -> None:
        consequence = (
            "what only they said is kept from the table"
            if known
            else "what only they said is lost: the table was not built from this stream"
        )
        super().__init__(
            f"stream {stream!r} begins at position {first}, and {gone} of its messages are gone; "
            f"with --accept-trimmed what is left is replayed, and {consequence}"
        )
        self.stream = stream
        self.first = first
        self.gone = gone
        self.known = known


class RebuildRunningError(FatalError):
    """Somebody else is rebuilding or verifying."""

    def __init__(self, who: str) -> None:
        super().__init__(f"a rebuild or verification is under way: {who}; wait for it, or end it")
        self.who = who


class NoDeadLetterError(FatalError):
    """There is no dead letter at this position."""

    def __init__(self, position: int) -> None:
        super().__init__(f"there is no dead letter at position {position}; see `projector dead-letters list`")
        self.position = position


class QueryRefusedError(FatalError):
    """Postgres objects to a statement of a person's; nothing is wrong with the database."""


def one_line(error: BaseException) -> str:
    """Return the text of an error on one line, or its name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
