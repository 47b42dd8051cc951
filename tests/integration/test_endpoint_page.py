"""The search and the page of an endpoint, served by a daemon on real servers and tested in a real browser."""

import re
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Page, Route, expect

from projector.dev.embedded import EmbeddedPostgres
from projector.runtime import Projector
from tests.support.browser import Look, browsing, needs_browser
from tests.support.fixtures import Event, Eventually, Wire
from tests.support.scene import Scene

pytestmark = needs_browser

MARKUP = "<img/src=x/onerror=alert(1)>\N{RIGHT-TO-LEFT OVERRIDE}"
CHANGES = "**/changes?*"
ODD = "a/b%2F?#ü\N{GRINNING FACE}"


@pytest.fixture
async def look(scene: Scene) -> AsyncIterator[Look]:
    """Opens pages whose clock is that of the test."""
    async with browsing(scene) as look:
        yield partial(look, moves_clock=False)


def page_of(endpoint_id: str) -> str:
    return f"/endpoints/{quote(endpoint_id, safe='')}"


@pytest.fixture
def life(event: Event) -> list[Wire]:
    """Two sessions, the second one open, with a disconnect that is fenced and a connect that is late."""
    minute = 60_000
    begun = int(time.time() * 1000) - 30 * minute

    def connected(minutes: int, replica: str) -> Wire:
        at = begun + minutes * minute
        return event("connectivity.connected", "e1", originatorReplicaId=replica, timestamp=at, appVersionName="v1")

    def disconnected(minutes: int, replica: str) -> Wire:
        at = begun + minutes * minute
        return event("connectivity.disconnected", endpointIds=["e1"], originatorReplicaId=replica, timestamp=at)

    return [
        event("lifecycle.registered", "e1", appVersionName="v1", timestamp=begun - minute),
        connected(0, "kpc-0"),
        disconnected(5, "kpc-0"),
        connected(10, "kpc-1"),
        disconnected(12, "kpc-0"),
        connected(2, "kpc-2"),
    ]


async def test_search_leads_to_an_endpoint_and_back_to_what_was_found(scene: Scene, event: Event, look: Look) -> None:
    await scene.publish(*(event("connectivity.connected", f"meter-{n:02}") for n in range(30)))
    await scene.publish(event("connectivity.connected", "kettle"))
    await scene.fold()
    page = await look()
    await expect(page.locator("#word")).to_have_text("Healthy")
    await page.fill("#prefix", "meter-")
    await expect(page.locator("#found-note")).to_have_text("the first 20 endpoints beginning with “meter-”")
    await expect(page.locator("#found tbody tr")).to_have_count(20)
    await page.click("text=More")
    await expect(page.locator("#found tbody th")).to_have_text([f"meter-{n:02}" for n in range(30)])
    await expect(page.locator("#found tbody a").nth(20)).to_be_focused()
    await page.fill("#prefix", "meter-2")
    await expect(page.locator("#found tbody tr")).to_have_count(10)
    await page.click("text=meter-25")
    await expect(page.locator("#id")).to_have_text("meter-25")
    await expect(page.locator("#word")).to_have_text("Connected")
    assert page.url.endswith("/endpoints/meter-25")
    await page.go_back()
    await expect(page.locator("#prefix")).to_have_value("meter-2")
    await expect(page.locator("#found tbody tr")).to_have_count(10)

    # Enter opens the only endpoint found, or the one with exactly this id.
    await page.fill("#prefix", "kett")
    await page.press("#prefix", "Enter")
    await expect(page.locator("#id")).to_have_text("kettle")
    await page.fill("#prefix", "nothing")
    await page.press("#prefix", "Enter")
    await expect(page.locator("#found-note")).to_have_text("0 endpoints beginning with “nothing”")
    await page.click("h1 a")
    await expect(page.locator("#word")).to_have_text("Healthy")


async def test_page_of_an_endpoint_shows_state_sessions_changes_and_dead_letters(
    scene: Scene, life: list[Wire], event: Event, look: Look
) -> None:
    subject, payload = event("config.updated", "e1")
    await scene.publish(*life, (subject, payload[:-1]))
    await scene.fold(changes="7d")
    page = await look(page_of("e1"), changes="7d")
    await expect(page.locator("#word")).to_have_text("Connected")
    await expect(page).to_have_title("e1 · Connected")
    await expect(page.locator("#stream")).to_have_text(scene.stream)
    await expect(page.locator("#lede")).to_have_text(re.compile(r"over kpc / kpc-1\. Runs v1, registered, no conf"))
    await expect(page.locator("section[aria-label=Connectivity]")).to_contain_text(
        "connected_replicakpc-1by connectivity.connected at position 4, from kpc / kpc-1"
    )

    await expect(page.locator("#timeline rect.session")).to_have_count(2)
    await expect(page.locator("#timeline rect.open")).to_have_count(1)
    await expect(page.locator("#reading")).to_have_text(re.compile(r"^2 sessions in the last .+, connected \d\d\.\d %"))
    await page.click("text=The sessions as a table")
    await expect(page.locator("#session-rows tbody td:last-child")).to_have_text(["open", "ended by a disconnect"])

    rows = page.locator("#change-rows tbody tr")
    await expect(rows.first).to_contain_text("late")
    await expect(rows.first).to_contain_text("position 6, kpc / kpc-2")
    verdicts = rows.locator("td.verdict")
    await expect(verdicts).to_have_text(["late", "late", "fenced", *["applied"] * 7])
    await expect(rows.nth(2)).to_contain_text("The session is held by kpc/kpc-1 since")
    await expect(rows.last).to_contain_text("The row is new.")
    await expect(page.locator("#change-rows")).to_contain_text("connected_replica kpc-0 → kpc-1")

    await expect(page.locator("#letter-rows tbody tr")).to_have_count(1)
    await expect(page.locator("#letter-rows")).to_contain_text("malformed-payload")

    await page.reload()
    await expect(page.locator("#word")).to_have_text("Connected")


async def test_time_line_can_be_read_with_the_keyboard_and_the_pointer(
    scene: Scene, life: list[Wire], look: Look
) -> None:
    await scene.publish(*life)
    await scene.fold(changes="7d")
    page = await look(page_of("e1"), changes="7d")
    await expect(page.locator("#word")).to_have_text("Connected")
    await expect(page.locator("#timeline rect.session")).to_have_count(2)
    await page.focus("#timeline")
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator("#spoken")).to_have_text(re.compile(r"to now: \d+ min.*, over kpc / kpc-1, open$"))
    await page.keyboard.press("ArrowLeft")
    closed = re.compile(r": 5 min, over kpc / kpc-0, ended by a disconnect$")
    await expect(page.locator("#spoken")).to_have_text(closed)
    await expect(page.locator("#timeline rect.selected")).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(page.locator("#timeline rect.selected")).to_have_count(0)
    await page.locator("#timeline rect.session").first.hover()
    await expect(page.locator("#reading")).to_have_text(closed)
    for window in ("86400", "604800", "all", "3600"):
        await page.check(f'#window [value="{window}"]')
        await expect(page.locator("#timeline rect.session")).to_have_count(2)


async def test_older_rows_stay_and_nothing_jumps_when_newer_ones_come(
    scene: Scene, event: Event, look: Look, eventually: Eventually
) -> None:
    at = int(time.time() * 1000) - 30 * 86_400_000 - 3_600_000  # so long ago that no row shows another age meanwhile

    def updated(number: int) -> Wire:
        return event("metadata.updated", "e1", added=[f"key-{number:02}"], timestamp=at + number * 1000)

    await scene.publish(event("connectivity.connected", "e1", timestamp=at), *(updated(n) for n in range(60)))
    await scene.fold(changes="7d")
    page = await look(page_of("e1"), changes="7d")
    await expect(page.locator("#word")).to_have_text("Connected")
    rows = page.locator("#change-rows tbody tr")
    await expect(rows).to_have_count(20)
    for count in (40, 60, 61):
        await page.click("text=Older changes")
        await expect(rows).to_have_count(count)
    await expect(page.locator("text=Older changes")).to_be_hidden()
    await expect(rows.last).to_contain_text("connectivity.connected")

    await rows.nth(40).scroll_into_view_if_needed()
    await page.evaluate("document.querySelectorAll('#change-rows tbody tr')[40].marked = true")
    before = await place(page, 40)
    await scene.publish(updated(60))

    async def is_folded() -> bool:
        return await scene.query("SELECT FROM endpoint_state WHERE metadata ? 'key-60'") != []

    await eventually(is_folded)
    await expect(rows).to_have_count(62)
    await expect(rows.first).to_contain_text("metadata key-60")
    assert await page.evaluate("document.querySelectorAll('#change-rows tbody tr')[41].marked")

    async def is_where_it_was() -> bool:  # the browser corrects the place when it draws the next frame
        return abs(await place(page, 41) - before) < 2

    await eventually(is_where_it_was)


async def place(page: Page, row: int) -> float:
    return float(
        await page.evaluate(f"document.querySelectorAll('#change-rows tbody tr')[{row}].getBoundingClientRect().top")
    )


async def test_page_says_what_is_missing_while_changes_are_not_recorded(
    scene: Scene, life: list[Wire], look: Look
) -> None:
    await scene.publish(*life)
    await scene.fold()
    page = await look(page_of("e1"))
    await expect(page.locator("#word")).to_have_text("Connected")
    await expect(page.locator("#changes")).to_contain_text("Changes are not recorded: set PROJECTOR_CHANGES")
    await expect(page.locator("#sessions-note")).to_contain_text("Only the latest is known")
    await expect(page.locator("#timeline rect.session")).to_have_count(1)
    await expect(page.locator("#letter-rows")).to_have_text("None.")


async def test_page_says_since_when_there_has_been_no_session(scene: Scene, event: Event, look: Look) -> None:
    await scene.publish(event("lifecycle.registered", "e1", appVersionName="v1"))
    await scene.fold(changes="7d")
    page = await look(page_of("e1"), changes="7d")
    await expect(page.locator("#word")).to_have_text("Connectivity unknown")
    await expect(page.locator("#no-sessions")).to_have_text(re.compile(r"^None since 20.+ UTC\.$"))
    await expect(page.locator("#timeline")).to_be_hidden()


async def test_unknown_endpoint_is_shown_with_its_dead_letters(scene: Scene, event: Event, look: Look) -> None:
    subject, payload = event("connectivity.connected", "e1")
    await scene.publish((subject, payload[:-1]))
    await scene.fold()
    page = await look(page_of("e1"))
    await expect(page.locator("#word")).to_have_text("No such endpoint")
    await expect(page.locator("#letter-rows tbody tr")).to_have_count(1)
    await expect(page.locator("#sessions")).to_be_hidden()
    await page.goto(page.url.replace("e1", "e2"))
    await expect(page.locator("#word")).to_have_text("No such endpoint")
    await expect(page.locator("#letters")).to_be_hidden()
    await expect(page.locator("#changes")).to_be_hidden()


async def test_failure_to_read_changes_is_not_shown_any_longer_than_it_lasts(scene: Scene, look: Look) -> None:
    async def refuse(route: Route) -> None:
        await route.fulfill(status=503, json={"detail": "too busy"})

    await scene.fold()
    page = await look()
    await page.route(CHANGES, refuse)
    await page.goto(page.url + page_of("e1").removeprefix("/"))
    await expect(page.locator("#word")).to_have_text("No such endpoint")
    await expect(page.locator("#changes-note")).to_have_text("The changes cannot be read: too busy")
    await page.unroute(CHANGES)
    await expect(page.locator("#changes")).to_be_hidden()


async def test_address_that_is_no_text_is_reported(scene: Scene, look: Look) -> None:
    await scene.fold()
    page = await look("/endpoints/%ff")
    await expect(page.locator("#word")).to_have_text("No answer")
    await expect(page.locator("#problems")).to_contain_text("the id is not percent-encoded UTF-8")


@pytest.mark.parametrize("endpoint_id", [MARKUP + "x" * 300, ODD])
async def test_hostile_id_is_text_and_fits_any_width(endpoint_id: str, scene: Scene, event: Event, look: Look) -> None:
    subject, payload = event("connectivity.connected", endpoint_id, originatorReplicaId=MARKUP)
    version = event("lifecycle.registered", endpoint_id, appVersionName=MARKUP + "y" * 300)
    await scene.publish((subject, payload), version, (subject, payload[:-1]))
    await scene.publish(event("metadata.updated", endpoint_id, added=[MARKUP]))
    await scene.fold(changes="7d")
    page = await look(f"/?find={quote(endpoint_id[:5])}", changes="7d")
    await page.click("#found tbody a")
    await expect(page.locator("#word")).to_have_text("Connected")
    shown = endpoint_id.replace("\N{RIGHT-TO-LEFT OVERRIDE}", "\\u{202E}")
    await expect(page.locator("#id")).to_have_text(shown)
    await expect(page.locator("#change-rows tbody tr").first).to_be_visible()
    await expect(page.locator("#letter-rows tbody tr")).to_have_count(1)
    assert await page.locator("main img").count() == 0
    for width in (320, 360, 800, 1240):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth") == width


async def test_metadata_keeps_its_digits_and_dark_is_dark(scene: Scene, event: Event, look: Look) -> None:
    await scene.publish(event("metadata.updated", "e1", added=["n"]))
    await scene.fold()
    await scene.query("""UPDATE endpoint_state SET metadata = '{"n": 12345678901234567890.10}'""")
    page = await look(page_of("e1"))
    await expect(page.locator("#word")).to_have_text("Connectivity unknown")
    await expect(page.locator("section[aria-label=Metadata]")).to_contain_text("12345678901234567890.10")
    colours: dict[str, Any] = {}
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        colours[scheme] = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colours == {"light": "rgb(246, 247, 248)", "dark": "rgb(16, 19, 23)"}


async def test_stopped_database_leaves_the_last_state_and_says_how_old_it_is(
    look: Look, scene: Scene, event: Event, spare_postgres: EmbeddedPostgres, spare_database_url: str
) -> None:
    await scene.publish(event("connectivity.connected", "e1"))
    await Projector(scene.settings(spare_database_url)).run(until_caught_up=True)
    page = await look(page_of("e1"), url=spare_database_url)
    await expect(page.locator("#word")).to_have_text("Connected")
    spare_postgres.stop()
    await expect(page.locator("#problems")).to_contain_text("The state cannot be read: Postgres is not reachable")
    await expect(page.locator("#problems")).to_contain_text("The state below is that of")
    await expect(page.locator("#word")).to_have_text("Connected")
    spare_postgres.start()
    await expect(page.locator("section[aria-label=Connectivity]")).to_contain_text("connected_originatorkpc")


async def test_page_works_behind_a_proxy_that_adds_a_prefix(scene: Scene, event: Event, look: Look) -> None:
    await scene.publish(event("connectivity.connected", ODD))
    await scene.fold()
    page = await look()
    origin = page.url.rstrip("/")

    async def forward(route: Any) -> None:
        await route.fulfill(response=await route.fetch(url=route.request.url.replace("/some/prefix/", "/")))

    await page.route("**/some/prefix/**", forward)
    await page.goto(f"{origin}/some/prefix/?find=a")
    await page.click("#found tbody a")
    await expect(page.locator("#word")).to_have_text("Connected")
    assert page.url.startswith(f"{origin}/some/prefix/endpoints/")
    await page.click("h1 a")
    await expect(page.locator("#word")).to_have_text("Healthy")
    assert page.url == f"{origin}/some/prefix/"
