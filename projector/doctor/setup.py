"""Checks of the connections to the servers, and of stream and database together."""

from collections.abc import Sequence

from projector.app.trust import replacement_evidence
from projector.doctor.findings import Check, Inspection, shards_have
from projector.errors import ProjectorError, RulesChangedError, TransientError

_SKEW_S = 1.0


def _unreachable(server: object) -> str | None:
    return str(server) if isinstance(server, TransientError) else None


def _refused(server: object) -> str | None:
    return str(server) if isinstance(server, ProjectorError) and not isinstance(server, TransientError) else None


def _nats_unreachable(inspection: Inspection) -> str | None:
    return _unreachable(inspection.broker)


def _nats_refused(inspection: Inspection) -> str | None:
    return _refused(inspection.broker)


def _postgres_unreachable(inspection: Inspection) -> str | None:
    return _unreachable(inspection.database)


def _postgres_refused(inspection: Inspection) -> str | None:
    return _refused(inspection.database)


def _stream_missing(inspection: Inspection) -> str | None:
    missing = inspection.seen_broker is not None and inspection.seen_broker.stream_missing
    return f"there is no stream {inspection.stream!r}" if missing else None


def _stream_replaced(inspection: Inspection) -> str | None:
    stream = inspection.seen_stream
    if stream is None:
        return None
    for checkpoint in inspection.checkpoints:
        if checkpoint.stream != inspection.stream:
            continue
        evidence = replacement_evidence(stream.state, checkpoint, stream.at_checkpoints.get(checkpoint.position))
        if evidence is not None:
            return f"the stream is not the one that was folded: {evidence}"
    return None


def _events_lost(inspection: Inspection) -> str | None:
    stream, database = inspection.seen_stream, inspection.seen_database
    if (
        stream is None
        or database is None
        or not database.migrated
        or database.absent  # then the checkpoints were not read
        or _stream_replaced(inspection)
        or _rules_changed(inspection)
    ):
        return None
    # A leader has moved the checkpoint of its shard since, and checks this itself.
    unfolded = [database.positions[shard] for shard in database.without_leader]
    if not unfolded:
        return None
    position = min(unfolded)
    if stream.state.first <= max(position + 1, stream.state.began):
        return None
    return f"the stream begins at position {stream.state.first}, but the table is folded up to {position} only"


def _rules_changed(inspection: Inspection) -> str | None:
    if not inspection.checkpoints:
        return None
    checkpoint = inspection.checkpoints[0]
    if checkpoint.stream != inspection.stream:
        return f"the rows were built from stream {checkpoint.stream!r}, but the settings name {inspection.stream!r}"
    try:
        checkpoint.rules.check(inspection.rules)
    except RulesChangedError as error:
        return error.evidence
    return None


def _consumer_shared(inspection: Inspection) -> str | None:
    broker, database = inspection.seen_broker, inspection.seen_database
    if broker is None or database is None:
        return None
    # The leader of a shard may pull.
    shared = [one for one in broker.consumers if one.waiting and one.shard in database.without_leader]
    if not shared:
        return None
    names = ", ".join(repr(consumer.name) for consumer in shared)
    leaderless = "this database has" if database.shards == 1 else shards_have([one.shard for one in shared])
    return f"another process pulls from consumer {names}: {leaderless} no leader"


def _clock_skew(inspection: Inspection) -> str | None:
    readings = {
        "NATS": inspection.seen_broker.clock if inspection.seen_broker else None,
        "Postgres": inspection.seen_database.clock if inspection.seen_database else None,
    }
    apart = []
    for server, reading in readings.items():
        if reading is None:
            continue
        # The server read its clock between the two local readings: only a difference beyond these is skew.
        asked_at, clock, answered_at = reading
        if clock - answered_at > _SKEW_S:
            apart.append(f"the clock of {server} is {clock - answered_at:.1f} s ahead of the local clock")
        elif asked_at - clock > _SKEW_S:
            apart.append(f"the clock of {server} is {asked_at - clock:.1f} s behind the local clock")
    return "; ".join(apart) or None


SETUP_CHECKS: Sequence[Check[Inspection]] = (
    Check("nats-unreachable", "error", _nats_unreachable, "start NATS, or correct PROJECTOR_NATS_URL"),
    Check(
        "nats-refused", "error", _nats_refused, "correct the user, the password, the credentials or the TLS settings"
    ),
    Check("postgres-unreachable", "error", _postgres_unreachable, "start Postgres, or correct PROJECTOR_DATABASE_URL"),
    Check(
        "postgres-refused", "error", _postgres_refused, "correct PROJECTOR_DATABASE_URL, or allow the role to connect"
    ),
    Check(
        "stream-missing",
        "error",
        _stream_missing,
        "run `projector init` to create it, or correct PROJECTOR_STREAM, "
        "or PROJECTOR_NATS_API_PREFIX if it is in another JetStream domain or account",
    ),
    Check(
        "stream-replaced",
        "error",
        _stream_replaced,
        "restore the original stream, or run `projector rebuild` to accept this one, "
        "which loses what only the original stream held",
    ),
    Check(
        "events-lost",
        "error",
        _events_lost,
        "run `projector run --accept-gap` once to continue without the lost events",
    ),
    Check(
        "rules-changed",
        "error",
        _rules_changed,
        "run `projector rebuild`, or return to the version and settings that built the rows",
    ),
    Check(
        "consumer-shared",
        "error",
        _consumer_shared,
        "stop that process, or set PROJECTOR_CONSUMER to a name of its own",
    ),
    Check(
        "clock-skew",
        "warning",
        _clock_skew,
        "synchronize the clocks: no event counts as later than NATS stored it, and queries compare with now()",
    ),
)
