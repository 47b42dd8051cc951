"""A daemon that follows a stream into a database, both in memory."""

from dataclasses import dataclass, field, replace
from typing import Any

from projector.app.observers import Observer
from projector.app.publish import Publishing
from projector.app.session import LiveOptions
from projector.app.supervisor import Supervisor
from projector.domain.rules import Rules
from projector.stream.codec import Codec
from tests.support.fixtures import Event, Wire
from tests.support.memory.database import MemoryDatabase
from tests.support.memory.store import MemoryStore
from tests.support.memory.stream import MemoryStream
from tests.support.scene import Daemon, Recorder

RULES = Rules(version=1, revision="kaa-2017-04", originators=())


def live_options(**changes: Any) -> LiveOptions:
    return replace(LiveOptions(rules=RULES, stream="S", linger_s=0, batch_size=100, largest_batch=100), **changes)


@dataclass
class MemoryScene:
    """A stream, a database, and the daemons that a test starts between them."""

    codec: Codec
    event: Event
    stream: MemoryStream = field(default_factory=MemoryStream)
    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    batch_size: int = 100
    publishing: Publishing | None = None
    daemons: list[Daemon] = field(default_factory=list)

    def connects(self, first: int, last: int) -> list[Wire]:
        """Build messages that each connect a different endpoint."""
        return [self.event("connectivity.connected", f"e{n}", appVersionName=f"v{n}") for n in range(first, last + 1)]

    def supervisor(self, observer: Observer, **options: Any) -> Supervisor:
        return Supervisor(
            self.codec,
            lambda: self.stream.open(batch_size=self.batch_size),
            MemoryStore(self.database),
            observer,
            live_options(**options),
            publishing=self.publishing,
        )

    def follow(self, **options: Any) -> Daemon:
        """Start a daemon."""
        recorder = Recorder()
        supervisor = self.supervisor(recorder, **options)
        self.daemons.append(Daemon(supervisor, supervisor.run(), recorder))
        return self.daemons[-1]

    async def fold(self, **options: Any) -> Recorder:
        """Run a daemon to the end of the stream."""
        return await self.follow(until_caught_up=True, **options).end()

    @property
    def position(self) -> int:
        """Position of the checkpoint; 0 if there is none."""
        return 0 if self.database.checkpoint is None else self.database.checkpoint.position
