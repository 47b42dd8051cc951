"""The two consumers of a stream: the daemon's durable one, and an ephemeral one for a replay.

Postgres owns the position, so the durable consumer is placed where the checkpoint is, and never the other way round.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy
from nats.js.errors import NotFoundError

from projector.domain.messages import Delivery
from projector.errors import BrokerRefusedError, DeliveryInterruptedError, StreamMissingError
from projector.stream.connection import RawClient, translated
from projector.stream.pull import PULL_EXPIRES_S, PullConsumer

CONSUMER_DESCRIPTION = "Endpoint state projector; its place is that of the checkpoint in Postgres"

_ACK_WAIT_S = 3600.0  # a redelivery is of no use: after an interruption the consumer is sought again


class DurableConsumer(PullConsumer):
    """The daemon's consumer: it follows the checkpoint, and acknowledges what is committed."""

    def __init__(
        self, client: RawClient, stream: str, durable: str, filters: Sequence[str], *, batch_size: int
    ) -> None:
        """Use a connected client; `durable` is the consumer's name."""
        super().__init__(client, stream, batch_size=batch_size)
        self._durable = durable
        self._filters = tuple(filters)
        self._confirmed = False

    async def acknowledge(self, delivery: Delivery) -> None:
        """Tell NATS that a delivery and everything before it is done; to be called after the commit.

        If that does not arrive nothing is lost: the consumer only lags behind.
        """
        if delivery.acknowledge_to:
            async with translated():
                await self._client.publish(delivery.acknowledge_to)

    async def discard(self) -> None:
        """See PullConsumer."""
        async with translated():
            with suppress(NotFoundError):
                await self._client.api.delete_consumer(self._stream, self._durable)

    async def count_pending(self) -> int:
        """See PullConsumer; the consumer itself knows, which takes no further permission."""
        info = await self._info()
        sent = info.delivered.consumer_seq if info.delivered else 0
        return (info.num_pending or 0) + sent - self._received + len(self._buffer)

    async def _place(self, after: int) -> ConsumerInfo:
        wanted = ConsumerConfig(
            durable_name=self._durable,
            description=CONSUMER_DESCRIPTION,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.ALL,
            ack_wait=_ACK_WAIT_S,
            max_ack_pending=-1,
            **_filter_config(self._filters),
        )
        self._confirmed = False
        try:
            found: ConsumerInfo = await self._client.api.consumer_info(self._stream, self._durable)
        except NotFoundError:
            pass
        else:
            if _stands_at(found, after) and _same_purpose(found.config, wanted):
                return found
            await self._client.api.delete_consumer(self._stream, self._durable)
        return await _create(self._client, self._stream, wanted)

    async def _confirm(self) -> None:
        if not self._confirmed:
            await self._info()
            self._confirmed = True

    async def _info(self) -> ConsumerInfo:
        """Return what NATS says of the consumer.

        Another consumer of the same name counts from 1 as well, wherever in the stream it stands.

        Raises:
            DeliveryInterruptedError: it is not the consumer that was placed.
        """
        async with translated():
            try:
                info: ConsumerInfo | None = await self._client.api.consumer_info(self._stream, self._durable)
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
        """See PullConsumer; another consumer is created to count."""
        async with translated():
            return await count_after(self._client, self._stream, self._filters, self._position)

    async def discard(self) -> None:
        """See PullConsumer; each `seek` creates another one."""

    async def acknowledge(self, delivery: Delivery) -> None:
        """Do nothing: the consumer's policy is to acknowledge nothing."""

    async def _confirm(self) -> None:
        # Its name is random, so no other client uses it.
        return

    async def _place(self, after: int) -> ConsumerInfo:
        return await _create_ephemeral(self._client, self._stream, self._filters, after)


async def count_after(client: RawClient, stream: str, filters: Sequence[str], position: int) -> int:
    """Return how many messages after a position match the filters; only a consumer knows, so one is made for it."""
    info = await _create_ephemeral(client, stream, filters, position)
    await client.api.delete_consumer(stream, info.name)
    return info.num_pending or 0


async def _create_ephemeral(client: RawClient, stream: str, filters: Sequence[str], after: int) -> ConsumerInfo:
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=after + 1,
        ack_policy=AckPolicy.NONE,
        inactive_threshold=PULL_EXPIRES_S,
        mem_storage=True,
        **_filter_config(filters),
    )
    return await _create(client, stream, config)


async def _create(client: RawClient, stream: str, config: ConsumerConfig) -> ConsumerInfo:
    """Create a consumer.

    Raises:
        StreamMissingError: the stream does not exist.
        BrokerRefusedError: the server cannot filter as the configuration says.
    """
    try:
        created: ConsumerInfo = await client.api.add_consumer(stream, config)
    except NotFoundError as error:
        raise StreamMissingError(stream) from error
    if _filters(created.config) != _filters(config):
        # An older server ignores what it does not know, and would send every message of the stream.
        await client.api.delete_consumer(stream, created.name)
        raise BrokerRefusedError(
            "this NATS server filters by a single subject only; several PROJECTOR_ORIGINATORS need version 2.10"
        )
    return created


def _filter_config(filters: Sequence[str]) -> dict[str, Any]:
    # Servers before 2.10 know a single filter only.
    return {"filter_subject": filters[0]} if len(filters) == 1 else {"filter_subjects": list(filters)}


def _stands_at(info: ConsumerInfo, position: int) -> bool:
    return info.delivered is not None and info.delivered.stream_seq == position and not info.num_ack_pending


def _same_purpose(found: ConsumerConfig, wanted: ConsumerConfig) -> bool:
    def purpose(config: ConsumerConfig) -> tuple[Any, ...]:
        return (
            config.ack_policy,
            config.max_ack_pending,
            config.deliver_subject,
            config.replay_policy,
            bool(config.headers_only),
            _filters(config),
        )

    return purpose(found) == purpose(wanted)


def _filters(config: ConsumerConfig) -> set[str]:
    return {subject for subject in (config.filter_subject, *(config.filter_subjects or ())) if subject is not None}
