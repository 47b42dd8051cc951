"""The public API as programs use it: checked by mypy in strict mode, and never run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_never, assert_type

from projector import (
    Active,
    Answer,
    CaughtUp,
    Census,
    ChangesLost,
    Checkpoint,
    Committed,
    DeadLetter,
    Differences,
    EventsLostError,
    Examination,
    ExplainedColumn,
    ExplainedEvent,
    ExplainedKey,
    Explanation,
    FatalError,
    Finding,
    Heartbeat,
    ListedDeadLetter,
    Listening,
    Mention,
    Message,
    Notification,
    NotListening,
    Observer,
    Outcome,
    Progress,
    Projector,
    Published,
    PublishingFailed,
    PublishingResumed,
    Received,
    Released,
    Replayed,
    Report,
    Retried,
    Retrying,
    RowDifference,
    Rules,
    Selection,
    SettingError,
    Settings,
    Shard,
    StandingBy,
    Status,
    StoredDeadLetter,
    StreamRecognized,
    TooManyWorkers,
    TransientError,
    Verdict,
    Waited,
    WorkerDied,
    __version__,
)

assert_type(__version__, str)


# Settings.

Settings()  # everything is in the environment
Settings(database_url="postgresql://db/fleet")
settings = Settings(
    database_url="postgresql://db/fleet",
    nats_url="tls://a,tls://b",
    nats_credentials=Path("fleet.creds"),
    nats_nkey=None,
    originators=("epr", "kpc"),
    batch_size=4000,
    allow_plaintext_passwords=False,
    http="off",
    ready_lag_s=60,
)
assert_type(settings.database_url, str)
assert_type(settings.nats_credentials, Path | None)
assert_type(settings.originators, tuple[str, ...])
assert_type(settings.batch_size, int)
assert_type(settings.ready_lag_s, float)
assert_type(replace(settings, http="127.0.0.1:0"), Settings)
settings.http = "on"  # type: ignore[misc] # it is frozen
Settings(batch_size="4000")  # type: ignore[arg-type]
Settings(databse_url="postgresql://db/fleet")  # type: ignore[call-arg]


# Observers.


class Subclass(Observer):
    def __init__(self) -> None:
        self.last: Checkpoint | None = None

    def notify(self, notification: Notification) -> None:  # noqa: C901, PLR0912 - a case for each kind
        match notification:
            case Active(checkpoint=checkpoint) | CaughtUp(checkpoint=checkpoint):
                assert_type(checkpoint, Checkpoint)
            case Received(messages=messages):
                assert_type(messages, Sequence[Message])
            case Committed(checkpoint=checkpoint, outcome=outcome, pending=pending):
                assert_type(outcome, Outcome)
                for (kind, verdict), count in outcome.verdicts.items():
                    assert_type(kind, type[Any])
                    assert_type(verdict, Verdict)
                    assert_type(count, int)
                assert_type(outcome.dead_letters, Sequence[DeadLetter])
                assert_type(pending, int)
                self.last = checkpoint
            case Retrying(error=error, shard=shard):
                assert_type(error, TransientError)
                assert_type(shard, Shard)
            case Released(shard=shard):
                assert_type(shard, Shard)
            case StandingBy(shards=shards):
                assert_type(shards, int | None)
            case WorkerDied(worker=number, reason=text):
                assert_type(number, int)
                assert_type(text, str)
            case TooManyWorkers(workers=workers, shards=number):
                assert_type(workers, int)
                assert_type(number, int)
            case Published(changes=number) | ChangesLost(commits=number):
                assert_type(number, int)
            case PublishingFailed(error=failure):
                assert_type(failure, Exception)
            case Listening(url=text) | NotListening(reason=text):
                assert_type(text, str)
            case StreamRecognized(checkpoint=checkpoint, created_before=number):
                assert_type(checkpoint, Checkpoint)
                assert_type(number, int)
            case Heartbeat() | PublishingResumed():
                pass
            case _:
                # Only this file does that, so that it forgets no kind: programs must ignore the kinds they do not know.
                assert_never(notification)


class Silent(Observer):
    """An observer may ignore everything."""


class Structural:
    def notify(self, notification: Notification) -> None:
        del notification


class Wrong:
    def notify(self, notification: str) -> None:
        del notification


Projector(settings, observers=[Subclass(), Silent(), Structural()])
Projector(settings, observers=[Wrong()])  # type: ignore[list-item]


# The projector.


def show(position: int, target: int) -> None:
    del position, target


progress: Progress = show


async def use() -> None:
    async with Projector(settings) as projector:
        assert_type(projector, Projector)
        assert_type(projector.rules, Rules)
        assert_type(await projector.init(), bool)
        assert_type(await projector.init(shards=4, distribute=True), bool)
        assert_type(projector.changes_stream, str | None)
        await projector.run()
        await projector.run(until_caught_up=True, accept_gap=True)
        projector.stop()

        report = await projector.rebuild(accept_trimmed=True, progress=progress)
        assert_type(report, Report)
        assert_type(report.differences, Differences)
        assert_type(report.differences.shown, Sequence[RowDifference])
        assert_type(report.mentions, Sequence[Mention])
        assert_type(report.mentions[0].message, Message)
        assert_type((await projector.verify(show=10)).clean, bool)
        assert_type(await projector.verify(endpoint_id="kettle-1"), Report)
        assert_type(await projector.verify(accept_trimmed=True, progress=progress), Report)

        assert_type(await projector.status(), Status)
        assert_type(await projector.census(), Census)
        explanation = await projector.explain("kettle-1")
        assert_type(explanation, Explanation)
        assert_type(explanation.columns, Mapping[str, ExplainedColumn])
        assert_type(explanation.events, Sequence[ExplainedEvent])
        assert_type(explanation.keys, Mapping[str, ExplainedKey])
        assert_type(explanation.replayed, Replayed | None)
        assert_type(await projector.explain("kettle-1", at=datetime.now(UTC), events=None), Explanation)
        assert_type(await projector.explain("kettle-1", replay=True, progress=progress), Explanation)
        assert_type(await projector.wait(7), Waited)
        assert_type((await projector.wait(7, timeout_s=1.5)).reached, bool)
        examination = await projector.doctor(nats_monitoring="http://nats:8222")
        assert_type(examination, Examination)
        assert_type(examination.findings, Sequence[Finding])
        assert_type(await projector.sql("select 1"), Answer)

        assert_type(await projector.dead_letters(), list[ListedDeadLetter])
        assert_type(await projector.dead_letter(7), tuple[StoredDeadLetter, dict[str, Any]])
        async for retried in projector.retry_dead_letters(Selection((7,))):
            assert_type(retried, Retried)
        assert_type(await projector.discard_dead_letters(Selection(), "not ours"), int)


# Errors.

try:
    Settings()
except SettingError as error:
    fatal: FatalError = error
except EventsLostError as lost:
    assert_type(lost.stream, str)
    assert_type((lost.checkpoint, lost.first, lost.lost), tuple[int, int, int])
