"""Inspects a NATS server, the stream and the consumers, and changes nothing."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from time import time
from typing import Any, NamedTuple

import nats.errors
from nats.js.api import DEFAULT_PREFIX

from projector.domain.broker_info import BrokerInfo, Coverage, StreamInfo, Traffic
from projector.domain.messages import StreamState
from projector.errors import BrokerUnavailableError, NotPermittedError, ProjectorError
from projector.stream import subjects
from projector.stream.change_stream import default_name
from projector.stream.codec import Codec
from projector.stream.connection import Broker, RawClient, connected, translated
from projector.stream.consumer_inspection import inspect as inspect_consumers
from projector.stream.consumers import durable_name
from projector.stream.coverage import coverage
from projector.stream.feed_inspection import inspect as inspect_feed
from projector.stream.jetstream_errors import JETSTREAM_OFF, STREAM_NOT_FOUND
from projector.stream.monitoring_endpoint import read_sync_interval
from projector.stream.revisions import Revision
from projector.stream.samples import read_samples
from projector.stream.traffic import count_traffic
from projector.stream.units import NS_PER_S, unix_ms
from projector.stream.view import StreamView

_TIMEOUT_S = 5.0
_KNOWS_SUBJECTS_FILTER = (2, 8)
_KNOWS_LONG_ACKNOWLEDGEMENTS = (2, 14)
_MALFORMED = b"{"  # the API answers it with an error and does nothing else
_NOT_STORED = {"Nats-Expected-Stream": "-"}
"""No stream stores a message with this header, under any subject."""
_ANY = "doctor"  # replaces the wildcard of a permission; a request to this name has no effect

_STREAM_INFO = "$JS.API.STREAM.INFO.{stream}"
_MESSAGE_GET = "$JS.API.STREAM.MSG.GET.{stream}"
_CONSUMER_INFO = "$JS.API.CONSUMER.INFO.{stream}.{consumer}"
DAEMON_NEEDS = (
    _STREAM_INFO,
    _MESSAGE_GET,
    "$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{consumer}",
    _CONSUMER_INFO,
    "$JS.API.CONSUMER.DELETE.{stream}.{consumer}",
    "$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
    "$JS.ACK.{stream}.{consumer}.>",
)
REPLAY_NEEDS = (
    "$JS.API.CONSUMER.CREATE.{stream}",
    "$JS.API.CONSUMER.DELETE.{stream}.*",
    "$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
)
LONG_ACKNOWLEDGEMENT = "$JS.ACK.*.*.{stream}.{consumer}.>"
"""Subject of acknowledgements on servers with the feature flag js_ack_fc_v2, with domain and account."""
_ACCOUNT_INFO = "$JS.API.INFO"
_INBOX = "_INBOX.>"


class Wanted(NamedTuple):
    """What the projector follows."""

    stream: str
    consumer: str
    """That of the first shard, as in the settings."""
    originators: tuple[str, ...]
    revision: Revision
    publish: str | None = None
    """Subject prefix of published changes."""

    def filters(self, server_version: tuple[int, ...]) -> tuple[str, ...]:
        """Return the filters of the daemon's consumer on a server."""
        return subjects.filters(self.originators, self.revision.groups, server_version=server_version)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The event subjects, one for each event type and originator."""
        return tuple(
            subjects.build(originator, event_type)
            for originator in self.originators or ("*",)
            for event_type in self.revision.event_types
        )


async def inspect(
    broker: Broker, wanted: Wanted, codecs: Sequence[Codec], positions: Sequence[int], *, monitoring: str | None = None
) -> BrokerInfo:
    """Return what a server reports.

    `codecs` are those of every revision, `positions` those of the checkpoints in the order of the shards,
    and `monitoring` is the URL of the server's monitoring endpoint.

    Raises:
        BrokerUnavailableError, BrokerRefusedError: NATS cannot be reached, or refuses the connection.
    """
    complaints: list[ProjectorError] = []
    async with connected(broker, name="projector doctor") as client, translated():
        client.on_failure(complaints.append)
        return await _Inspection(client, wanted, complaints, positions).run(codecs, monitoring)


class _Inspection:
    """One inspection of a server."""

    def __init__(
        self, client: RawClient, wanted: Wanted, complaints: list[ProjectorError], positions: Sequence[int]
    ) -> None:
        self._client = client
        self._wanted = wanted
        self._complaints = complaints
        self._positions = positions
        self._consumers = {shard: durable_name(wanted.consumer, shard) for shard in range(len(positions))}
        self._version = client.server_version
        self._clock: tuple[float, float, float] | None = None

    async def run(self, codecs: Sequence[Codec], monitoring: str | None) -> BrokerInfo:
        sync_every_s, unseen = await read_sync_interval(monitoring, timeout_s=_TIMEOUT_S)
        seen = BrokerInfo(
            version=self._version,
            filters=self._wanted.filters(self._version),
            forbidden=await self._forbidden(DAEMON_NEEDS),
            forbidden_to_replay=await self._forbidden(REPLAY_NEEDS),
            forbidden_to_acknowledge=await self._forbidden(self._long_acknowledgements()),
            sync_every_s=sync_every_s,
            unseen=unseen,
        )
        if not {_INBOX, self._named(_STREAM_INFO)}.intersection(seen.forbidden):
            seen = await self._with_stream(seen)
        if seen.stream is not None and self._named(_MESSAGE_GET) not in seen.forbidden:
            seen = replace(seen, stream=await self._with_messages(seen.stream, codecs))
        if seen.stream is not None:
            seen = await self._with_consumers(await self._with_account(seen, seen.stream), seen.stream)
        if self._wanted.publish is not None and _INBOX not in seen.forbidden and seen.jetstream:
            feed = await inspect_feed(self._client, self._forbidden, self._wanted.publish, self._wanted.stream)
            seen = replace(seen, feed=feed, unseen=(*seen.unseen, *filter(None, (feed.unseen,))))
        return replace(seen, clock=self._clock)

    def _long_acknowledgements(self) -> tuple[str, ...]:
        return (LONG_ACKNOWLEDGEMENT,) if self._version >= _KNOWS_LONG_ACKNOWLEDGEMENTS else ()

    async def _forbidden(self, needs: Iterable[str]) -> tuple[str, ...]:
        """Return which of some permissions are missing."""
        self._complaints.clear()
        inbox = await self._client.subscribe(self._client.new_inbox())
        await self._heard()
        if self._complaints:
            return (_INBOX,)
        await inbox.unsubscribe()
        named = {need: re.sub(r"(?<=\.)[*>](?=\.|$)", _ANY, need) for need in self._named_for_each(needs)}
        for subject in named.values():
            await self._client.publish(subject, _MALFORMED, headers=_NOT_STORED)
        await self._heard()
        refused = {error.subject for error in self._complaints if isinstance(error, NotPermittedError)}
        return tuple(need for need, subject in named.items() if subject in refused)

    async def _heard(self) -> None:
        """Wait for the server's errors about everything sent so far, which arrive before its answer to a ping."""
        # The client may send the first ping ahead of its buffered data; the second one follows that data.
        await self._client.flush()
        await self._client.flush()

    async def _with_stream(self, seen: BrokerInfo) -> BrokerInfo:
        name = f"STREAM.INFO.{self._wanted.stream}"
        try:
            info = await self._ask(name)
        except nats.errors.NoRespondersError:
            return replace(seen, jetstream=False)
        error = info.get("error", {}).get("err_code")
        if error in JETSTREAM_OFF:
            return replace(seen, jetstream=False)
        if error == STREAM_NOT_FOUND:
            return replace(seen, stream_missing=True)
        _check(info)
        traffic = None
        if self._version >= _KNOWS_SUBJECTS_FILTER:
            traffic = await count_traffic(
                self._count, info["state"], self._wanted.originators, self._wanted.revision.groups
            )
        return replace(seen, stream=_stream_info(info, self._wanted.subjects, traffic))

    async def _with_messages(self, stream: StreamInfo, codecs: Sequence[Codec]) -> StreamInfo:
        """Add the messages at the checkpoints, and samples."""
        name = self._wanted.stream
        view = StreamView(self._client, name, ())
        found = [await view.message(position) for position in set(self._positions) if position > 0]
        return replace(
            stream,
            at_checkpoints={message.position: message for message in found if message is not None},
            samples=await read_samples(self._client, name, codecs, self._wanted.originators, stream.state.first),
        )

    async def _with_consumers(self, seen: BrokerInfo, stream: StreamInfo) -> BrokerInfo:
        """Add those of the consumers that the user may see."""
        names = {
            shard: name
            for shard, name in self._consumers.items()
            if self._named(_CONSUMER_INFO, shard) not in seen.forbidden
        }
        settles = stream.clustered or self._client.api_prefix != DEFAULT_PREFIX
        consumers = await inspect_consumers(self._ask, self._wanted.stream, names, settles=settles)
        return replace(seen, consumers=consumers, missing_consumers=len(names) - len(consumers))

    async def _with_account(self, seen: BrokerInfo, stream: StreamInfo) -> BrokerInfo:
        """Add how many more consumers the stream and the account allow."""
        free = [] if stream.free_consumers is None else [stream.free_consumers]
        unseen = seen.unseen
        if await self._forbidden((_ACCOUNT_INFO,)):
            unseen = (*unseen, f"the limits of the account: the NATS user may not use {self._named(_ACCOUNT_INFO)}")
        else:
            account = await self._ask("INFO")
            _check(account)
            # An account may have separate limits for each number of replicas.
            tier = account.get("tiers", {}).get(f"R{stream.replicas}", account)
            free += _free(tier["limits"].get("max_consumers", -1), tier["consumers"])
        return replace(seen, free_consumers=min(free, default=None), unseen=unseen)

    async def _count(self, subject_filter: str) -> Mapping[str, int]:
        """Return the number of messages of each subject that a filter selects."""
        counts: dict[str, int] = {}
        offset = 0
        while True:
            name = f"STREAM.INFO.{self._wanted.stream}"
            found = await self._ask(name, subjects_filter=subject_filter, offset=offset)
            _check(found)
            page = found["state"].get("subjects") or {}
            counts |= page
            offset += len(page)
            if not page or offset >= found.get("total", 0):  # servers before 2.9 give all of them at once
                return counts

    async def _ask(self, subject: str, **request: str | int) -> dict[str, Any]:
        payload = json.dumps(request).encode() if request else b""
        asked_at = time()
        reply = await self._client.request(f"{self._client.api_prefix}.{subject}", payload, timeout=_TIMEOUT_S)
        answered_at = time()
        answer: dict[str, Any] = json.loads(reply.data)
        if "ts" in answer:
            self._clock = (asked_at, datetime.fromisoformat(answer["ts"]).timestamp(), answered_at)
        return answer

    def _named_for_each(self, needs: Iterable[str]) -> Iterable[str]:
        """Return the subjects that are needed; one that names the consumer is returned for each shard."""
        return dict.fromkeys(self._named(need, shard) for need in needs for shard in self._consumers)

    def _named(self, need: str, shard: int = 0) -> str:
        stream, consumer = self._wanted.stream, self._consumers[shard]
        named = need.format(stream=stream, consumer=consumer, changes=default_name(stream))
        return named.replace(f"{DEFAULT_PREFIX}.", f"{self._client.api_prefix}.", 1)


def _check(answer: dict[str, Any]) -> None:
    if "error" in answer:
        raise BrokerUnavailableError(f"JetStream cannot answer now: {answer['error'].get('description')}")


def _free(limit: int, used: int) -> list[int]:
    return [limit - used] if limit > 0 else []


def _stored_as(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the subject transform of a stream as source and destination; None if it has none."""
    transform = config.get("subject_transform")
    if transform is None:
        return None
    return transform.get("src") or ">", re.sub(r"\$\d+|\{\{[^}]*\}\}", "*", transform["dest"])


def _stream_info(info: dict[str, Any], wanted: Sequence[str], traffic: Traffic | None) -> StreamInfo:
    config, state = info["config"], info["state"]

    def limit(name: str) -> int | None:
        return config[name] if config.get(name, -1) > 0 else None

    max_age = limit("max_age")
    filled_from_others = bool(config.get("mirror") or config.get("sources"))
    published, stored = _stored_as(config) or (None, None)
    stores = (*config.get("subjects", ()), *filter(None, (stored,)))
    moved = [
        one
        for one in wanted
        if published
        and stored
        and coverage((published,), one) != Coverage.NOT_AT_ALL
        and coverage((stored,), one) == Coverage.NOT_AT_ALL
    ]
    return StreamInfo(
        state=StreamState(
            created_at=unix_ms(datetime.fromisoformat(info["created"])),
            first=max(state["first_seq"], 1),
            last=state["last_seq"],
            began=config.get("first_seq") or 1,
            deleted=state.get("num_deleted", 0),
        ),
        stores={} if filled_from_others else {one: coverage(stores, one) for one in wanted},
        traffic=traffic,
        transformed=tuple(moved),
        free_consumers=min(_free(config.get("max_consumers", -1), state["consumer_count"]), default=None),
        sealed=config.get("sealed", False),
        max_message_bytes=limit("max_msg_size"),
        retention=config["retention"],
        storage=config["storage"],
        replicas=config["num_replicas"],
        clustered="name" in info.get("cluster", {}),
        refuses_when_full=config.get("discard") == "new",
        max_age_s=max_age / NS_PER_S if max_age else None,
        max_messages=limit("max_msgs"),
        max_bytes=limit("max_bytes"),
        max_messages_per_subject=limit("max_msgs_per_subject"),
        message_ttl=config.get("allow_msg_ttl", False),
        acknowledges_unwritten=config.get("persist_mode") == "async",
    )
