"""The page at `/`, served by a daemon on real servers and tested in a real browser."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from playwright.async_api import Route, expect

from projector.dev.embedded import EmbeddedPostgres
from projector.runtime import Projector
from tests.support import servers
from tests.support.browser import POLL_MS, Look, browsing, needs_browser, shows
from tests.support.fixtures import Event
from tests.support.patience import PATIENCE_S
from tests.support.scene import Scene
from tests.support.workers import silent_worker

pytestmark = needs_browser

HIDDEN_POLL_MS = 60_000
MARKUP = "<img/src=x/onerror=alert(1)>"
TURNED = "\N{RIGHT-TO-LEFT OVERRIDE}"


@pytest.fixture
async def look(scene: Scene) -> AsyncIterator[Look]:
    async with browsing(scene) as look:
        yield look


@asynccontextmanager
async def nothing_commits(database_url: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM projector_checkpoint FOR UPDATE")
            yield
    finally:
        await connection.close()


async def test_page_shows_a_healthy_daemon_at_once(scene: Scene, event: Event, look: Look) -> None:
    await scene.publish(
        event("connectivity.connected", "e1", appVersionName="kettle-1"),
        event("connectivity.connected", "e2", appVersionName="kettle-1"),
        event("lifecycle.registered", "e3", appVersionName="meter-2"),
        event("config.new-available", "e3", configId="c1"),
    )
    await scene.fold()
    page = await look()
    await shows(page, "Healthy")
    await expect(page).to_have_title(f"Healthy · {scene.stream}")
    await expect(page.locator("#lede")).to_contain_text("The table was up to date")
    await expect(page.locator("#figures")).to_contain_text("Checkpoint4of 4 in the stream")
    await expect(page.locator("#by-status tbody tr")).to_have_text(
        ["connected266.7 %", "disconnected00.0 %", "unknown133.3 %"]
    )
    await expect(page.locator("#by-version tbody tr")).to_have_text(["kettle-1266.7 %", "meter-2133.3 %"])
    await expect(page.locator("#by-config tbody tr")).to_have_text(["applied00.0 %", "pending133.3 %", "none266.7 %"])
    await expect(page.locator("figure svg[role=img]").first).to_have_attribute("aria-label", re.compile("highest"))

    # The clock of the page is stopped: the page shows this before its next poll.
    await page.reload()
    await expect(page.locator("#word")).to_have_text("Healthy")


async def test_plots_can_be_read_with_the_keyboard(scene: Scene, event: Event, look: Look) -> None:
    await scene.publish(event("connectivity.connected", "e1"))
    page = await look()
    await shows(page, "Healthy")
    # The history may have been answered before the first sample, and the status after it: the next poll brings a point.
    await expect(page.locator("figure svg[role=img]").first).to_have_attribute("aria-label", re.compile("highest"))
    await page.focus("#plots")
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator("#reading")).to_have_text(re.compile(r"events per second, lag 0 messages, 0 s$"))
    await page.click("summary")
    await expect(page.locator("#minutes tbody th").first).to_have_text(re.compile(r"^\d\d:\d\d$"))


SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE UPDATE ON projector_checkpoint FOR EACH ROW EXECUTE FUNCTION slow();
"""


async def test_page_shows_catching_up_with_an_estimate(scene: Scene, event: Event, look: Look) -> None:
    """The daemon commits one message at a time, for longer than the test waits."""
    await servers.execute(scene.database_url, SLOW)
    await scene.publish(*(event("connectivity.connected", f"e{number}") for number in range(5_000)))
    page = await look(batch_size=1, ready_lag_s=0)
    await shows(page, "Catching up")
    async with asyncio.timeout(PATIENCE_S):
        while "to go" not in await page.inner_text("#lede"):
            await page.clock.fast_forward(POLL_MS)
    await expect(page.locator("#lede")).to_have_text(
        re.compile(r"^The table is .+ behind the stream, [\d,]+ messages to fold\. About .+ to go\.$")
    )


async def test_page_shows_a_lag_that_does_not_shrink(scene: Scene, event: Event, look: Look) -> None:
    await scene.publish(event("connectivity.connected", "e1"))
    page = await look(ready_lag_s=0)
    await shows(page, "Healthy")
    async with nothing_commits(scene.database_url):
        await scene.publish(event("connectivity.connected", "e2"))
        await shows(page, "Falling behind")
        await expect(page.locator("#problems")).to_contain_text("Lag is")
    await shows(page, "Healthy")
    await expect(page.locator("#problems")).to_be_hidden()


async def test_page_names_a_stopped_database_and_recovers(
    look: Look, spare_postgres: EmbeddedPostgres, spare_database_url: str
) -> None:
    page = await look(url=spare_database_url)
    await shows(page, "Healthy")
    spare_postgres.stop()
    await shows(page, "Interrupted")
    await expect(page.locator("#problems")).to_contain_text("Postgres")
    await expect(page.locator("#lede")).to_have_text(re.compile(r"The figures below are .+ old\.$"))
    await expect(page.locator("main")).to_have_attribute("data-stale", "")
    spare_postgres.start()
    await shows(page, "Healthy")


async def test_page_shows_a_standby(scene: Scene, event: Event, look: Look) -> None:
    await scene.publish(event("connectivity.connected", "e1"))
    await scene.follow().hears("active")
    page = await look()
    await shows(page, "Standing by")
    await expect(page.locator("#lede")).to_contain_text("Another projector leads")


async def test_page_lists_several_shards_and_names_one_without_a_leader(scene: Scene, event: Event, look: Look) -> None:
    await Projector(scene.settings()).init(shards=3)
    await scene.publish(*(event("connectivity.connected", f"e{number}") for number in range(9)))
    page = await look()
    await shows(page, "Healthy")
    leader = "projector writer .+, Postgres process \\d+"
    await expect(page.locator("#shards-note")).to_have_text("3 shards")
    await expect(page.locator("#shard-rows tbody tr")).to_have_text(
        [re.compile(f"^{shard}90{leader}$") for shard in range(3)]
    )
    await expect(page.locator("#figures")).to_contain_text("Checkpoint9of 9 in the stream")
    await expect(page.locator("#daemon dt", has_text="Leader")).to_have_count(0)
    async with silent_worker(scene.database_url):
        await shows(page, "Needs attention")
        await expect(page.locator("#problems")).to_have_text(re.compile(r"^Shard \d has no leader$"))
        await expect(page.locator("#shards-note")).to_have_text("3 shards, 1 without a leader")
        await expect(page.locator("#shard-rows tr", has_text="no leader")).to_have_text(
            re.compile("^[012]9\N{EN DASH}no leader$")
        )
        for width in (320, 390, 800):
            await page.set_viewport_size({"width": width, "height": 800})
            assert await page.evaluate("document.documentElement.scrollWidth") == width
    await shows(page, "Healthy")


async def test_page_shows_no_table_of_a_single_shard(scene: Scene, event: Event, look: Look) -> None:
    await scene.publish(event("connectivity.connected", "e1"))
    page = await look()
    await shows(page, "Healthy")
    await expect(page.locator("#shards")).to_be_hidden()
    await expect(page.locator("#daemon dt", has_text="Leader")).to_have_count(1)


async def test_page_shows_a_worker_that_stands_by(scene: Scene, look: Look) -> None:
    await Projector(scene.settings()).init(shards=2)
    async with silent_worker(scene.database_url):
        for _ in range(2):
            await scene.follow().hears("active")
        page = await look()
        await shows(page, "Standing by")
        await expect(page.locator("#lede")).to_contain_text("Other projectors lead")


async def test_page_escapes_hostile_texts_and_fits_any_width(scene: Scene, event: Event, look: Look) -> None:
    subject, payload = event("connectivity.connected", "e1", originator=MARKUP + TURNED + "x" * 200)
    version = MARKUP + TURNED + "y" * 200
    await scene.publish((subject, payload[:-1]), event("connectivity.connected", "e1", appVersionName=version))
    await scene.fold()
    page = await look()
    await shows(page, "Needs attention")
    await expect(page.locator("#problems")).to_have_text("1 dead letter needs attention")
    await expect(page.locator("#letters code").first).to_contain_text(f"kaa.v1.events.{MARKUP}\\u{{202E}}xxx")
    await expect(page.locator("#by-version th[scope=row]")).to_contain_text(f"{MARKUP}\\u{{202E}}yyy")
    assert await page.locator("main img").count() == 0
    for width in (320, 390, 800):
        await page.set_viewport_size({"width": width, "height": 800})
        assert await page.evaluate("document.documentElement.scrollWidth") == width


async def test_page_shows_that_the_daemon_is_gone_and_the_age_of_its_figures(
    scene: Scene, event: Event, look: Look
) -> None:
    await scene.publish(event("connectivity.connected", "e1"))
    page = await look()
    await shows(page, "Healthy")
    await expect(page.locator("#figures")).to_contain_text("Checkpoint1")
    await page.route("**/status", _refuse)
    await shows(page, "No answer")
    await page.clock.fast_forward(60_000)
    await expect(page.locator("#lede")).to_have_text(re.compile(r"^The figures below are ([5-9]\d s|\d+ min.*) old; "))
    await expect(page.locator("#problems")).to_contain_text("The daemon has not answered since")
    await expect(page.locator("#figures")).to_contain_text("Checkpoint1")
    await page.unroute("**/status")
    await shows(page, "Healthy")


async def _refuse(route: Route) -> None:
    await route.abort("connectionrefused")


async def test_hidden_page_polls_rarely(scene: Scene, event: Event, look: Look) -> None:
    await scene.publish(event("connectivity.connected", "e1"))
    page = await look()
    await shows(page, "Healthy")
    await page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))  # later than the page's own clock
    await page.evaluate("Object.defineProperty(document, 'hidden', { value: true })")
    await page.route("**/status", _refuse)
    await shows(page, "No answer")  # the page has polled while it was hidden; the test may have let POLL_MS pass since
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.clock.fast_forward(HIDDEN_POLL_MS - 4 * POLL_MS)
    async with page.expect_response("**/history"):
        await page.clock.fast_forward(4 * POLL_MS)
    assert [url.rpartition("/")[2] for url in asked] == ["status", "history"], "it was not asked before"
