"""The ports ChangeLog and ChangeStream."""

import asyncio

import pytest

from projector.app.feed import ChangeLog, ChangeStream
from projector.domain.changes import ChangeId, FeedCursor, LoggedChange, Place
from projector.errors import FeedMovedError, FeedStreamMissingError
from tests.conformance.feeds import FeedUnderTest


def change(endpoint_id: str, position: int | None = None, *, verdict: str = "applied") -> LoggedChange:
    return LoggedChange(
        0, 0, 0, endpoint_id, "metadata", verdict, position, 1, 1, "metadata.updated", "epr", None, b"{}", b'{"a": 1}'
    )


def identity(one: LoggedChange) -> ChangeId:
    return ChangeId(one.shard, one.committed_at, one.place)


async def end(stream: ChangeStream) -> tuple[int, list[ChangeId]]:
    """Return its last sequence, and its changes."""
    return await stream.last(), [one async for one in stream.newest_first()]


async def first_cursor(log: ChangeLog) -> FeedCursor:
    return (await log.cursors())[0]


async def everything(log: ChangeLog, cursor: FeedCursor) -> list[LoggedChange]:
    """Read to the end; every page is of limited size, and the last one ends with a whole commit."""
    found: list[LoggedChange] = []
    while True:
        page = await log.read(cursor)
        assert len(page.changes) <= 3
        found += page.changes
        cursor = cursor._replace(place=page.end, committed_at=page.committed_at)
        if page.complete:
            assert page.end.change is None
            return found


# The log.


async def test_changes_are_read_in_order_page_by_page(feed: FeedUnderTest) -> None:
    logged = [
        *await feed.log_commit(*(change(f"e{n}", n) for n in range(1, 9))),
        *await feed.log_commit(change("b"), change("é"), change("z")),
        *await feed.log_commit(change("a", 9)),
    ]
    async with feed.log() as log:
        cursor = await first_cursor(log)
        assert (cursor.place, cursor.stream, cursor.stream_seq, cursor.lost_commits) == (Place(0), None, 0, 0)
        in_order = sorted(logged, key=lambda one: one.place.order)
        assert await everything(log, cursor) == in_order
        for number, one in enumerate(in_order, 1):
            after = cursor._replace(place=one.place, committed_at=one.committed_at)
            assert await everything(log, after) == in_order[number:]


async def test_only_applied_and_corrected_changes_are_read(feed: FeedUnderTest) -> None:
    verdicts = ("applied", "late", "fenced", "corrected")
    await feed.log_commit(*(change(verdict, n, verdict=verdict) for n, verdict in enumerate(verdicts, 1)))
    await feed.log_commit(change("e", 9, verdict="late"))
    async with feed.log() as log:
        found = await everything(log, await first_cursor(log))
    assert [one.endpoint_id for one in found] == ["applied", "corrected"]


async def test_a_page_of_an_empty_log_is_complete(feed: FeedUnderTest) -> None:
    async with feed.log() as log:
        page = await log.read(await first_cursor(log))
        assert (page.changes, page.end, page.complete) == ((), Place(0), True)
        await feed.log_commit()
        page = await log.read(await first_cursor(log))
    assert (list(page.changes), page.end, page.complete) == ([], Place(1), True)


async def test_the_cursor_is_moved_by_compare_and_set(feed: FeedUnderTest) -> None:
    (one,) = await feed.log_commit(change("e1", 1))
    async with feed.log() as log:
        first = await first_cursor(log)
        second = FeedCursor(0, one.place, one.committed_at, "S_CHANGES", 7, 3)
        await log.move([(first, second)])
        assert await first_cursor(log) == second
        with pytest.raises(FeedMovedError):
            await log.move([(first, second)])
        third = second._replace(place=Place(1))
        await log.move([(second, third)])
        assert await first_cursor(log) == third


async def test_the_cursors_of_several_shards_move_together_or_not_at_all(feed: FeedUnderTest) -> None:
    async with feed.log() as log:
        first = await log.cursors()
        assert [cursor.shard for cursor in first] == [0, 1, 2]
        second = [cursor._replace(place=Place(cursor.shard + 1)) for cursor in first]
        await log.move([*zip(first[1:], second[1:], strict=True)])
        assert await log.cursors() == [first[0], *second[1:]]
        with pytest.raises(FeedMovedError):
            await log.move([*zip(first, second, strict=True)])
        assert await log.cursors() == [first[0], *second[1:]]


async def test_the_log_of_each_shard_is_read_by_itself(feed: FeedUnderTest) -> None:
    logged = [
        await feed.log_commit(*(change(f"{shard}-{n}", n) for n in range(1, 9)), shard=shard) for shard in range(3)
    ]
    async with feed.log() as log:
        cursors = list(await log.cursors())
        found: list[list[LoggedChange]] = [[], [], []]
        for _ in range(3):  # in turn, in the middle of a commit of each
            for shard, cursor in enumerate(cursors):
                page = await log.read(cursor)
                found[shard] += page.changes
                cursors[shard] = cursor._replace(place=page.end, committed_at=page.committed_at)
        assert found == logged
        assert await log.holds(identity(logged[1][0]))
        assert not await log.holds(identity(logged[1][0])._replace(shard=2))


async def test_an_error_is_noted_until_it_is_cleared(feed: FeedUnderTest) -> None:
    async with feed.log() as log:
        await log.note("away")
        assert await feed.failure() == "away"
        await log.note(None)
    assert await feed.failure() is None


async def test_the_log_holds_a_change_of_the_same_commit_only(feed: FeedUnderTest) -> None:
    one, other = await feed.log_commit(change("e1", 1), change("e1"))
    async with feed.log() as log:
        assert await log.holds(identity(one))
        assert await log.holds(identity(other))
        assert not await log.holds(identity(one)._replace(committed_at=one.committed_at + 1))
        assert not await log.holds(identity(one._replace(endpoint_id="e2")))
        assert not await log.holds(identity(one._replace(position=2)))


async def test_commits_that_left_the_log_are_a_page_of_their_own(feed: FeedUnderTest) -> None:
    await feed.log_commit(change("e1", 1))
    await feed.log_commit(change("e1", 2))
    await feed.drop_all()
    async with feed.log() as log:
        cursor = await first_cursor(log)
        page = await log.read(cursor)
        assert (list(page.changes), page.end, page.lost_commits) == ([], Place(2), 2)
        (third,) = await feed.log_commit(change("e1", 3))
        page = await log.read(cursor)
        assert (list(page.changes), page.end, page.lost_commits) == ([], Place(2), 2)
        page = await log.read(cursor._replace(place=page.end, committed_at=page.committed_at))
        assert (list(page.changes), page.complete, page.lost_commits) == ([third], True, 0)


@pytest.mark.parametrize("verdict", ["applied", "late"])
async def test_commits_that_were_not_logged_are_counted_after_those_before_are_read(
    feed: FeedUnderTest, verdict: str
) -> None:
    (first,) = await feed.log_commit(change("e1", 1))
    await feed.log_commit(change("e1", 2, verdict=verdict))
    await feed.commit_unlogged(3)
    (sixth,) = await feed.log_commit(change("e1", 6))
    async with feed.log() as log:
        cursor = await first_cursor(log)
        for place in (Place(0), first.place, Place(1)):
            found, lost, at = list[LoggedChange](), 0, cursor._replace(place=place)
            while True:
                page = await log.read(at)
                found += page.changes
                lost += page.lost_commits
                at = at._replace(place=page.end, committed_at=page.committed_at)
                if page.complete:
                    break
            assert ([one for one in found if one.position in (1, 6)][-1], lost) == (sixth, 3)
            assert len(found) == (place == Place(0)) + (verdict == "applied") + 1


async def test_a_log_that_lost_nothing_new_has_no_gap(feed: FeedUnderTest) -> None:
    (one,) = await feed.log_commit(change("e1", 1))
    await feed.drop_all()
    async with feed.log() as log:
        cursor = (await first_cursor(log))._replace(place=Place(1), committed_at=one.committed_at)
        page = await log.read(cursor)
        assert (page.lost_commits, page.complete) == (0, True)
        await feed.log_commit()  # nothing to publish
        (third,) = await feed.log_commit(change("e1", 2))
        page = await log.read(cursor._replace(committed_at=page.committed_at))
        assert (list(page.changes), page.lost_commits) == ([third], 0)


async def test_waiting_ends_with_a_commit_or_when_it_is_told_to(feed: FeedUnderTest) -> None:
    async with feed.log() as log:
        waiting = asyncio.create_task(log.wait(60))
        await feed.log_commit(change("e1", 1))
        await waiting
        waiting = asyncio.create_task(log.wait(60))
        await asyncio.sleep(0)
        log.wake()
        await waiting
        await log.wait(0)


# The stream.


async def test_changes_are_appended_in_order(feed: FeedUnderTest) -> None:
    logged = await feed.log_commit(*(change(f"e{n}", n) for n in range(1, 60)))
    async with feed.stream() as stream:
        assert stream.name == "S_CHANGES"
        assert await end(stream) == (0, [])
        assert await stream.append(logged[:50], 0) == (50, 50, None)
        assert await stream.append(logged[50:], 50) == (9, 59, None)
        assert await end(stream) == (59, [identity(one) for one in reversed(logged)])
    assert await feed.count_stored() == 59


async def test_nothing_is_appended_to_another_end(feed: FeedUnderTest) -> None:
    logged = await feed.log_commit(*(change(f"e{n}", n) for n in range(1, 4)))
    await feed.publish_other()
    async with feed.stream() as stream:
        refused = await stream.append(logged, 0)
        assert (refused.stored, refused.last, type(refused.error)) == (0, None, FeedMovedError)
        assert await end(stream) == (1, [])
        assert await stream.append(logged, 1) == (3, 4, None)
        await feed.publish_other()
        assert await end(stream) == (5, [identity(one) for one in reversed(logged)])


async def test_after_any_end_the_first_change_is_stored_and_the_others_follow_it(feed: FeedUnderTest) -> None:
    logged = await feed.log_commit(*(change(f"e{n}", n) for n in range(1, 4)))
    await feed.publish_other()
    async with feed.stream() as stream:
        assert await stream.append(logged, None) == (3, None, None)
    assert await feed.count_stored() == 4


async def test_repeated_changes_are_not_stored_again(feed: FeedUnderTest) -> None:
    logged = await feed.log_commit(*(change(f"e{n}", n) for n in range(1, 3)))
    async with feed.stream() as stream:
        await stream.append(logged, 0)
        repeated = await stream.append(logged[1:], None)
        assert (repeated.stored, repeated.last, repeated.error) == (1, None, None)
    assert await feed.count_stored() == 2


async def test_an_emptied_stream_keeps_its_end(feed: FeedUnderTest) -> None:
    logged = await feed.log_commit(change("e1", 1), change("e2", 2))
    async with feed.stream() as stream:
        await stream.append(logged[:1], 0)
        await feed.purge()
        assert await end(stream) == (1, [])
        assert await stream.append(logged[1:], 1) == (1, 2, None)


async def test_a_missing_stream_is_named(feed: FeedUnderTest) -> None:
    await feed.remove_stream()
    with pytest.raises(FeedStreamMissingError, match=r"no stream stores fleet.>.* 'S_CHANGES'"):
        async with feed.stream():
            pass
