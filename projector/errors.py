"""The errors, in three families: retry, park the message, stop.

ProjectorError
├── TransientError          roll back, back off, retry
│   ├── DatabaseUnavailableError
│   ├── BrokerUnavailableError
│   ├── CheckpointMovedError
│   ├── RowsChangedError
│   ├── ShardsChangedError
│   ├── RetryTooEarlyError
│   ├── DeliveryInterruptedError
│   │   ├── ConsumerPausedError
│   │   └── MessagesSkippedError
│   ├── LoginRefusedAgainError
│   ├── HeldRowsRefusedError
│   ├── FeedMovedError
│   ├── FeedStreamMissingError
│   └── FeedStreamMixedError
├── PoisonError             park the message and continue
└── FatalError              stop, report why, exit non-zero
    ├── SettingError
    ├── NotMigratedError
    ├── NotDistributableError
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
    ├── ProjectorRunningError
    ├── WorkerFailedError
    ├── NoDeadLetterError
    ├── NoEndpointError
    ├── MomentUnknownError
    └── QueryRefusedError

An error carries its facts as attributes.
Users see its text as one line; the text of a fatal error ends with the remedy.
"""

from typing import Any, Literal, Self

PoisonReason = Literal[
    "malformed-payload",
    "trailing-bytes",
    "empty-endpoint-id",
    "endpoint-id-too-long",
    "unstorable-text",
    "unstorable-json",
    "database-rejected",
]
"""Why a message was parked: the values of `dead_letter.reason`."""


class ProjectorError(Exception):
    """Base class of the errors that the projector raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker process report an error: it is pickled with its text and its facts."""
        return self._with_text, self.args, self.__dict__

    @classmethod
    def _with_text(cls, *text: str) -> Self:
        """Return an error without its facts: constructors take these, and make the text from them."""
        return cls.__new__(cls, *text)


class TransientError(ProjectorError):
    """A retry may succeed: roll back, back off and retry the same batch."""


class DatabaseUnavailableError(TransientError):
    """Postgres is down, failing over or overloaded, or has cut the connection."""


class BrokerUnavailableError(TransientError):
    """NATS is down, failing over, or did not answer in time."""


class CheckpointMovedError(TransientError):
    """Another projector has moved the checkpoint that this one expected."""

    def __init__(self, *, expected: int, found: int | None) -> None:
        where = "elsewhere" if found is None else f"at {found}"
        super().__init__(f"the checkpoint was expected at position {expected}, and is {where}")
        self.expected = expected
        self.found = found


class RowsChangedError(TransientError):
    """A rebuild or a retry has changed rows, so prefetched state is stale."""

    def __init__(self, *, generation: int) -> None:
        super().__init__("a rebuild or a retry has changed rows; they are reloaded")
        self.generation = generation


class ShardsChangedError(TransientError):
    """The number of shards of the projection has changed since this projector last looked."""

    def __init__(self, *, expected: int, found: int) -> None:
        super().__init__(f"the projection has {found} shards, and not {expected}")
        self.expected = expected
        self.found = found


class RetryTooEarlyError(TransientError):
    """A shard has not reached the position of a dead letter that another shard has parked."""

    def __init__(self, *, position: int, folded: int) -> None:
        super().__init__(
            f"the dead letter at position {position} cannot be retried yet: a shard is folded up to position {folded} "
            "only; start a projector if none leads that shard, and retry the dead letter later"
        )
        self.position = position
        self.folded = folded


class DeliveryInterruptedError(TransientError):
    """The consumer skipped, repeated or stopped delivering messages: buffered messages cannot be trusted."""


class ConsumerPausedError(DeliveryInterruptedError):
    """The consumer is paused; the daemon waits until the pause ends."""

    def __init__(self, stream: str, consumer: str, *, until: str) -> None:
        super().__init__(
            f"consumer {consumer!r} is paused until {until} and delivers nothing; "
            f"`nats consumer resume {stream} {consumer}` ends the pause"
        )
        self.stream = stream
        self.consumer = consumer
        self.until = until


class MessagesSkippedError(DeliveryInterruptedError):
    """The consumer skipped a message that the stream holds: a fault of the NATS server."""

    def __init__(self, position: int) -> None:
        super().__init__(f"the consumer skipped position {position}, which the stream holds; the consumer is recreated")
        self.position = position


class LoginRefusedAgainError(TransientError):
    """A server refuses a login that it accepted before: a password was rotated, or an auth service is not up yet."""


class HeldRowsRefusedError(TransientError):
    """Postgres rejects rows of a rebuild that were written together, so the message at fault is unknown."""


class FeedMovedError(TransientError):
    """Another program has published to the stream of the changes, or another projector has moved their cursor."""


class FeedStreamMissingError(TransientError):
    """No stream stores the changes; publishing waits for one."""

    def __init__(self, prefix: str, stream: str) -> None:
        super().__init__(
            f"no stream stores {prefix}.>; run `projector init` with PROJECTOR_PUBLISH to create {stream!r}, "
            "or add it to the subjects of a stream"
        )
        self.prefix = prefix
        self.stream = stream


class FeedStreamMixedError(TransientError):
    """The stream that would store the changes stores the events as well."""

    def __init__(self, prefix: str, stream: str) -> None:
        super().__init__(
            f"stream {stream!r} stores both the changes ({prefix}.>) and the events; "
            "take one of them out of its subjects, or set PROJECTOR_PUBLISH to another prefix"
        )
        self.prefix = prefix
        self.stream = stream


class PoisonError(ProjectorError):
    """The message can never be folded."""

    def __init__(self, reason: PoisonReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: PoisonReason = reason
        self.detail = detail


class FatalError(ProjectorError):
    """Continuing would be wrong or pointless: stop and report why."""


class SettingError(FatalError):
    """A setting is missing or wrong."""


class NotMigratedError(FatalError):
    """The database does not have the tables of this version."""

    def __init__(self, *, found: str | None, expected: str, newer: bool = False) -> None:
        remedy = "run the newer version" if newer else "run `projector init`"
        super().__init__(
            f"the database is at migration {found or 'none'}{', which this version does not know' if newer else ''}, "
            f"this version needs {expected}; {remedy}"
        )
        self.found = found
        self.expected = expected
        self.newer = newer


class NotDistributableError(FatalError):
    """The tables cannot be distributed over the workers of Citus as they are."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(f"the tables cannot be distributed: {why}; {remedy}")
        self.why = why


class DatabaseRefusedError(FatalError):
    """Postgres refuses the connection, or a statement that the projector needs."""


class DatabaseLoginError(DatabaseRefusedError):
    """Postgres refuses the login, or the database does not exist."""


class BrokerRefusedError(FatalError):
    """NATS refuses the connection, or a request that the projector needs."""


class BrokerLoginError(BrokerRefusedError):
    """NATS refuses the login."""


class NotPermittedError(BrokerRefusedError):
    """The NATS user may not use a subject."""

    def __init__(self, doing: str, subject: str) -> None:
        super().__init__(
            f"the NATS user may not {doing} {subject!r}; grant it the permissions that docs/how-to/connect.md lists"
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
    """The stream is not the one whose events were folded: it was recreated or restored, or has lost its tail."""

    def __init__(self, stream: str, evidence: str) -> None:
        super().__init__(
            f"stream {stream!r} is not the one that was folded: {evidence}; "
            "restore the original stream, or run `projector rebuild` to accept this one: "
            "what only the original stream held is then lost"
        )
        self.stream = stream
        self.evidence = evidence


class EventsLostError(FatalError):
    """Events left the stream before they were folded."""

    def __init__(self, stream: str, *, checkpoint: int, first: int) -> None:
        self.lost = first - checkpoint - 1
        super().__init__(
            f"{self.lost} positions of stream {stream!r} were removed before they were folded: "
            f"the checkpoint is at {checkpoint} and the stream begins at {first}; "
            "run once with --accept-gap to continue without them"
        )
        self.stream = stream
        self.checkpoint = checkpoint
        self.first = first


class OtherStreamError(FatalError):
    """The tables were built from another stream than the one in the settings."""

    def __init__(self, *, found: str, wanted: str) -> None:
        super().__init__(
            f"the tables were built from stream {found!r}, but PROJECTOR_STREAM is {wanted!r}; "
            "use a database for each stream; or end the daemon of the other stream and run `projector rebuild`, "
            "which replaces its rows"
        )
        self.found = found
        self.wanted = wanted


class RulesChangedError(FatalError):
    """The rows were built with rules other than those of this version and these settings."""

    def __init__(self, *, what: str, built_with: str | int, now: str | int, undo: str, note: str = "") -> None:
        self.evidence = f"the rows were built with {what} {built_with!r}{note}, but this projector has {now!r}"
        super().__init__(f"{self.evidence}; {undo}, or run `projector rebuild` to replace the rows")
        self.what = what
        self.built_with = built_with
        self.now = now


class DamagedRowError(FatalError):
    """The registers of a row of `endpoint_state` were changed by another program and cannot be read."""

    def __init__(
        self, endpoint_id: str, facet: str, evidence: str, remedy: str = "run `projector rebuild` to repair the table"
    ) -> None:
        super().__init__(f"the {facet} registers of endpoint {endpoint_id!r} are damaged ({evidence}); {remedy}")
        self.endpoint_id = endpoint_id
        self.facet = facet
        self.evidence = evidence


class StreamTrimmedError(FatalError):
    """Messages have left the stream, so a replay does not see everything."""

    def __init__(self, stream: str, *, first: int, gone: int, known: bool) -> None:
        consequence = (
            "state that only they contained is kept from the table"
            if known
            else "state that only they contained is lost: the table was not built from this stream"
        )
        super().__init__(
            f"stream {stream!r} begins at position {first}, and {gone} of its messages are gone; "
            f"with --accept-trimmed the rest is replayed, and {consequence}"
        )
        self.stream = stream
        self.first = first
        self.gone = gone
        self.known = known


class RebuildRunningError(FatalError):
    """A rebuild, a verification or a retry of dead letters is in progress."""

    def __init__(self, who: str) -> None:
        super().__init__(
            f"a rebuild, a verification or a retry of dead letters is in progress: {who}; wait for it, or end it, "
            "for example with pg_terminate_backend and the number of its backend process"
        )
        self.who = who


class ProjectorRunningError(FatalError):
    """A projector is running, and what was asked for has to wait until it ends."""

    def __init__(self, who: str) -> None:
        super().__init__(
            f"the endpoints cannot be divided into shards or distributed while a projector runs: {who}; "
            "stop every daemon of this database, also on other machines, and run the same command again"
        )
        self.who = who


class WorkerFailedError(FatalError):
    """A worker process ended with an error, or keeps dying soon after its start."""

    def __init__(self, worker: int, ending: str) -> None:
        super().__init__(f"worker {worker} {ending}; the others were stopped: correct the cause, and start again")
        self.worker = worker


class NoDeadLetterError(FatalError):
    """There is no dead letter at this position."""

    def __init__(self, position: int) -> None:
        super().__init__(f"there is no dead letter at position {position}; see `projector dead-letters list`")
        self.position = position


class NoEndpointError(FatalError):
    """No event has named this endpoint, as far as is known."""

    def __init__(self, endpoint_id: str, *, looked_in: str) -> None:
        super().__init__(f"there is no endpoint {endpoint_id!r} in {looked_in}; check its id")
        self.endpoint_id = endpoint_id
        self.looked_in = looked_in


class MomentUnknownError(FatalError):
    """The log of changes does not go back to this moment."""

    def __init__(self, *, at: str, since: str | None) -> None:
        known = "changes are not recorded" if since is None else f"the log of changes begins at {since}"
        remedy = "set PROJECTOR_CHANGES for the future" if since is None else "ask for a later moment"
        super().__init__(f"the state at {at} is unknown: {known}; {remedy}, or read the stream with --replay")
        self.at = at
        self.since = since


class QueryRefusedError(FatalError):
    """Postgres rejects the statement of a user; the database itself is fine."""


def one_line(error: BaseException) -> str:
    """Return the text of an error on one line, or the name of its class if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
