"""Several hosts in PROJECTOR_DATABASE_URL, of which the first is a standby, as after a failover."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from projector import Projector
from projector.dev.embedded import EmbeddedPostgres
from projector.errors import DatabaseUnavailableError
from tests.support import servers
from tests.support.fixtures import Event
from tests.support.scene import Scene
from tests.support.standby import needs_base_backup, standby_of

pytestmark = needs_base_backup


@pytest.fixture
def standby(own_postgres: EmbeddedPostgres, server_folder: Path) -> Iterator[EmbeddedPostgres]:
    with standby_of(own_postgres, server_folder / "standby") as standby:
        yield standby


def folder_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["host"][0]


async def test_daemon_works_on_the_primary_though_a_standby_is_named_first(
    scene: Scene, event: Event, own_postgres: EmbeddedPostgres, server_folder: Path
) -> None:
    async with servers.database(own_postgres) as scene.database_url:
        with standby_of(own_postgres, server_folder / "standby") as standby:
            query = urlsplit(scene.database_url).query
            both = scene.database_url.replace(query, f"host={folder_of(standby.url)},{folder_of(own_postgres.url)}")
            await scene.publish(event("connectivity.connected", "e"))
            await scene.fold(url=both)
            assert await scene.position() == 1
            names = {finding.name for finding in (await Projector(scene.settings(both)).doctor()).findings}
            assert "standby" not in names


async def test_url_can_choose_the_standby(
    scene: Scene, own_postgres: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    hosts = f"{folder_of(standby.url)},{folder_of(own_postgres.url)}"
    url = f"postgresql://postgres@/postgres?host={hosts}&target_session_attrs=standby"
    assert (await Projector(scene.settings(url)).sql("SELECT pg_is_in_recovery()")).rows == [(True,)]


async def test_hosts_without_a_primary_are_reported_as_such(scene: Scene, standby: EmbeddedPostgres) -> None:
    hosts = f"{folder_of(standby.url)},{folder_of(standby.url)}"
    with pytest.raises(DatabaseUnavailableError, match="primary"):
        await Projector(scene.settings(f"postgresql://postgres@/postgres?host={hosts}")).status()
