import asyncio
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import typer
from nats.aio.client import Client
from typer.testing import CliRunner

from projector.cli import main as cli
from projector.domain.rules import RULES_VERSION
from tests.support.command_line import CommandLine
from tests.support.fixtures import Event, Publish, Query


@pytest.fixture
async def folded(prepared: CommandLine, event: Event, publish: Publish) -> CommandLine:
    """Five messages are folded, parked or skipped, and three more wait."""
    connected = [event("connectivity.connected", f"e{n}", appVersionName=f"v{n}") for n in range(1, 4)]
    await publish(
        *connected[:2],
        (connected[0][0], b"\xff"),
        event("config.updated", "", configId="c1"),
        ("kaa.v1.events.kpc.endpoint.config.unheard", b""),
    )
    await prepared.fold()
    await publish(*connected)
    return prepared


async def test_init_twice_changes_nothing(
    projector: CommandLine, nats_client: Client, query: Query, empty_database_url: str
) -> None:
    first = await projector.succeeds("init")
    stream = await nats_client.jetstream().stream_info("KAA_ENDPOINT_EVENTS")
    second = await projector.succeeds("init")
    assert "was created" in first
    assert "is there" in second
    assert (await nats_client.jetstream().stream_info("KAA_ENDPOINT_EVENTS")).created == stream.created
    assert stream.config.subjects == ["kaa.v1.events.*.endpoint.>"]
    assert await query(empty_database_url, "SELECT count(*) FROM endpoint_state") == [(0,)]


async def test_init_refuses_to_distribute_without_citus_and_changes_nothing(
    projector: CommandLine, query: Query, empty_database_url: str
) -> None:
    ended = await projector("init", "--distribute")
    assert ended.code == 3
    assert len(ended.err.splitlines()) == 1
    assert "this database does not have the extension Citus; create it" in ended.err
    assert await query(empty_database_url, "SELECT to_regclass('endpoint_state') IS NULL") == [(True,)]


async def test_init_leaves_an_existing_stream_unchanged(projector: CommandLine, nats_client: Client) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="OURS", subjects=["kaa.v1.events.>"], max_msgs=1000)
    await projector.succeeds("init", "--stream", "OURS")
    config = (await jetstream.stream_info("OURS")).config
    assert (config.subjects, config.max_msgs) == (["kaa.v1.events.>"], 1000)


async def test_status_is_complete_as_json_and_as_text(folded: CommandLine) -> None:
    as_json, as_lines = await asyncio.gather(folded.succeeds("status", "--json"), folded.succeeds("status"))
    answer = json.loads(as_json)
    figures = {
        "stream": "KAA_ENDPOINT_EVENTS",
        "stream_first_seq": 1,
        "stream_last_seq": 8,
        "checkpoint_seq": 5,
        "lag_messages": 3,
        "endpoints": 2,
        "dead_letters": 2,
        "skipped": {"config.unheard": 1},
        "rebuild": None,
    }
    assert answer | figures == answer
    assert 0 < answer["lag_seconds"] < 60
    stored, committed = (datetime.fromisoformat(answer[key]) for key in ("last_event_stored_at", "last_commit_at"))
    assert stored < committed
    assert answer["projection_version"] == RULES_VERSION
    lines = dict(line.split(maxsplit=1) for line in as_lines.splitlines())
    assert (lines["lag_messages"], lines["dead_letters"], lines["skipped"]) == ("3", "2", "config.unheard 1")
    assert lines["shards"] == "1"


async def test_status_shows_how_far_each_of_several_shards_is(prepared: CommandLine) -> None:
    await prepared.succeeds("init", "--shards", "2")
    lines = dict(line.partition(" ")[::2] for line in (await prepared.succeeds("status")).splitlines())
    assert lines["shards"].strip() == "0 at 0, no leader; 1 at 0, no leader"


async def test_the_status_before_anything_was_folded_is_all_zero(prepared: CommandLine) -> None:
    answer = json.loads(await prepared.succeeds("status", "--json"))
    assert [answer[key] for key in ("checkpoint_seq", "lag_messages", "endpoints", "dead_letters")] == [0, 0, 0, 0]
    assert answer["skipped"] == {}


async def test_wait_returns_when_the_position_is_folded(
    prepared: CommandLine, event: Event, publish: Publish, query: Query, database_url: str
) -> None:
    waiting = await prepared.start("wait", "--seq", "2")
    await publish(event("connectivity.connected", "e"), event("connectivity.connected", "f"))
    await prepared.fold()
    ended = await waiting.end()
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert len(await query(database_url, "SELECT 1 FROM endpoint_state")) == 2


async def test_wait_timeout_names_checkpoint_and_leader(folded: CommandLine) -> None:
    daemon = await folded.start("run")
    await daemon.logs("caught up")
    reached, late = await asyncio.gather(
        folded("wait", "--seq", "8", "--timeout", "0"), folded("wait", "--seq", "9", "--timeout", "0.2")
    )
    assert (reached.code, reached.err) == (0, "")
    assert (late.code, late.out) == (1, "")
    assert late.err.startswith("the checkpoint is at 8, not yet at 9; active: projector writer ")
    await daemon.kill()


async def test_wait_timeout_reports_that_no_daemon_leads(prepared: CommandLine) -> None:
    ended = await prepared("wait", "--seq", "1", "--timeout", "0")
    assert (ended.code, ended.err) == (1, "the checkpoint is at 0, not yet at 1; active: none\n")


async def test_dead_letters_are_listed_as_json_and_as_text(folded: CommandLine) -> None:
    as_json, as_table = await asyncio.gather(
        folded.succeeds("dead-letters", "list", "--json"), folded.succeeds("dead-letters", "list")
    )
    first, second = json.loads(as_json)
    assert (first["position"], first["reason"]) == (3, "malformed-payload")
    assert (second["position"], second["reason"]) == (4, "empty-endpoint-id")
    assert first["subject"] == "kaa.v1.events.kpc.endpoint.connectivity.connected"
    assert datetime.fromisoformat(first["stored_at"]).tzinfo is not None
    assert "malformed-payload" in as_table
    assert first["detail"] in as_table


async def test_a_query_prints_a_table(prepared: CommandLine) -> None:
    statement = """
        select id, text, map, time, array[time, null] as times
        from (values ('e2', 'x', '{"a": [1]}'::jsonb, to_timestamp(1.25)), ('e1', null, '{}', null))
        as found (id, text, map, time) order by id
    """
    printed = (await prepared.succeeds("sql", statement)).splitlines()
    time = "1970-01-01 00:00:01.250+00:00"
    assert [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in printed if line[0] == "|" and "--" not in line
    ] == [
        ["id", "text", "map", "time", "times"],
        ["e1", "", "{}", "", "[null, null]"],
        ["e2", "x", '{"a": [1]}', time, f'["{time}", null]'],
    ]
    assert printed[-1] == "(2 rows)"


async def test_a_query_prints_times_that_only_postgres_can_hold(prepared: CommandLine) -> None:
    """In the format of Postgres, even at the limits of its range."""
    times = [
        ("timestamptz", "20000-01-01 00:00:00+00"),
        ("timestamptz", "4714-11-24 00:00:00+00 BC"),
        ("timestamptz", "infinity"),
        ("timestamp", "294276-12-31 23:59:59.999999"),
        ("timestamp", "0001-02-29 12:00:00 BC"),
        ("timestamp", "-infinity"),
        ("date", "5874897-12-31"),
        ("date", "4714-11-24 BC"),
        ("date", "-infinity"),
        ("date", "9999-12-31"),
    ]
    values = ", ".join(f"'{value}'::{kind}" for kind, value in times)
    inside = "array['infinity'::date, null] as found, tstzrange('2000-01-01 00:00:00+00', 'infinity')"
    printed = (await prepared.succeeds("sql", f"select {values}, {inside}")).splitlines()
    *cells, array, bounds = (cell.strip() for cell in printed[3].split("|")[1:-1])
    assert cells == [value for _, value in times]
    assert array == '["infinity", null]'
    assert bounds.endswith("'infinity')>")


async def test_unreadable_query_result_is_refused_with_a_remedy(prepared: CommandLine) -> None:
    ended = await prepared("sql", "select interval '100000000 years'")
    assert (ended.code, ended.err.count("\n")) == (3, 1)
    assert ended.err.endswith("; cast it to text\n")


async def test_query_with_a_parameter_is_refused(prepared: CommandLine) -> None:
    ended = await prepared("sql", "select $1::text")
    assert (ended.code, ended.err.count("\n")) == (3, 1)
    assert "write the value into the statement" in ended.err


@pytest.fixture
def must_not_be_written(server_folder: Path) -> Iterator[Path]:
    """A file that Postgres could write."""
    server_folder.chmod(0o777)
    yield server_folder / "written"
    assert not (server_folder / "written").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "with gone as (delete from endpoint_state returning 1) select * from gone",
        "select set_config('transaction_read_only', 'off', false)",
        "do $$ begin set transaction read write; delete from endpoint_state; end $$",
        "copy (select 1) to program 'cat > {file}'",
        "copy endpoint_state from program 'touch {file}'",
    ],
)
async def test_a_query_that_would_change_something_is_refused(
    prepared: CommandLine, query: Query, database_url: str, must_not_be_written: Path, statement: str
) -> None:
    await query(
        database_url, "INSERT INTO endpoint_state (endpoint_id, last_event_seq, last_event_at) VALUES ('e', 1, now())"
    )
    ended = await prepared("sql", statement.format(file=must_not_be_written))
    assert await query(database_url, "SELECT endpoint_id FROM endpoint_state") == [("e",)]
    assert ended.code == 3, ended
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1


def leaves(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*path, name))


@pytest.mark.parametrize("path", list(leaves(typer.main.get_command(cli.app))), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(cli.app, [*path, "--help"], prog_name="projector")
    assert ended.exit_code == 0
    assert f"Usage: {' '.join(['projector', *path])} [OPTIONS]" in " ".join(ended.output.split())


async def test_help_and_usage_errors_are_explained(anywhere: CommandLine) -> None:
    asked, mistaken = await asyncio.gather(anywhere("--help"), anywhere("sql"))
    assert (asked.code, mistaken.code) == (0, 2)
    assert "Usage: " in asked.out
    assert "Usage: " in mistaken.err


async def test_fatal_error_is_one_line_with_a_remedy(projector: CommandLine) -> None:
    """The database is not migrated, and there is no stream."""
    run, status = await asyncio.gather(projector("run"), projector("status"))
    assert (run.code, status.code) == (3, 3)
    *log, complaint = run.err.splitlines()
    assert [json.loads(line)["event"] for line in log] == ["starting", "stopped"]
    assert complaint == f"error: {json.loads(log[-1])['reason']}"
    assert status.err == f"{complaint}\n"
    assert complaint.startswith("error: ")
    assert "projector init" in complaint


async def test_database_of_a_newer_version_is_refused(prepared: CommandLine, query: Query, database_url: str) -> None:
    await query(database_url, "UPDATE projector_migration SET version_num = 'from the future'")
    for ended in await asyncio.gather(prepared("init"), prepared("status")):
        assert (ended.code, ended.out, ended.err.count("\n")) == (3, "", 1), ended
        assert ended.err.startswith("error: the database is at migration from the future")
        assert "run the newer version" in ended.err
        assert "projector init" not in ended.err
    assert await query(database_url, "SELECT version_num FROM projector_migration") == [("from the future",)]


async def test_missing_stream_is_one_line_with_a_remedy(
    prepared: CommandLine, nats_client: Client, stream: str
) -> None:
    await nats_client.jetstream().delete_stream(stream)
    ended = await prepared("run")
    assert ended.code == 3
    complaint = ended.err.splitlines()[-1]
    assert complaint.startswith("error: there is no stream 'KAA_ENDPOINT_EVENTS'; ")
    assert "projector init" in complaint
