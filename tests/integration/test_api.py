"""The JSON answers below `/api`, of a daemon on real servers."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import asyncpg
import pytest

from projector.dev.embedded import EmbeddedPostgres
from projector.monitoring import api as api_module
from projector.queries import endpoints as endpoints_module
from projector.runtime import Projector
from projector.storage.migrate import upgrade
from projector.storage.tables import endpoint_state
from projector.stream import subjects
from projector.stream.codec import Codec, encode_text
from tests.support import servers
from tests.support.fixtures import Event, Eventually, Wire
from tests.support.monitored import Answer, Watched, fetch, watched
from tests.support.patience import PATIENCE_S
from tests.support.scene import Scene

AT = 1_700_000_000_000
ODD_IDS = (
    "with/slash",
    "100%",
    "%2F",
    "a b+c",
    "käfer-\N{GRINNING FACE}",
    "\1\t\n\x7f",
    "{id}",
    "?limit=1#x",
    "\\",
    "'\"<b>",
    ".",
    "..",
    "x" * 1024,
    "\N{EURO SIGN}" * 897,
)


def path(endpoint_id: str, rest: str = "", **parameters: object) -> str:
    query = f"?{urlencode(parameters)}" if parameters else ""
    return f"/api/endpoints/{quote(endpoint_id, safe='')}{rest}{query}"


async def pages(daemon: Watched, at: str, name: str, cursor: str, **parameters: object) -> list[Any]:
    """Return the rows of all pages."""
    rows: list[Any] = []
    given = dict(parameters)
    while True:
        answer = (await daemon.get(f"{at}?{urlencode(given)}")).json
        rows += answer[name]
        if answer["next"] is None:
            return rows
        given[cursor] = answer["next"]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the limits of an answer so that no busy machine exceeds them."""
    monkeypatch.setattr(api_module, "_ANSWER_S", PATIENCE_S)
    monkeypatch.setattr(endpoints_module, "_COMMAND_TIMEOUT_S", PATIENCE_S)
    patient = {"statement_timeout": f"{PATIENCE_S:.0f}s"}
    monkeypatch.setattr(endpoints_module, "_SETTINGS", {**endpoints_module._SETTINGS, **patient})


@pytest.fixture
async def daemon(scene: Scene) -> AsyncIterator[Watched]:
    async with watched(scene, changes="7d") as daemon:
        await daemon.daemon.hears("active")
        yield daemon


async def folds(daemon: Watched, position: int) -> None:
    await daemon.says("/status", lambda answer: answer.json["checkpoint_seq"] == position)


async def test_search_finds_the_endpoints_with_a_prefix_in_the_order_of_bytes(
    scene: Scene, event: Event, daemon: Watched
) -> None:
    ids = ["b1", "B2", "b-3", "a", "bä", "b\N{GRINNING FACE}", "c", "b", "b\ud7ff", "b\U0010ffff", "b\U0010ffffz"]
    await folds(daemon, await scene.publish(*(event("connectivity.connected", one) for one in ids)))
    expected = sorted(one for one in ids if one.startswith("b"))
    for limit in (1, 2, 200):
        found = await pages(daemon, "/api/endpoints", "endpoints", "after", prefix="b", limit=limit)
        assert [row["endpoint_id"] for row in found] == expected
    everything = await pages(daemon, "/api/endpoints", "endpoints", "after", limit=3)
    assert [row["endpoint_id"] for row in everything] == sorted(ids)
    for prefix in ("b\ud7ff", "b\U0010ffff"):
        found = await pages(daemon, "/api/endpoints", "endpoints", "after", prefix=prefix)
        assert [row["endpoint_id"] for row in found] == sorted(one for one in ids if one.startswith(prefix))
    assert (await daemon.get("/api/endpoints?prefix=B%3F")).json == {"endpoints": [], "next": None}


async def test_search_shows_a_few_columns(scene: Scene, event: Event, daemon: Watched) -> None:
    await folds(daemon, await scene.publish(event("connectivity.connected", "e", appVersionName="v" * 500)))
    assert (await daemon.get("/api/endpoints")).json["endpoints"] == [
        {
            "endpoint_id": "e",
            "connectivity_status": "connected",
            "registration_status": "unknown",
            "config_status": "none",
            "app_version": "v" * 100,
            "last_event_seq": 1,
            "last_event_at": "2023-11-14T22:13:20+00:00",
        }
    ]


@pytest.fixture
async def czech_url(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    """A database in a language that sorts `ch` after `h`, and upper case among lower case."""
    try:
        await servers.execute(
            postgres_server.url,
            "CREATE DATABASE czech LOCALE_PROVIDER icu ICU_LOCALE 'cs' LOCALE 'C' TEMPLATE template0 ENCODING 'UTF8'",
        )
    except asyncpg.FeatureNotSupportedError:
        pytest.skip("this build of Postgres has no ICU; that of a distribution does")
    await upgrade(postgres_server.url_of("czech"))
    yield postgres_server.url_of("czech")
    await servers.execute(postgres_server.url, "DROP DATABASE czech WITH (FORCE)")


async def test_search_does_not_depend_on_the_collation_of_the_database(
    scene: Scene, event: Event, czech_url: str
) -> None:
    scene.database_url = czech_url
    ids = ["c1", "C2", "ch1", "ch2", "cz", "d", "h"]
    async with watched(scene) as daemon:
        await folds(daemon, await scene.publish(*(event("connectivity.connected", one) for one in ids)))
        for prefix in ("c", "ch", "C"):
            found = await pages(daemon, "/api/endpoints", "endpoints", "after", prefix=prefix, limit=1)
            assert [row["endpoint_id"] for row in found] == [one for one in sorted(ids) if one.startswith(prefix)]


async def test_state_has_every_visible_column(scene: Scene, event: Event, daemon: Watched) -> None:
    await folds(
        daemon,
        await scene.publish(
            event("lifecycle.registered", "e", appVersionName="v1"),
            event("connectivity.connected", "e", appVersionName="v1", originatorReplicaId="kpc-1", timestamp=AT + 1),
            event("metadata.updated", "e", added=["site"]),
        ),
    )
    await scene.query("""UPDATE endpoint_state SET metadata = '{"n": 12345678901234567890.10, "t": "\u202e"}'""")
    answer = await daemon.get(path("e"))
    columns = {column.name for column in endpoint_state.columns if not column.name.endswith("_registers")}
    assert set(answer.json) == columns | {"changes_since", "set_by", "metadata_set_by"}
    assert answer.json["connected_at"] == "2023-11-14T22:13:20.001+00:00"
    assert (answer.json["connected_originator"], answer.json["connected_replica"]) == ("kpc", "kpc-1")
    assert answer.json["config_pending_id"] is None
    assert "12345678901234567890.10" in answer.body
    ((since,),) = await scene.query("SELECT endpoint_change_since()")
    assert datetime.fromisoformat(answer.json["changes_since"]) == since


async def test_state_says_which_event_set_each_column(scene: Scene, event: Event, daemon: Watched) -> None:
    replica = {"originatorReplicaId": "kpc-1"}
    await folds(
        daemon,
        await scene.publish(
            event("connectivity.connected", "e", appVersionName="v1", **replica),
            event("metadata.updated", "e", added=["site"], timestamp=AT + 1, originator="epmx"),
            event("metadata.updated", "e", removed=["gone"], timestamp=AT + 2, originator="epmx"),
        ),
    )
    answer = (await daemon.get(path("e"))).json
    connected = {
        "event": "connectivity.connected",
        "position": 1,
        "occurred_at": "2023-11-14T22:13:20.000+00:00",
        "originator": "kpc",
        "replica": "kpc-1",
    }
    assert set(answer["set_by"]) == {
        column.name for column in endpoint_state.columns if not column.name.endswith("_registers")
    } - {"endpoint_id"}
    assert answer["set_by"]["connectivity_status"] == answer["set_by"]["app_version"] == connected
    assert answer["set_by"]["config_applied_id"] is None
    assert answer["metadata_set_by"] == {
        "site": {
            "event": "metadata.updated",
            "position": 2,
            "occurred_at": "2023-11-14T22:13:20.001+00:00",
            "originator": "epmx",
            "replica": None,
        }
    }
    await scene.query("UPDATE endpoint_state SET metadata_registers = '[1]'")
    damaged = await daemon.get(path("e"))
    assert (damaged.code, damaged.json["set_by"], damaged.json["connectivity_status"]) == (200, None, "connected")


@pytest.mark.parametrize("limit", [1, 3, 200])
async def test_every_rejection_has_its_reason_on_any_page(
    limit: int, scene: Scene, event: Event, daemon: Watched
) -> None:
    """Of one commit and of several."""

    def connected(second: int, replica: str) -> Wire:
        return event("connectivity.connected", "e", originatorReplicaId=replica, timestamp=AT + second * 1000)

    def disconnected(second: int, replica: str) -> Wire:
        at = AT + second * 1000
        return event("connectivity.disconnected", endpointIds=["e"], originatorReplicaId=replica, timestamp=at)

    for number in (0, 100):
        await scene.publish(connected(number + 10, "a"), disconnected(number + 11, "b"), connected(number + 5, "c"))
        await folds(daemon, await scene.publish(connected(number + 20, "b"), disconnected(number + 21, "a")))
    found = await pages(daemon, path("e", "/changes"), "changes", "before", limit=limit)
    reasons = [(row["position"], row["reason"]) for row in found if row["verdict"] != "applied"]
    assert [position for position, _ in reasons] == [10, 8, 7, 5, 3, 2]
    assert all(row["reason"] is None for row in found if row["verdict"] == "applied")
    told = dict(reasons)
    assert told[10].startswith("fenced: ")
    assert "kpc/b" in told[10]
    assert "2023-11-14 22:15:20" in told[10].replace("T", " ")
    assert "kpc/a" in told[7]
    assert "kpc/a" in told[2]
    assert told[3].startswith("late: ")
    assert "22:13:30" in told[3]


@pytest.mark.parametrize("endpoint_id", ODD_IDS, ids=range(len(ODD_IDS)))
async def test_any_id_that_a_row_can_have_is_found(
    endpoint_id: str, scene: Scene, event: Event, daemon: Watched
) -> None:
    broken = event("connectivity.connected", endpoint_id)
    await folds(
        daemon,
        await scene.publish(event("connectivity.connected", endpoint_id), (broken[0], broken[1] + b"?")),
    )
    prefix = urlencode({"prefix": endpoint_id[:600]})
    (row,) = (await daemon.get(f"/api/endpoints?{prefix}")).json["endpoints"]
    assert row["endpoint_id"] == endpoint_id
    assert (await daemon.get(path(endpoint_id))).json["endpoint_id"] == endpoint_id
    for rest, name in (("/sessions", "sessions"), ("/changes", "changes"), ("/dead-letters", "dead_letters")):
        answer = (await daemon.get(path(endpoint_id, rest, limit=200))).json
        assert (answer["endpoint_id"], len(answer[name])) == (endpoint_id, 1), name


async def test_sessions_are_paged_even_if_many_begin_in_the_same_millisecond(
    scene: Scene, event: Event, daemon: Watched
) -> None:
    """Two replicas take the session from each other, and twice at the same time."""
    connects = [
        event("connectivity.connected", "e", originatorReplicaId=f"r{number % 2}", timestamp=AT + number // 4)
        for number in range(11)
    ]
    await folds(daemon, await scene.publish(*connects, event("connectivity.connected", "other")))
    sessions = "SELECT connected_at, replica FROM endpoint_session WHERE endpoint_id = 'e'"
    expected = sorted(await scene.query(sessions))
    assert len(expected) > 5
    for limit in (1, 2, 3, 200):
        found = await pages(daemon, path("e", "/sessions"), "sessions", "before", limit=limit)
        assert sorted((datetime.fromisoformat(row["connected_at"]), row["replica"]) for row in found) == expected
        assert [row["connected_at"] for row in found] == sorted((row["connected_at"] for row in found), reverse=True)


async def test_a_session_says_how_it_ended(scene: Scene, event: Event, daemon: Watched) -> None:
    replica = {"originatorReplicaId": "kpc-1"}
    await folds(
        daemon,
        await scene.publish(
            event("connectivity.connected", "e", **replica),
            event("connectivity.disconnected", endpointIds=["e"], timestamp=AT + 90_000, **replica),
            event("connectivity.connected", "e", timestamp=AT + 100_000, **replica),
        ),
    )
    answer = (await daemon.get(path("e", "/sessions"))).json
    assert (answer["changes_state"], answer["detail"], answer["next"]) == ("on", None, None)
    common = {"originator": "kpc", "replica": "kpc-1"}
    opened = {"connected_at": "2023-11-14T22:15:00+00:00", "disconnected_at": None, "duration": None, "ended_by": None}
    closed = {
        "connected_at": "2023-11-14T22:13:20+00:00",
        "disconnected_at": "2023-11-14T22:14:50+00:00",
        "duration": "PT1M30S",
        "ended_by": "disconnected",
    }
    assert answer["sessions"] == [opened | common, closed | common]


async def test_changes_are_paged_newest_first_without_a_repetition(scene: Scene, event: Event, daemon: Watched) -> None:
    """Several facets and several messages of one commit."""
    messages = [
        event(kind, "e", appVersionName=f"v{number}", timestamp=AT + number * 1000)
        for number in range(6)
        for kind in ("connectivity.connected", "lifecycle.registered")
    ]
    late = event("connectivity.connected", "e", originatorReplicaId="other", timestamp=AT)
    await folds(daemon, await scene.publish(*messages, late, event("connectivity.connected", "other")))
    await scene.query("UPDATE endpoint_state SET app_version = 'wrong' WHERE endpoint_id = 'e'")
    await Projector(scene.settings(changes="7d")).rebuild()
    whole = (await daemon.get(path("e", "/changes", limit=200))).json["changes"]
    keys = [(row["commit_no"], row["position"] or 0, row["facet"]) for row in whole]
    assert keys == sorted(keys, reverse=True)
    assert [len(keys)] == [len(set(keys))] == [(await scene.query(COUNT))[0][0]]
    for limit in (1, 2, 7):
        assert await pages(daemon, path("e", "/changes"), "changes", "before", limit=limit) == whole
    assert (whole[0]["verdict"], whole[0]["before"], whole[0]["after"]) == (
        "corrected",
        {"app_version": "wrong"},
        {"app_version": "v5"},
    )
    (rejected,) = [row for row in whole if row["verdict"] == "late"]
    assert (rejected["event"], rejected["position"]) == ("connectivity.connected", len(messages) + 1)


COUNT = "SELECT count(*) FROM endpoint_change WHERE endpoint_id = 'e'"


@pytest.mark.parametrize("rest", ["sessions", "changes"])
async def test_changes_that_are_not_recorded_are_a_state_of_the_answer(rest: str, scene: Scene, event: Event) -> None:
    await scene.publish(event("connectivity.connected", "e"))
    await scene.fold(changes="7d")
    async with watched(scene) as daemon:
        await scene.publish(event("connectivity.connected", "e", timestamp=AT + 1))
        await folds(daemon, 2)
        answer = await daemon.get(path("e", f"/{rest}"))
        assert answer.code == 200
        assert (answer.json["changes_since"], answer.json["changes_state"]) == (None, "off")
        assert "PROJECTOR_CHANGES" in answer.json["detail"]
        assert len(answer.json[rest]) == (1 if rest == "sessions" else 0)  # the session that the row itself has
        assert (await daemon.get(path("e"))).json["changes_since"] is None


async def test_dead_letters_of_an_endpoint_are_those_whose_payload_names_it(
    scene: Scene, event: Event, daemon: Watched
) -> None:
    def broken(endpoint_id: str, **record: Any) -> tuple[str, bytes]:
        subject, payload = event("connectivity.connected", endpoint_id, **record)
        return subject, payload[:-1]

    await folds(
        daemon,
        await scene.publish(
            broken("e1"),
            broken("e10"),
            event("connectivity.disconnected", endpointIds=["e2", "", "e1"]),
            (subjects.build("kpc", "connectivity.connected"), b"\xff"),
            broken("only-broken"),
        ),
    )
    answer = (await daemon.get(path("only-broken", "/dead-letters"))).json
    assert [row["position"] for row in answer["dead_letters"]] == [5]
    assert (await daemon.get(path("only-broken"))).code == 404
    await scene.publish(event("connectivity.connected", "e1"))
    await folds(daemon, 6)
    answer = (await daemon.get(path("e1", "/dead-letters"))).json
    assert [(row["position"], row["reason"], row["state"]) for row in answer["dead_letters"]] == [
        (3, "empty-endpoint-id", "parked"),
        (1, "malformed-payload", "parked"),
    ]
    assert (answer["searched"], answer["next"]) == (5, None)
    assert set(answer["dead_letters"][0]) == LETTER


LETTER = {
    *("position", "state", "reason", "detail", "subject", "payload_bytes"),
    *("stored_at", "parked_at", "attempts", "closed_at", "note"),
}


async def test_the_search_for_dead_letters_is_bounded_and_continues_where_it_ended(
    scene: Scene, event: Event, daemon: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    await folds(daemon, await scene.publish(event("connectivity.connected", "e")))
    subject, payload = event("connectivity.connected", "e")
    await scene.query(
        "INSERT INTO dead_letter (stream, position, subject, payload, stored_at, reason, detail) "
        "SELECT $1, number, $2, CASE WHEN number % 4 = 0 THEN $3 ELSE ''::bytea END, now(), 'r', 'd' "
        "FROM generate_series(1, 40) AS number",
        *(scene.stream, subject, payload),
    )
    expected = list(range(40, 0, -4))
    for letters, size in ((1_000, 1_000), (3, 1_000), (5, len(payload)), (1, 1)):
        monkeypatch.setattr(endpoints_module, "_LETTERS_SEARCHED", letters)
        monkeypatch.setattr(endpoints_module, "_BYTES_SEARCHED", size)
        for limit in (1, 3, 200):
            found = await pages(daemon, path("e", "/dead-letters"), "dead_letters", "before", limit=limit)
            assert [row["position"] for row in found] == expected
    answer = (await daemon.get(path("e", "/dead-letters"))).json
    assert (answer["searched"], answer["next"]) == (1, "40")


def test_a_text_in_a_payload_is_found_as_avro_writes_it(codec: Codec) -> None:
    for text in ("e", "x" * 1000, "\N{GRINNING FACE}"):
        for event_type in ("connectivity.connected", "config.updated"):
            assert encode_text(text) in codec.encode(event_type, {"endpointId": text, "timestamp": AT})


@pytest.mark.parametrize("rest", ["", "/sessions", "/changes", "/dead-letters"])
async def test_unknown_endpoint_is_not_found(rest: str, daemon: Watched) -> None:
    answer = await daemon.get(path("nobody\n", rest))
    assert (answer.code, answer.json["error"]) == (404, "not-found")
    assert "'nobody\\n'" in answer.json["detail"]
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ("?limit=0", "limit is a number from 1 to 200, not '0'"),
        ("?limit=201", "not '201'"),
        ("?limit=-1", "not '-1'"),
        ("?limit=1e2", "not '1e2'"),
        ("?limit=", "not ''"),
        ("?limit=%D9%A1", "not '\N{ARABIC-INDIC DIGIT ONE}'"),
        ("?limit=1&limit=2", "given twice"),
        ("?prefix=%ff", "UTF-8"),
        ("?prefix=%00", "NUL"),
        ("?after=a%00", "NUL"),
        ("?before=1", "there is no parameter 'before', only prefix, limit, after"),
        ("/e?limit=1", "there is no parameter 'limit', only none"),
        ("/%ff", "UTF-8"),
        ("/e%00", "NUL"),
        ("/e/sessions?before=yesterday", "before is the `next` of an answer, not 'yesterday'"),
        ("/e/sessions?before=1_1_1_metadata", "before is"),
        ("/e/sessions?before=999999999999999_0", "before is"),
        ("/e/changes?before=1_2_3", "before is"),
        ("/e/changes?before=1_9999999999999999999_3_metadata", "before is"),
        ("/e/dead-letters?before=-1", "before is"),
        ("/e/dead-letters?before=9223372036854775808", "before is"),
    ],
)
async def test_bad_parameter_is_named(asked: str, complaint: str, daemon: Watched) -> None:
    answer = await daemon.get("/api/endpoints" + asked)
    assert (answer.code, answer.json["error"]) == (400, "bad-request")
    assert complaint in answer.json["detail"]


@pytest.mark.parametrize(
    "asked", ["/api", "/api/", "/api/nothing", "/api/endpoints/", "/api/endpoints/a/b", "/api/endpoints/a/changes/"]
)
async def test_unknown_path_is_not_found_as_json(asked: str, daemon: Watched) -> None:
    answer = await daemon.get(asked)
    assert (answer.code, answer.json["error"]) == (404, "not-found")


async def test_only_get_and_head_are_allowed(scene: Scene, event: Event, daemon: Watched) -> None:
    await folds(daemon, await scene.publish(event("connectivity.connected", "e")))
    for asked in ("/api/endpoints", *(path("e", rest) for rest in ("", "/sessions", "/changes", "/dead-letters"))):
        head = await daemon.get(asked, "HEAD")
        assert (head.code, head.body) == (200, "")
        assert [(await daemon.get(asked, method)).code for method in ("POST", "PUT", "PATCH", "DELETE")] == [405] * 4
        assert (await daemon.get(asked, Host="evil.example")).code == 421


async def test_other_answers_come_while_a_query_hangs(
    scene: Scene, event: Event, daemon: Watched, eventually: Eventually
) -> None:
    await folds(daemon, await scene.publish(event("connectivity.connected", "e")))
    requests = api_module._MOST_WAITING + 2
    with ThreadPoolExecutor(requests) as pool:
        async with nothing_is_read(scene):
            asking = ask(pool, daemon, requests)

            async def hangs() -> bool:
                waiting = "SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'"
                return await scene.query(waiting, "projector endpoints") != []

            async def others_are_refused() -> bool:
                return sum(one.done() for one in asking) == 2

            await eventually(hangs)
            await eventually(others_are_refused)
            assert {one.result().json["error"] for one in asking if one.done()} == {"busy"}
            for other in ("/healthz", "/metrics", "/status"):
                assert (await daemon.get(other)).code == 200
        answers = await asyncio.gather(*asking)
    codes = [answer.code for answer in answers]
    assert (codes.count(503), codes.count(200)) == (2, api_module._MOST_WAITING)


async def test_answers_say_so_if_a_query_hangs_for_too_long(
    scene: Scene, event: Event, daemon: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So do those that wait for the one that hangs."""
    await folds(daemon, await scene.publish(event("connectivity.connected", "e")))
    requests = api_module._MOST_WAITING
    with ThreadPoolExecutor(requests) as pool, monkeypatch.context() as impatient:
        impatient.setattr(api_module, "_ANSWER_S", 1.0)
        async with nothing_is_read(scene):
            answers = await asyncio.gather(*ask(pool, daemon, requests))
    assert {(answer.code, answer.json["error"]) for answer in answers} == {(503, "database-unavailable")}
    assert (await daemon.get(path("e"))).code == 200


@asynccontextmanager
async def nothing_is_read(scene: Scene) -> AsyncIterator[None]:
    """Make every query of a state hang."""
    blocker = await asyncpg.connect(scene.database_url)
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE endpoint_state IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await blocker.close()


def ask(pool: ThreadPoolExecutor, daemon: Watched, times: int) -> list[asyncio.Future[Answer]]:
    """Ask for a state several times at once."""
    loop = asyncio.get_running_loop()
    return [loop.run_in_executor(pool, fetch, daemon.url + path("e")) for _ in range(times)]


async def test_stopped_database_is_an_answer(
    scene: Scene, event: Event, spare_postgres: EmbeddedPostgres, spare_database_url: str
) -> None:
    scene.database_url = spare_database_url
    async with watched(scene) as daemon:
        await folds(daemon, await scene.publish(event("connectivity.connected", "e")))
        assert (await daemon.get(path("e"))).code == 200
        spare_postgres.stop()
        for asked in ("/api/endpoints", path("e"), path("e", "/changes"), path("e", "/dead-letters")):
            answer = await daemon.get(asked)
            assert (answer.code, answer.json["error"]) == (503, "database-unavailable")
            assert "Postgres" in answer.json["detail"]
        spare_postgres.start()
        await daemon.says(path("e"), lambda answer: answer.code == 200)


async def test_database_that_is_not_migrated_is_an_answer(scene: Scene, daemon: Watched) -> None:
    await scene.query("ALTER TABLE projector_migration RENAME TO away")
    answer = await daemon.get("/api/endpoints")
    assert (answer.code, answer.json["error"]) == (503, "database-unavailable")
    assert "projector init" in answer.json["detail"]


async def test_the_connection_is_read_only_and_closed_when_idle(
    scene: Scene, daemon: Watched, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'projector endpoints'"
    assert await scene.query(connections) == [(0,)]
    await asyncio.gather(*(daemon.get("/api/endpoints") for _ in range(5)))
    assert await scene.query(connections) == [(1,)]
    monkeypatch.setattr(endpoints_module, "_IDLE_S", 0.05)
    await daemon.get("/api/endpoints")

    async def is_closed() -> bool:
        return await scene.query(connections) == [(0,)]

    await eventually(is_closed)
    monkeypatch.setattr(endpoints_module, "STATE", "DELETE FROM endpoint_state WHERE endpoint_id = $1 RETURNING '{}'")
    answer = await daemon.get(path("e"))
    assert answer.code == 503
    assert "read-only" in answer.json["detail"]
