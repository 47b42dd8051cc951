"""Embed the projector in a program.

    export PROJECTOR_NATS_URL=nats://… PROJECTOR_DATABASE_URL=postgresql://…
    python examples/embed.py

The program prepares both servers, runs the projector beside its own work, waits until everything that had been
published when it started can be read, and stops.
"""

import asyncio

from projector import CaughtUp, Committed, Notification, Observer, Projector, Retrying, Settings


class Printer(Observer):
    """Prints what the projector does."""

    def notify(self, notification: Notification) -> None:
        """Print the notifications that this program cares about."""
        match notification:
            case Committed(checkpoint=checkpoint, outcome=outcome):
                print(f"committed {outcome.events} events up to position {checkpoint.position}")
            case CaughtUp():
                print("caught up")
            case Retrying(error=error):
                print(f"retrying: {error}")


async def main() -> None:
    """Run the projector until the present end of the stream is in the table."""
    settings = Settings(http="off")  # the URLs come from the environment
    async with Projector(settings, observers=[Printer()]) as projector, asyncio.TaskGroup() as tasks:
        await projector.init()
        tasks.create_task(projector.run())
        before = await projector.status()
        await projector.wait(before.stream_last_seq)
        after = await projector.status()
        print(f"{after.endpoints} endpoints")
        projector.stop()


if __name__ == "__main__":
    asyncio.run(main())
