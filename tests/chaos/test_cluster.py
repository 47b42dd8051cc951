"""A short run of the one outage of `make outages` that nothing else in the tests is about."""

from tests.chaos.outages import Scale, leaders_move, suffer


async def test_the_daemon_goes_on_and_loses_nothing_when_leaders_move() -> None:
    found = await suffer(leaders_move, Scale(moves=1))
    assert (found.wrong, found.dead_letters) == ([], 0)  # `make outages` judges how soon it goes on
