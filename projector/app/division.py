"""Changes the number of shards of a projection, while no projector runs.

The shards may have stopped at different positions. Each is first folded to the furthest of them,
so that the endpoints can change shards: nothing is folded twice, and nothing is left out.
Then every log is published to its end: the changes of an endpoint stay in order even if another log continues them.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from projector.app.ports import Decoder, OpenSource, Source, Store
from projector.app.projection import Projection
from projector.app.replay import Replay
from projector.app.trust import check_stream
from projector.domain.checkpoint import Checkpoint
from projector.domain.rules import Rules
from projector.domain.shards import Shard
from projector.errors import EventsLostError, OtherStreamError, SettingError


class Shards(Protocol):
    """The shards of a database from which every projector is kept out; see `storage.division.Shards`.

    This has no implementation in memory: `tests.integration.test_shards` tests the real one.
    """

    async def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints, in the order of the shards; none if nothing was ever folded."""
        ...

    async def begin(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Write the first checkpoints."""
        ...

    async def unpublished(self) -> int:
        """Return how many commits have yet to be published."""
        ...

    async def divide(self, shards: int, at: int) -> None:
        """Replace the checkpoints; every shard has folded the stream through the position `at`.

        The cursors of what is published are replaced as well.
        """
        ...


class Division:
    """One change of the number of shards."""

    def __init__(  # noqa: PLR0913 - each is a part
        self,
        decoder: Decoder,
        open_replay: OpenSource,
        open_store: Callable[[Shard], AbstractAsyncContextManager[Store]],
        publish: Callable[[int], Awaitable[None]] | None,
        *,
        stream: str,
        rules: Rules,
    ) -> None:
        """Take the parts; open nothing yet. `publish` publishes the logs of a number of shards; None: it is off."""
        self._decoder = decoder
        self._open_replay = open_replay
        self._open_store = open_store
        self._publish = publish
        self._stream = stream
        self._rules = rules

    async def run(self, known: Shards, shards: int) -> None:
        """Divide the endpoints into a number of shards.

        Raises:
            OtherStreamError, RulesChangedError, StreamReplacedError: the checkpoints are not those of the settings.
            EventsLostError, DeliveryInterruptedError: a shard cannot be folded as far as the others,
                since messages have left the stream.
            SettingError: publishing is off, and changes are left to be published.
            TransientError: changes cannot be published now.
        """
        before = await known.checkpoints()
        async with self._open_replay() as source:
            if not before:
                state = await source.view.state()
                await known.begin([self._first(Shard(number, shards), state.created_at) for number in range(shards)])
                return
            furthest = max(checkpoint.position for checkpoint in before)
            for checkpoint in before:
                await self._check(source, checkpoint)
                if checkpoint.position < furthest:
                    await self._level(source, checkpoint, furthest)
        await self._publish_rest(known, len(before))
        await known.divide(shards, furthest)

    def _first(self, shard: Shard, created_at: int) -> Checkpoint:
        return Checkpoint(stream=self._stream, stream_created_at=created_at, rules=self._rules, shard=shard)

    async def _check(self, source: Source, checkpoint: Checkpoint) -> None:
        if checkpoint.stream != self._stream:
            raise OtherStreamError(found=checkpoint.stream, wanted=self._stream)
        checkpoint.rules.check(self._rules)
        await check_stream(source.view, checkpoint)

    async def _level(self, source: Source, checkpoint: Checkpoint, through: int) -> None:
        """Fold a shard through a position."""
        replay = Replay(source)
        await replay.begin(checkpoint.position)
        state = await source.view.state()
        if state.first > checkpoint.position + 1:
            raise EventsLostError(self._stream, checkpoint=checkpoint.position, first=state.first)
        async with self._open_store(checkpoint.shard) as store:
            projection = Projection(
                self._decoder, store, checkpoint, share=checkpoint.shard, logs_changes=store.logs_changes
            )
            async for messages in replay.batches_through(through):
                await projection.process(await projection.decode(messages))

    async def _publish_rest(self, known: Shards, shards: int) -> None:
        if self._publish is not None:
            await self._publish(shards)
        elif commits := await known.unpublished():
            raise SettingError(
                f"PROJECTOR_PUBLISH is not set, but the changes of {commits} commits are not published yet, "
                "and cannot be after the number of shards has changed; set it, and run the same command again, "
                "or empty the table projector_feed to give these changes up"
            )
