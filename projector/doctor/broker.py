"""Checks of the NATS server, the stream and the consumers."""

from collections.abc import Callable, Sequence

from projector.doctor.findings import Check, version_text
from projector.doctor.known_faults import known_faults
from projector.domain.broker_info import BrokerInfo, ConsumerInfo, Coverage, StreamInfo

_SEVERAL_FILTERS = (2, 10)
_LARGE_EVENT_BYTES = 65_536  # an event can name many endpoints


def _forbidden(broker: BrokerInfo) -> str | None:
    return _listed("the NATS user may not use", broker.forbidden)


def _forbidden_to_replay(broker: BrokerInfo) -> str | None:
    return _listed("the NATS user may not use", broker.forbidden_to_replay) if not broker.forbidden else None


def _forbidden_to_acknowledge(broker: BrokerInfo) -> str | None:
    return _listed("the NATS user may not use", broker.forbidden_to_acknowledge) if not broker.forbidden else None


def _no_room_for_consumer(broker: BrokerInfo) -> str | None:
    free, missing = broker.free_consumers, broker.missing_consumers
    if free is None or not missing or free >= missing:
        return None
    allowed = "no further consumer" if free <= 0 else f"only {free} more consumer{'s' if free > 1 else ''}"
    absent = "the daemon's does not exist" if missing == 1 else f"{missing} of the daemon's do not exist"
    return f"the stream or the account allows {allowed} (max_consumers), and {absent}"


def _no_room_to_replay(broker: BrokerInfo) -> str | None:
    free = broker.free_consumers
    if free is None or free > broker.missing_consumers or _no_room_for_consumer(broker):
        return None
    return "the stream or the account allows no further consumer (max_consumers) besides the daemon's"


def _jetstream_off(broker: BrokerInfo) -> str | None:
    return None if broker.jetstream else "JetStream is disabled on this server, or for this account"


def _too_old(broker: BrokerInfo) -> str | None:
    if len(broker.filters) == 1 or broker.version >= _SEVERAL_FILTERS:
        return None
    return f"NATS {version_text(broker.version)} cannot filter by several originators"


def _known_fault(broker: BrokerInfo) -> str | None:
    clustered = broker.stream is not None and broker.stream.clustered
    return known_faults(broker.version, clustered=clustered)


def _lazy_sync(broker: BrokerInfo) -> str | None:
    if broker.stream is not None and broker.stream.acknowledges_unwritten:
        return "the stream acknowledges messages before they are on disk (persist_mode async)"
    if broker.sync_every_s:
        return f"the server acknowledges messages up to {broker.sync_every_s:g} s before they are on disk"
    return None


def _subjects_missing(stream: StreamInfo) -> str | None:
    if not stream.stores or set(stream.stores.values()) != {Coverage.NOT_AT_ALL}:
        return None
    return "the stream stores no subject of endpoint events"


def _subjects_partly_missing(stream: StreamInfo) -> str | None:
    if _subjects_missing(stream):
        return None
    return _listed(
        "the stream does not store all of", [one for one, stored in stream.stores.items() if stored != Coverage.WHOLLY]
    )


def _transformed(stream: StreamInfo) -> str | None:
    return _listed("the stream changes subjects (subject_transform), and stores under others", stream.transformed)


def _sealed(stream: StreamInfo) -> str | None:
    return "the stream is sealed, and stores no more events" if stream.sealed else None


def _message_size(stream: StreamInfo) -> str | None:
    limit = stream.max_message_bytes
    if limit is None or limit >= _LARGE_EVENT_BYTES:
        return None
    return f"the stream rejects messages of more than {limit} bytes (max_msg_size)"


def _nothing_matches(stream: StreamInfo) -> str | None:
    traffic = stream.traffic
    if traffic is None or not traffic.messages:
        return None
    silent = [
        f"kaa.v1.events.{originator}.endpoint.>" for originator, messages in traffic.matching.items() if not messages
    ]
    return _listed("the stream has messages, but none that matches", silent)


def _retention(stream: StreamInfo) -> str | None:
    return None if stream.retention == "limits" else f"the stream has {stream.retention} retention"


def _limit_per_subject(stream: StreamInfo) -> str | None:
    if stream.max_messages_per_subject is None:
        return None
    return f"the stream keeps {stream.max_messages_per_subject} messages of each subject, which many endpoints share"


def _limits(stream: StreamInfo) -> str | None:
    found = [] if stream.refuses_when_full else _sizes(stream)
    if stream.max_age_s is not None:
        found = [f"{stream.max_age_s:g} s", *found]
    if stream.message_ttl:
        found = ["the expiry that publishers set", *found]
    return _listed("the stream drops old events at", found)


def _fills_up(stream: StreamInfo) -> str | None:
    return _listed("the stream rejects new events at", _sizes(stream) if stream.refuses_when_full else [])


def _beginning_gone(stream: StreamInfo) -> str | None:
    state = stream.state
    return f"the stream begins at position {state.first}" if state.first > state.began else None


def _one_replica(stream: StreamInfo) -> str | None:
    # A single server cannot store a second replica.
    if not stream.clustered or stream.replicas > 1:
        return None
    return "the stream has one replica in a cluster that could keep more"


def _in_memory(stream: StreamInfo) -> str | None:
    return "the stream is kept in memory" if stream.storage == "memory" else None


def _taken(broker: BrokerInfo) -> str | None:
    return "; ".join(filter(None, (_signs_of_others(one, broker.filters) for one in broker.consumers))) or None


def _signs_of_others(consumer: ConsumerInfo, filters: Sequence[str]) -> str | None:
    if consumer.created_by_projector:
        return None
    signs = [
        *(["it pushes"] if consumer.pushes else []),
        *([f"its acknowledgement policy is {consumer.acknowledges}"] if consumer.acknowledges != "all" else []),
        *(["it has other filters"] if consumer.filters != set(filters) else []),
    ]
    return _listed(f"consumer {consumer.name!r} was not created by a projector, and the daemon would delete it", signs)


def _unusable(consumer: ConsumerInfo) -> str | None:
    signs = [
        *(["it delivers headers without payloads"] if consumer.headers_only else []),
        *(["it serves priority groups only"] if consumer.prioritises else []),
    ]
    return _listed(f"consumer {consumer.name!r} delivers nothing that can be folded", signs)


def _paused(consumer: ConsumerInfo) -> str | None:
    return consumer.paused_until and f"consumer {consumer.name!r} is paused until {consumer.paused_until}"


def _each(look: Callable[[ConsumerInfo], str | None]) -> Callable[[BrokerInfo], str | None]:
    return lambda broker: "; ".join(filter(None, map(look, broker.consumers))) or None


def _sizes(stream: StreamInfo) -> list[str]:
    return [
        *([] if stream.max_messages is None else [f"{stream.max_messages} messages"]),
        *([] if stream.max_bytes is None else [f"{stream.max_bytes} bytes"]),
    ]


def _listed(what: str, items: Sequence[str]) -> str | None:
    return f"{what}: {', '.join(items)}" if items else None


BROKER_CHECKS: Sequence[Check[BrokerInfo]] = (
    Check(
        "nats-permissions",
        "error",
        _forbidden,
        "grant the NATS user the permissions that docs/how-to/connect.md lists",
    ),
    Check(
        "nats-permissions-to-replay",
        "warning",
        _forbidden_to_replay,
        "grant these as well, for `projector rebuild`, `projector verify` and `projector status`",
    ),
    Check(
        "nats-permissions-to-acknowledge",
        "warning",
        _forbidden_to_acknowledge,
        "grant this as well: a server with the feature flag js_ack_fc_v2 is acknowledged there",
    ),
    Check(
        "jetstream-off",
        "error",
        _jetstream_off,
        "enable JetStream on the server and for the account, "
        "or set PROJECTOR_NATS_API_PREFIX if it is in another domain or account",
    ),
    Check(
        "nats-too-old",
        "error",
        _too_old,
        "update NATS to 2.10 or newer, or list at most one originator in PROJECTOR_ORIGINATORS",
    ),
    Check("nats-fault", "warning", _known_fault, "update NATS: the stream is the only copy of the events"),
    Check(
        "lazy-sync",
        "warning",
        _lazy_sync,
        "set `sync_interval: always` on every server, and create the stream without persist_mode async: "
        "otherwise a machine crash loses events whose publishers got an acknowledgement",
    ),
    Check(
        "consumer-limit",
        "error",
        _no_room_for_consumer,
        "raise max_consumers of the stream or the account, or delete consumers that nothing uses",
    ),
    Check(
        "consumer-limit-to-replay",
        "warning",
        _no_room_to_replay,
        "raise max_consumers by one: `rebuild`, `verify`, `status` and the lag in monitoring need another consumer",
    ),
    Check(
        "consumer-taken",
        "error",
        _taken,
        "set PROJECTOR_CONSUMER to another name, or delete that consumer if it is not needed",
    ),
)
STREAM_CHECKS: Sequence[Check[StreamInfo]] = (
    Check(
        "subjects-missing",
        "error",
        _subjects_missing,
        "correct PROJECTOR_STREAM or PROJECTOR_ORIGINATORS, or add kaa.v1.events.*.endpoint.> to the stream's subjects",
    ),
    Check(
        "subjects-partly-missing",
        "warning",
        _subjects_partly_missing,
        "add kaa.v1.events.*.endpoint.> to the stream's subjects, "
        "or list the originators that it stores in PROJECTOR_ORIGINATORS",
    ),
    Check(
        "subjects-transformed",
        "error",
        _transformed,
        "exclude kaa.v1.events.*.endpoint.> from the transform: the daemon reads events by their published subjects",
    ),
    Check("sealed", "warning", _sealed, "point the publishers at another stream, and PROJECTOR_STREAM too"),
    Check(
        "message-size-limit",
        "warning",
        _message_size,
        "raise max_msg_size: an event that names many endpoints is larger, and its publisher loses it",
    ),
    Check(
        "no-message-matches",
        "warning",
        _nothing_matches,
        "correct PROJECTOR_STREAM or PROJECTOR_ORIGINATORS, unless these originators have not published yet",
    ),
    Check(
        "retention",
        "error",
        _retention,
        "copy it into a stream with limits retention: this one deletes acknowledged messages and cannot be replayed",
    ),
    Check(
        "limit-per-subject",
        "error",
        _limit_per_subject,
        "remove the limit on messages per subject: it drops the events of most endpoints",
    ),
    Check(
        "limits",
        "warning",
        _limits,
        "remove the limits, so that a rebuild can replay everything: "
        "the daemon stops if events are dropped before it folds them",
    ),
    Check("fills-up", "warning", _fills_up, "raise or remove the limits: rejected events are lost"),
    Check(
        "beginning-gone",
        "warning",
        _beginning_gone,
        "run `rebuild` and `verify` with --accept-trimmed: they take from the table what the stream no longer holds",
    ),
    Check(
        "one-replica", "warning", _one_replica, "give the stream three replicas on servers that do not fail together"
    ),
    Check(
        "in-memory", "error", _in_memory, "create the stream with file storage: memory is lost when the servers stop"
    ),
)
CONSUMER_CHECKS: Sequence[Check[BrokerInfo]] = (
    Check(
        "consumer-paused",
        "error",
        _each(_paused),
        "run `nats consumer resume STREAM CONSUMER`, or wait until then: the daemon folds nothing meanwhile",
    ),
    Check(
        "consumer-unusable",
        "error",
        _each(_unusable),
        "delete the consumer: the daemon creates it with the right configuration",
    ),
)
