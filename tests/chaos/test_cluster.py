"""A short run of the one outage of `make outages` that no other test covers."""

from tests.chaos.outages import Scale, leaders_move, suffer


async def test_daemon_continues_without_loss_when_leaders_move() -> None:
    found = await suffer(leaders_move, Scale(moves=1))
    assert (found.wrong, found.dead_letters) == ([], 0)  # `make outages` judges how soon the daemon continues
