"""The public API as programs use it: checked by mypy in strict mode, and never run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_type

from projector import (
    Active,
    Answer,
    CaughtUp,
    Census,
    Checkpoint,
    Committed,
    DeadLetter,
    Differences,
    Examination,
    ExplainedColumn,
    ExplainedEvent,
    Explanation,
    FatalError,
    Finding,
    Heartbeat,
    ListedDeadLetter,
    Listening,
    Message,
    Notification,
    NotListening,
    Observer,
    Outcome,
    Projector,
    Received,
    Report,
    Retried,
    Retrying,
    Rules,
    Selection,
    SettingError,
    Settings,
    StandingBy,
    Status,
    StreamRecognized,
    TransientError,
    Waited,
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

    def notify(self, notification: Notification) -> None:
        match notification:
            case Active(checkpoint=checkpoint) | CaughtUp(checkpoint=checkpoint):
                assert_type(checkpoint, Checkpoint)
            case Received(messages=messages):
                assert_type(messages, Sequence[Message])
            case Committed(checkpoint=checkpoint, outcome=outcome, pending=pending):
                assert_type(outcome, Outcome)
                assert_type(outcome.dead_letters, Sequence[DeadLetter])
                assert_type(pending, int)
                self.last = checkpoint
            case Retrying(error=error):
                assert_type(error, TransientError)
            case Listening(url=text) | NotListening(reason=text):
                assert_type(text, str)
            case StreamRecognized(checkpoint=checkpoint):
                assert_type(checkpoint, Checkpoint)
            case Heartbeat() | StandingBy():
                pass


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


def progress(position: int, target: int) -> None:
    del position, target


async def use() -> None:
    async with Projector(settings) as projector:
        assert_type(projector, Projector)
        assert_type(projector.rules, Rules)
        assert_type(await projector.init(), bool)
        await projector.run()
        await projector.run(until_caught_up=True, accept_gap=True)
        projector.stop()

        report = await projector.rebuild(accept_trimmed=True, progress=progress)
        assert_type(report, Report)
        assert_type(report.differences, Differences)
        assert_type((await projector.verify(show=10)).clean, bool)
        assert_type(await projector.verify(endpoint_id="kettle-1"), Report)

        assert_type(await projector.status(), Status)
        assert_type(await projector.census(), Census)
        explanation = await projector.explain("kettle-1")
        assert_type(explanation, Explanation)
        assert_type(explanation.columns, Mapping[str, ExplainedColumn])
        assert_type(explanation.events, Sequence[ExplainedEvent])
        assert_type(await projector.explain("kettle-1", at=datetime.now(UTC), events=None), Explanation)
        assert_type(await projector.wait(7), Waited)
        assert_type((await projector.wait(7, timeout_s=1.5)).reached, bool)
        examination = await projector.doctor(nats_monitoring="http://nats:8222")
        assert_type(examination, Examination)
        assert_type(examination.findings, Sequence[Finding])
        assert_type(await projector.sql("select 1"), Answer)

        assert_type(await projector.dead_letters(), list[ListedDeadLetter])
        async for retried in projector.retry_dead_letters(Selection((7,))):
            assert_type(retried, Retried)
        assert_type(await projector.discard_dead_letters(Selection(), "not ours"), int)


# Errors.

try:
    Settings()
except SettingError as error:
    fatal: FatalError = error
