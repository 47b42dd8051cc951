"""A database of an earlier version is refused until the commands that the error names have been run."""

import json

from nats.aio.client import Client

from projector.domain.rules import BEFORE_NUMBERS, RULES_VERSION
from tests.support.command_line import CommandLine
from tests.support.fixtures import Event, Publish, Query
from tests.support.migrations import migrate_to

FINGERPRINT = "1a801dfeadd6"


async def test_rows_from_before_numbered_rules_are_accepted_after_init_and_rebuild(  # noqa: PLR0913, PLR0917
    projector: CommandLine,
    nats_client: Client,
    stream: str,
    empty_database_url: str,
    event: Event,
    publish: Publish,
    query: Query,
) -> None:
    await publish(*(event("connectivity.connected", "kettle", appVersionName=name) for name in ("v1", "v2")))
    created_at = (await nats_client.jetstream().stream_info(stream)).created
    await migrate_to(empty_database_url, "0003")
    await query(
        empty_database_url,
        """
        INSERT INTO projector_checkpoint (projection, stream, stream_created_at, position, rules_version, revision)
        VALUES ('endpoint_state', $1, $2, 0, $3, 'kaa-2017-04')
        """,
        stream,
        created_at,
        FINGERPRINT,
    )

    async def refusal() -> str:
        refused = await projector("run", "--until-caught-up")
        assert refused.code == 3
        return refused.err

    async def version() -> object:
        return json.loads(await projector.succeeds("status", "--json"))["projection_version"]

    assert "run `projector init`" in await refusal()
    await projector.succeeds("init")
    text = await refusal()
    assert "rules version 0 (from before versions were numbers)" in text
    assert "run `projector rebuild`" in text
    assert await version() == BEFORE_NUMBERS

    await projector.succeeds("rebuild")
    await projector.succeeds("run", "--until-caught-up")
    assert await version() == RULES_VERSION
    assert await query(empty_database_url, "SELECT endpoint_id, app_version FROM endpoint_state") == [("kettle", "v2")]
