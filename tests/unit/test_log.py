"""The log has one line per change of state, and none per event."""

import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from projector.app.notifications import (
    Active,
    CaughtUp,
    ChangesLost,
    Committed,
    Heartbeat,
    PublishingFailed,
    PublishingResumed,
    Retrying,
)
from projector.app.projection import Outcome
from projector.cli import log as journal_module
from projector.cli.log import DaemonLog
from projector.domain.checkpoint import Checkpoint
from projector.domain.events import Connected
from projector.domain.facets import Verdict
from projector.domain.messages import DeadLetter, Message
from projector.domain.revision_hint import with_hint
from projector.domain.rules import Rules
from projector.domain.shards import Shard
from projector.errors import DatabaseUnavailableError, FeedStreamMissingError
from projector.settings import load

RULES = Rules(version=3, revision="kaa-2017-04", originators=())
CHECKPOINT = Checkpoint(stream="S", stream_created_at=0, rules=RULES, position=7)


def committed(*, pending: int = 0, parked: int = 0, detail: str = "left over", folded: int = 0) -> Committed:
    letters = [DeadLetter(Message(n, 0, "s", b""), "trailing-bytes", detail) for n in range(parked)]
    verdicts = {(Connected, Verdict.APPLIED): folded} if folded else {}
    outcome = Outcome(messages=9, verdicts=verdicts, skipped={}, dead_letters=letters, duplicates=0, seconds={})
    return Committed(checkpoint=CHECKPOINT, outcome=outcome, pending=pending)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Clock:
        now = 1000.0

    monkeypatch.setattr(journal_module, "monotonic", lambda: Clock.now)
    return Clock


def test_the_start_shows_the_settings_and_no_secret() -> None:
    flags = {
        "nats_url": "nats://fleet:s3cret@127.0.0.1",
        "database_url": "postgresql://fleet:s3cret@127.0.0.1/fleet",
        "originators": "epr,kpc",
    }
    with capture_logs() as logged:
        DaemonLog().starting(load(flags, config=None, fallback=None), RULES)
    (line,) = logged
    assert line["event"] == "starting"
    assert line["database"] == "postgresql://fleet:***@127.0.0.1/fleet"
    assert (line["originators"], line["http"], line["rules"]) == ("epr, kpc", "127.0.0.1:9464", 3)
    assert "s3cret" not in str(line)


def test_terminal_control_characters_are_escaped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    before = structlog.get_config()
    try:
        journal_module.configure(verbose=False)
        DaemonLog().notify(Retrying(error=DatabaseUnavailableError("a\x1b]0;title\x07b")))
        with suppress(KeyError), DaemonLog().errors_logged():
            raise KeyError("\x9b2J")
    finally:
        structlog.configure(**before)
    printed = capsys.readouterr().err
    assert r"a\x1b]0;title\x07b" in printed
    assert "\x1b]" not in printed
    assert "\x9b" not in printed


def test_batches_are_not_logged(clock: Any) -> None:
    journal = DaemonLog()
    with capture_logs() as logged:
        for _ in range(100):
            clock.now += 1
            journal.notify(committed(pending=1))
            journal.notify(committed(pending=0))
    assert [line for line in logged if line["log_level"] != "debug"] == []


def test_catching_up_after_a_small_lag_is_not_logged_again(clock: Any) -> None:
    journal = DaemonLog()
    with capture_logs() as logged:
        journal.notify(Active(checkpoint=CHECKPOINT))
        journal.notify(CaughtUp(checkpoint=CHECKPOINT))
        for _ in range(100):
            clock.now += 1
            journal.notify(committed(pending=1))
            journal.notify(CaughtUp(checkpoint=CHECKPOINT))
        journal.notify(committed(pending=9000))
        clock.now += 11
        journal.notify(CaughtUp(checkpoint=CHECKPOINT))
    assert [line["event"] for line in logged if line["log_level"] == "info"] == ["active", "caught up", "caught up"]


def test_each_shard_is_logged_to_catch_up() -> None:
    journal = DaemonLog()
    shards = [Shard(number, 2) for number in range(2)]
    with capture_logs() as logged:
        for shard in shards:
            journal.notify(Active(checkpoint=replace(CHECKPOINT, shard=shard)))
        for shard in shards:
            journal.notify(CaughtUp(checkpoint=replace(CHECKPOINT, shard=shard)))
    assert [line["shard"] for line in logged if line["event"] == "caught up"] == [0, 1]


def test_failures_of_several_shards_that_take_turns_are_logged_once_a_minute(clock: Any) -> None:
    journal = DaemonLog()
    with capture_logs() as logged:
        for _ in range(29):
            for number, reason in enumerate(("down", "starting up")):
                journal.notify(Retrying(error=DatabaseUnavailableError(reason), shard=Shard(number, 2)))
            clock.now += 2
    assert [line["reason"] for line in logged] == ["down", "starting up"]


def test_repeated_failure_is_logged_once_a_minute(clock: Any) -> None:
    journal = DaemonLog()
    with capture_logs() as logged:
        for _ in range(60):
            journal.notify(Retrying(error=DatabaseUnavailableError("down")))
            clock.now += 2
        journal.notify(Retrying(error=DatabaseUnavailableError("starting up")))
        journal.notify(Active(checkpoint=CHECKPOINT))
        journal.notify(Retrying(error=DatabaseUnavailableError("starting up")))
    reasons = [line["reason"] for line in logged if line["event"] == "retrying"]
    assert reasons == ["down", "down", "starting up", "starting up"]


def test_many_parked_messages_are_logged_as_a_few_and_a_count() -> None:
    with capture_logs() as logged:
        DaemonLog().notify(committed(parked=8000))
    parked = [line for line in logged if line["event"] == "parked"]
    assert len(parked) == 11
    assert [line["position"] for line in parked[:10]] == list(range(10))
    assert parked[-1]["more"] == 7990


OTHER = with_hint("3 of 9 bytes are left over", "kaa-2020-05")


def hints(*batches: Committed) -> list[Any]:
    """Return the hints at another revision that batches lead to."""
    journal = DaemonLog()
    with capture_logs() as logged:
        for batch in batches:
            journal.notify(batch)
    return [line for line in logged if line["event"] == "other revision"]


def test_stream_of_another_revision_is_logged_once() -> None:
    (hint,) = hints(*[committed(parked=1, detail=OTHER)] * 20)
    assert hint["log_level"] == "warning"
    assert hint["revision"] == "kaa-2017-04"
    assert "PROJECTOR_REVISION=kaa-2020-05" in hint["then"]


def test_a_batch_without_any_message_of_this_revision_is_enough() -> None:
    assert len(hints(committed(parked=500, detail=OTHER))) == 1


@pytest.mark.parametrize(
    "batches",
    [
        [committed(parked=2, detail=OTHER)],
        [committed(parked=500)],
        [committed(parked=500, detail=OTHER, folded=1)],
        [committed(parked=2, detail=OTHER), committed(folded=1), committed(parked=2, detail=OTHER)],
        [committed(parked=2, detail=OTHER), committed(parked=2, detail=with_hint("", "kaa-0"))],
    ],
    ids=["too few", "no revision reads them", "an event beside them", "an event between them", "two revisions"],
)
def test_noise_is_not_mistaken_for_another_revision(batches: list[Committed]) -> None:
    assert hints(*batches) == []


def test_publishing_logs_why_it_waits_that_it_continues_and_what_is_lost() -> None:
    with capture_logs() as logged:
        log = DaemonLog()
        log.notify(PublishingFailed(error=FeedStreamMissingError("fleet", "S_CHANGES")))
        log.notify(Heartbeat())
        log.notify(PublishingResumed())
        log.notify(ChangesLost(commits=3))
    assert [(line["event"], line["log_level"]) for line in logged] == [
        ("not publishing", "warning"),
        ("publishing", "info"),
        ("changes lost", "error"),
    ]
    assert "no stream stores fleet.>" in logged[0]["reason"]
    assert logged[2]["commits"] == 3
