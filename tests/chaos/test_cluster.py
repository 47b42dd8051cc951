"""A short run of the one outage of `make outages` that nothing else in the tests is about."""

from tests.chaos.outages import Scale, leaders_move, suffer


async def test_the_daemon_goes_on_at_once_and_loses_nothing_when_leaders_move() -> None:
    found = await suffer(leaders_move, Scale(moves=1))
    assert found.is_fine, found
