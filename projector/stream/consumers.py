"""The two consumers of a stream: the daemon's durable one, and an ephemeral one for a replay.

Postgres owns the position, so the durable consumer is moved to the checkpoint, and never the other way round.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from nats.js.errors import BadRequestError, NotFoundError

from projector.domain.messages import Delivery
from projector.errors import BrokerRefusedError, ConsumerPausedError, DeliveryInterruptedError, StreamMissingError
from projector.stream.connection import RawClient, translated
from projector.stream.consumer_state import ConsumerState, config_filters
from projector.stream.jetstream_errors import CONSUMER_IS_INACTIVE_TOO_LONG
from projector.stream.pull import PULL_EXPIRES_S, PullConsumer
from projector.stream.units import NS_PER_S

CONSUMER_DESCRIPTION = "Endpoint state projector; its place is that of the checkpoint in Postgres"

_ACK_WAIT_S = 3600  # redeliveries are useless: after an interruption the reader seeks again
_MAX_WAITING = 512  # the default of every server

Config: TypeAlias = dict[str, Any]
"""A consumer's configuration, in the units of the API."""


def durable_name(consumer: str, shard: int) -> str:
    """Return the name of the consumer of a shard, given that of the settings."""
    return f"{consumer}-{shard}" if shard else consumer


class DurableConsumer(PullConsumer):
    """The consumer of a shard: it follows the checkpoint, and acknowledges what is committed."""

    def __init__(
        self, client: RawClient, stream: str, durable: str, filters: Sequence[str], *, batch_size: int
    ) -> None:
        """Use a connected client; `durable` is the consumer's name."""
        super().__init__(client, stream, batch_size=batch_size)
        self._durable = durable
        self._filters = tuple(filters)
        self._confirmed = False

    async def acknowledge(self, delivery: Delivery) -> None:
        """Acknowledge a delivery and everything before it; call this after the commit.

        A lost acknowledgement loses no message: the consumer only lags behind.
        """
        if delivery.acknowledge_to:
            async with translated():
                await self._client.publish(delivery.acknowledge_to)

    async def discard(self) -> None:
        """See PullConsumer."""
        async with translated():
            with suppress(NotFoundError):
                await self._find()
                await self._client.api.delete_consumer(self._stream, self._durable)

    async def count_pending(self) -> int:
        """See PullConsumer; the durable consumer counts, which needs no further permission."""
        info = await self._info()
        return info.pending + info.sent - self._received + len(self._buffer)

    async def _place(self, after: int) -> ConsumerState:
        wanted: Config = {
            "durable_name": self._durable,
            "description": CONSUMER_DESCRIPTION,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "all",
            "ack_wait": _ACK_WAIT_S * NS_PER_S,
            "max_ack_pending": -1,
            "max_waiting": _MAX_WAITING,
            "replay_policy": "instant",
            **_filter_config(self._filters),
        }
        self._confirmed = False
        try:
            found = await self._find()
        except NotFoundError:
            pass
        else:
            if _stands_at(found, after) and _same_purpose(found.config, wanted):
                return found
            await self._client.api.delete_consumer(self._stream, self._durable)
        return await _create(self._client, self._stream, wanted)

    async def _find(self) -> ConsumerState:
        """Return the consumer of the configured name, even if another client created it.

        An operator may have paused it, and replacing the consumer would end the pause.

        Raises:
            ConsumerPausedError: it is paused.
        """
        found = ConsumerState.of(await self._client.ask(f"CONSUMER.INFO.{self._stream}.{self._durable}"))
        if found.paused:
            raise ConsumerPausedError(self._stream, self._durable, until=found.config["pause_until"])
        return found

    async def _confirm(self) -> None:
        if not self._confirmed:
            await self._info()
            self._confirmed = True

    async def _info(self) -> ConsumerState:
        """Return the state of the consumer.

        Its sequences do not identify it: every consumer counts from 1, wherever it begins in the stream.

        Raises:
            DeliveryInterruptedError: it is not the consumer that `seek` placed, or it is paused.
        """
        async with translated():
            try:
                info: ConsumerState | None = await self._find()
            except NotFoundError:
                info = None
        if info is None or self._consumer is None or info.created != self._consumer.created:
            self._interrupt(f"consumer {self._durable!r} was deleted or replaced")
        self._check()
        if info is None:
            raise DeliveryInterruptedError(f"consumer {self._durable!r} was deleted")
        return info


class ReplayConsumer(PullConsumer):
    """An ephemeral consumer, which acknowledges nothing."""

    def __init__(self, client: RawClient, stream: str, filters: Sequence[str], *, batch_size: int) -> None:
        """Use a connected client."""
        super().__init__(client, stream, batch_size=batch_size)
        self._filters = tuple(filters)
        self._position = 0

    async def seek(self, after: int) -> int:
        """See PullConsumer."""
        self._position = after
        return await super().seek(after)

    async def next(self, linger_s: float) -> Delivery | None:
        """See PullConsumer."""
        delivery = await super().next(linger_s)
        if delivery is not None:
            self._position = delivery.messages[-1].position
        return delivery

    async def count_pending(self) -> int:
        """See PullConsumer; a temporary consumer counts."""
        async with translated():
            return await count_after(self._client, self._stream, self._filters, self._position)

    async def discard(self) -> None:
        """See PullConsumer; each `seek` creates another consumer."""

    async def acknowledge(self, delivery: Delivery) -> None:
        """Do nothing: the consumer needs no acknowledgements."""

    async def _confirm(self) -> None:
        # Its name is random, so no other client uses it.
        return

    async def _place(self, after: int) -> ConsumerState:
        return await _create_ephemeral(self._client, self._stream, self._filters, after)


async def count_after(client: RawClient, stream: str, filters: Sequence[str], position: int) -> int:
    """Return how many messages after a position match the filters, counted by a temporary consumer."""
    info = await _create_ephemeral(client, stream, filters, position)
    await client.api.delete_consumer(stream, info.name)
    return info.pending


async def _create_ephemeral(client: RawClient, stream: str, filters: Sequence[str], after: int) -> ConsumerState:
    config: Config = {
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": after + 1,
        "ack_policy": "none",
        "replay_policy": "instant",
        "inactive_threshold": int(PULL_EXPIRES_S * NS_PER_S),
        "mem_storage": True,
        **_filter_config(filters),
    }
    try:
        return await _create(client, stream, config)
    except BadRequestError as error:
        if error.err_code != CONSUMER_IS_INACTIVE_TOO_LONG:
            raise
    # The stream limits the inactivity threshold. Pulls count as activity, so any value is long enough.
    limits = (await client.ask(f"STREAM.INFO.{stream}"))["config"]["consumer_limits"]
    return await _create(client, stream, config | {"inactive_threshold": limits["inactive_threshold"]})


async def _create(client: RawClient, stream: str, config: Config) -> ConsumerState:
    """Create a consumer.

    Raises:
        StreamMissingError: the stream does not exist.
        BrokerRefusedError: the server cannot filter as the configuration says.
    """
    durable = config.get("durable_name")
    what = f"CONSUMER.DURABLE.CREATE.{stream}.{durable}" if durable else f"CONSUMER.CREATE.{stream}"
    try:
        created = ConsumerState.of(await client.ask(what, {"stream_name": stream, "config": config}))
    except NotFoundError as error:
        raise StreamMissingError(stream) from error
    if created.filters != config_filters(config):
        # An older server ignores fields that it does not know, and would deliver every message of the stream.
        await client.api.delete_consumer(stream, created.name)
        raise BrokerRefusedError(
            "this NATS server filters by a single subject only; several PROJECTOR_ORIGINATORS need version 2.10"
        )
    return created


def _filter_config(filters: Sequence[str]) -> Config:
    # Servers before 2.10 support a single filter only.
    return {"filter_subject": filters[0]} if len(filters) == 1 else {"filter_subjects": list(filters)}


def _stands_at(found: ConsumerState, position: int) -> bool:
    return found.delivered_position == position and not found.unacknowledged


def _same_purpose(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether a consumer delivers what is wanted.

    A server may limit the messages of a request (`max_batch`) for every consumer; such a limit is respected.
    """

    def purpose(config: Mapping[str, Any]) -> tuple[object, ...]:
        return (*map(config.get, _PURPOSE), bool(config.get("headers_only")), config_filters(config))

    return purpose(found) == purpose(wanted)


_PURPOSE = (
    "ack_policy",
    "ack_wait",
    "deliver_subject",
    "max_ack_pending",
    "max_bytes",
    "max_expires",
    "max_waiting",
    "priority_groups",
    "replay_policy",
)
"""The fields of a configuration that a consumer needs to work, or to work well."""
