"""Publishing, on a log and a stream in memory."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import count

import pytest

from projector.app import publish as publish_module
from projector.app.publish import Publishing
from projector.domain.changes import Appended, FeedCursor, LoggedChange, Place
from projector.errors import BrokerUnavailableError, FeedMovedError, FeedStreamMissingError
from tests.support.memory.connections import Connection
from tests.support.memory.feed import MemoryChangeStream, MemoryFeed
from tests.support.memory.turns import until
from tests.support.scene import Recorder


def change(endpoint_id: str, position: int = 0, *, verdict: str = "applied") -> LoggedChange:
    return LoggedChange(
        0, 0, 0, endpoint_id, "metadata", verdict, position or None, 1, 1, "metadata.updated", "epr", None, None, b"{}"
    )


class Trial:
    """A publisher in a task."""

    def __init__(self, shards: int = 1) -> None:
        self.feed = MemoryFeed(shards)
        self.recorder = Recorder()
        self.behind = False
        self.publishing = Publishing(self.feed, self.recorder, shards=shards)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self.publishing.run(lambda: self.behind))

    async def caught_up(self) -> None:
        await until(self._is_caught_up)

    def _is_caught_up(self) -> bool:
        shards = range(len(self.feed.heads))
        return all(self.feed.stored_of(shard)[-1:] == self.feed.log_of(shard)[-1:] for shard in shards)

    async def finish(self) -> None:
        if self._task is None:
            self.start()
            await asyncio.sleep(0)
        self.publishing.finish()
        assert self._task is not None
        await self._task
        self._task = None

    async def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def commit(self, number: int, shard: int = 0) -> None:
        """Log commits of one to three changes each."""
        for _ in range(number):
            at = self.feed.heads[shard].commits + 1
            self.feed.commit(*(change(f"{shard}-{n}", at * 10 + n) for n in range(1 + at % 3)), at=at, shard=shard)

    def commit_everywhere(self, number: int) -> None:
        """Log commits of every shard, more of those with a higher number."""
        for shard in range(len(self.feed.heads)):
            self.commit(number + shard, shard)

    def assert_complete(self) -> None:
        """Each change of each shard once, in the order of its log."""
        for shard in range(len(self.feed.heads)):
            assert self.feed.stored_of(shard) == self.feed.log_of(shard)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def pauses_s() -> Iterator[float]:
        yield from (0 for _ in count())

    monkeypatch.setattr(publish_module, "_pauses_s", pauses_s)
    monkeypatch.setattr(publish_module, "_REFUSED_PAUSE_S", 0)


@pytest.fixture
async def trial() -> AsyncIterator[Trial]:
    trial = Trial()
    yield trial
    await trial.cancel()


@pytest.fixture
async def three() -> AsyncIterator[Trial]:
    """A publisher of three shards."""
    three = Trial(3)
    yield three
    await three.cancel()


async def test_each_change_is_published_once_and_in_order(trial: Trial) -> None:
    trial.commit(5)
    await trial.finish()
    assert trial.feed.stored == trial.feed.changes
    assert trial.recorder.published == len(trial.feed.changes)
    assert trial.feed.saved[0].place == Place(5)
    assert (trial.feed.saved[0].stream, trial.feed.saved[0].stream_seq) == ("S_CHANGES", len(trial.feed.changes))


async def test_a_running_publisher_hears_of_commits(trial: Trial) -> None:
    trial.start()
    for _ in range(5):
        trial.commit(1)
        await trial.caught_up()
    assert trial.feed.stored == trial.feed.changes


async def test_late_changes_are_passed_over(trial: Trial) -> None:
    trial.feed.commit(change("e1", 1, verdict="late"), change("e2", 2), at=1)
    trial.feed.commit(change("e1", 3, verdict="late"), at=2)
    await trial.finish()
    assert [one.endpoint_id for one in trial.feed.published] == ["e2"]
    assert trial.feed.saved[0].place == Place(2)


async def test_nothing_is_published_until_there_is_a_cursor(trial: Trial) -> None:
    trial.feed.saved = {}
    trial.commit(1)
    await trial.finish()
    assert trial.feed.stored == []


# The five commits of a trial have 2, 3, 1, 2 and 3 changes; the cursor is never ahead of the stream.
@pytest.mark.parametrize(
    ("saved", "stored"),
    [(saved, stored) for stored in range(12) for saved in range(6) if sum((2, 3, 1, 2, 3)[:saved]) <= stored],
)
async def test_a_crash_anywhere_between_the_stream_and_the_cursor_doubles_and_loses_nothing(
    trial: Trial, saved: int, stored: int
) -> None:
    trial.commit(5)
    changes = trial.feed.changes
    trial.feed.stored = list(changes[:stored])
    trial.feed.saved[0] = FeedCursor(0, Place(saved), saved)
    await trial.finish()
    assert trial.feed.stored == changes


async def test_a_stream_that_lost_its_tail_gets_it_again(trial: Trial) -> None:
    trial.commit(5)
    await trial.finish()
    del trial.feed.stored[4:]
    await trial.finish()
    assert trial.feed.stored == trial.feed.changes


async def test_a_stream_that_was_emptied_continues_at_the_cursor(trial: Trial) -> None:
    trial.commit(3)
    await trial.finish()
    trial.feed.trimmed = len(trial.feed.stored)
    trial.commit(1)
    await trial.finish()
    assert trial.feed.stored == trial.feed.changes


async def test_changes_of_another_life_of_the_database_are_no_place_to_continue_at(trial: Trial) -> None:
    """As after a backup was restored: the stream has messages of commits with the same numbers."""
    trial.commit(2)
    trial.feed.stored = [one._replace(committed_at=77) for one in trial.feed.changes]
    before = len(trial.feed.stored)
    await trial.finish()
    assert trial.feed.stored[before:] == trial.feed.changes


@pytest.mark.parametrize("server", ["database", "broker"])
async def test_a_lost_connection_is_replaced(trial: Trial, server: str) -> None:
    trial.start()
    for _ in range(3):
        trial.commit(2)
        await trial.caught_up()
        (trial.feed.database if server == "database" else trial.feed.broker).lose()
        trial.feed.news.set()
    trial.commit(2)
    await trial.caught_up()
    assert trial.feed.stored == trial.feed.changes


async def test_a_failure_is_reported_once_and_so_is_its_end(trial: Trial) -> None:
    trial.feed.stream_exists = False
    trial.commit(1)
    trial.start()
    await until(lambda: trial.feed.error is not None)
    for _ in range(50):
        await asyncio.sleep(0)
    assert "no stream stores fleet.>" in (trial.feed.error or "")
    trial.feed.stream_exists = True
    await trial.caught_up()
    await until(lambda: trial.feed.error is None)
    assert [type(failure) for failure in trial.recorder.failures] == [FeedStreamMissingError]
    assert trial.recorder.heard["publishing resumed"] == 1


async def test_a_full_stream_stays_a_failure_until_something_is_stored(trial: Trial) -> None:
    trial.feed.refusal = BrokerUnavailableError("maximum messages exceeded")
    trial.commit(2)
    trial.start()
    await trial.recorder.hears("publishing failed")
    for _ in range(200):
        await asyncio.sleep(0)
    assert trial.recorder.heard["publishing failed"] == 1
    assert trial.recorder.heard["publishing resumed"] == 0
    trial.feed.refusal = None
    await trial.caught_up()
    assert trial.recorder.heard["publishing resumed"] == 1
    assert trial.feed.stored == trial.feed.changes


async def test_an_unexpected_error_does_not_end_publishing(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    trial.start()
    await trial.caught_up()
    monkeypatch.setattr(trial.feed, "refusal", ValueError("a bug"))
    trial.commit(1)
    await trial.recorder.hears("publishing failed")
    monkeypatch.setattr(trial.feed, "refusal", None)
    await trial.caught_up()
    assert [str(failure) for failure in trial.recorder.failures] == ["a bug"]


async def test_messages_of_other_programs_delay_and_disorder_nothing(trial: Trial) -> None:
    trial.start()
    for _ in range(6):
        trial.commit(1)
        trial.feed.stored.append(None)
        await trial.caught_up()
    assert trial.feed.published == trial.feed.changes


async def test_a_cursor_that_another_projector_moved_is_read_again(trial: Trial) -> None:
    trial.commit(3)
    trial.start()
    await trial.caught_up()
    trial.feed.saved[0] = FeedCursor(0, Place(1), 1)
    trial.commit(1)
    await trial.caught_up()
    await trial.finish()
    assert trial.feed.stored == trial.feed.changes
    assert {type(failure) for failure in trial.recorder.failures} <= {FeedMovedError}


async def test_what_left_the_log_is_reported_once_and_the_rest_is_published(trial: Trial) -> None:
    trial.commit(2)
    await trial.finish()
    trial.commit(4)
    trial.feed.drop(before=5)
    await trial.finish()
    assert trial.recorder.lost_commits == 2
    assert [one.commit_no for one in trial.feed.published] == [1, 1, 2, 2, 2, 5, 5, 5, 6]
    assert trial.feed.saved[0].lost_commits == 2
    await trial.finish()
    assert trial.recorder.lost_commits == 2


async def test_days_without_changes_are_not_lost(trial: Trial) -> None:
    trial.commit(2)
    await trial.finish()
    trial.feed.drop(before=100)
    await trial.finish()
    trial.feed.commit(change("e1", 1), at=101)
    await trial.finish()
    assert trial.recorder.lost_commits == 0
    assert len(trial.feed.stored) == 6


async def test_a_failure_ends_a_publisher_that_is_to_finish(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = failing(trial, monkeypatch, times=0)
    trial.feed.stream_exists = False
    trial.commit(1)
    await trial.finish()
    assert trial.recorder.heard["publishing failed"] == 1
    assert next(attempts) == 1


@pytest.mark.parametrize(("failures", "made", "published"), [(2, 3, 2), (9, 3, 0)])
async def test_a_publisher_that_is_to_finish_tries_an_unavailable_server_three_times(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, failures: int, made: int, published: int
) -> None:
    attempts = failing(trial, monkeypatch, times=failures)
    trial.commit(1)
    await trial.finish()
    assert (next(attempts), len(trial.feed.stored)) == (made, published)


async def test_a_publisher_that_is_to_finish_outlasts_failures_between_which_it_publishes(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, calls = MemoryChangeStream.append, count()

    async def every_other_time(
        self: MemoryChangeStream, changes: Sequence[LoggedChange], after: int | None
    ) -> Appended:
        if next(calls) % 2:
            raise BrokerUnavailableError("slow")
        return await append(self, changes, after)

    monkeypatch.setattr(MemoryChangeStream, "append", every_other_time)
    trial.commit(9)
    await trial.finish()
    assert next(calls) > 8
    trial.assert_complete()


def failing(trial: Trial, monkeypatch: pytest.MonkeyPatch, *, times: int) -> Iterator[int]:
    """Make the first connections to NATS fail; return an iterator whose next value is the number of attempts."""
    attempts = count()
    connect = trial.feed.broker.connect

    async def counted() -> Connection:
        trial.feed.broker.reachable = next(attempts) >= times
        return await connect()

    monkeypatch.setattr(trial.feed.broker, "connect", counted)
    return attempts


async def test_publishing_rests_while_the_folding_is_behind(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    sleep = asyncio.sleep

    async def rest(seconds: float) -> None:
        if seconds:
            rests.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", rest)
    trial.commit(6)
    await trial.finish()
    assert rests == []
    trial.behind = True
    trial.commit(6)
    await trial.finish()
    assert rests


# Several shards.


async def test_the_changes_of_each_shard_are_published_once_and_in_its_order(three: Trial) -> None:
    three.commit_everywhere(5)
    await three.finish()
    three.assert_complete()
    assert [three.feed.saved[shard].place for shard in range(3)] == [Place(5), Place(6), Place(7)]


async def test_no_shard_waits_until_another_is_published(three: Trial) -> None:
    three.commit_everywhere(20)
    await three.finish()
    assert [one.shard for one in three.feed.published[:9]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


async def test_a_shard_that_was_never_led_is_published_once_it_is(three: Trial) -> None:
    later = three.feed.saved.pop(1)
    three.commit_everywhere(3)
    three.start()
    await until(lambda: three.feed.stored_of(2) == three.feed.log_of(2))
    assert three.feed.stored_of(1) == []
    three.feed.saved[1] = later
    three.feed.news.set()
    await three.caught_up()
    three.assert_complete()


@pytest.mark.parametrize("appended", range(15))
async def test_a_crash_before_the_cursors_are_written_doubles_and_loses_nothing(three: Trial, appended: int) -> None:
    three.commit_everywhere(2)
    await three.finish()
    saved, written = dict(three.feed.saved), len(three.feed.stored)
    three.commit_everywhere(2)
    await three.finish()
    three.feed.saved = saved
    del three.feed.stored[written + appended :]
    three.feed.looked_at = 0
    await three.finish()
    three.assert_complete()
    assert three.feed.looked_at <= appended + 1


async def test_a_start_with_every_cursor_written_looks_at_one_message(three: Trial) -> None:
    three.commit_everywhere(5)
    await three.finish()
    three.commit(1, 2)
    await three.finish()
    three.feed.looked_at = 0
    three.commit(1, 1)
    await three.finish()
    three.assert_complete()
    assert three.feed.looked_at == 1


@pytest.mark.parametrize("kept", range(7, 30))
async def test_a_stream_that_lost_its_tail_gets_the_changes_of_every_shard_again(three: Trial, kept: int) -> None:
    three.commit_everywhere(5)
    await three.finish()
    del three.feed.stored[kept:]
    await three.finish()
    three.assert_complete()


async def test_a_shard_of_which_the_stream_lost_every_message_continues_at_its_cursor(three: Trial) -> None:
    three.commit_everywhere(5)
    await three.finish()
    del three.feed.stored[3:]
    assert three.feed.stored_of(1) == []
    await three.finish()
    assert three.feed.stored_of(0) == three.feed.log_of(0)
    three.feed.looked_at = 0
    three.commit(1, 1)
    await three.finish()
    assert [one.commit_no for one in three.feed.stored_of(1)] == [7, 7]
    assert three.feed.looked_at == 1


async def test_another_stream_continues_each_shard_where_publishing_stopped(three: Trial) -> None:
    three.commit_everywhere(2)
    await three.finish()
    first, three.feed.stored = three.feed.published, []
    three.feed.saved = {shard: one._replace(stream="OLD") for shard, one in three.feed.saved.items()}
    three.commit_everywhere(2)
    await three.finish()
    three.feed.stored[:0] = first
    three.assert_complete()


async def test_messages_of_a_life_of_the_database_that_is_gone_are_no_place_to_continue_at(three: Trial) -> None:
    """As after a backup was restored: the stream has messages of commits with the same numbers."""
    three.commit_everywhere(2)
    gone = [one._replace(committed_at=77) for one in three.feed.changes]
    three.feed.stored = [*gone, *three.feed.log_of(2)[:3]]
    await three.finish()
    del three.feed.stored[: len(gone)]
    three.assert_complete()


async def test_messages_of_shards_that_are_gone_are_behind_the_cursors(three: Trial) -> None:
    three.commit_everywhere(2)
    gone = [one._replace(shard=5) for one in three.feed.changes]
    three.feed.stored = [*gone, *three.feed.log_of(1)[:3]]
    await three.finish()
    del three.feed.stored[: len(gone)]
    three.assert_complete()


async def test_a_publisher_that_slept_while_a_shard_began_repeats_nothing(three: Trial) -> None:
    three.commit_everywhere(2)
    later = three.feed.saved.pop(2)
    async with three.feed.log() as log, three.feed.stream() as stream:
        slept = publish_module._Copy(log, stream, Recorder(), 3)
        while not await slept.step():
            pass
        await slept.save()
        three.feed.saved[2] = later
        three.commit_everywhere(2)
        await three.finish()
        three.commit_everywhere(1)
        while not await slept.step():
            pass
        await slept.save()
    three.assert_complete()


async def test_two_publishers_double_and_reorder_nothing(three: Trial) -> None:
    three.commit_everywhere(9)
    other = Publishing(three.feed, Recorder(), shards=3)
    three.start()
    running = asyncio.create_task(other.run(lambda: False))
    await asyncio.sleep(0)
    other.finish()
    await asyncio.gather(running, three.finish())
    three.assert_complete()


async def test_messages_of_other_programs_disorder_no_shard(three: Trial) -> None:
    three.start()
    for _ in range(6):
        three.commit_everywhere(1)
        three.feed.stored.append(None)
        await three.caught_up()
    three.assert_complete()


async def test_publishing_once_raises_what_prevents_it(three: Trial) -> None:
    three.commit_everywhere(2)
    three.feed.stream_exists = False
    with pytest.raises(FeedStreamMissingError):
        await three.publishing.run_once()
    three.feed.stream_exists = True
    await three.publishing.run_once()
    three.assert_complete()
