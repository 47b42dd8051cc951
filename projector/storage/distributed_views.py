"""The views and functions of `views/` in forms that Citus can plan: each row is computed where the endpoint is."""

import re
from pathlib import Path

from projector.storage.change_log import SINCE
from projector.storage.columns import ENDPOINT_COLUMNS
from projector.storage.connection import Connection

_FOLDER = Path(__file__).parent / "views"
_COLUMNS = ", ".join(f"past.{column.name}" for column in ENDPOINT_COLUMNS if not column.name.endswith("_registers"))
_HEAD_OF_STATE_AT = re.compile(r"endpoint_state_at\(at timestamptz\)\nRETURNS TABLE \(.*?\n\)", re.DOTALL)
# Citus lets no view that it has passed on to the workers read a table of the coordinator.
_IS_PASSED_ON = """
SELECT EXISTS (
    SELECT FROM pg_dist_object WHERE classid = 'pg_class'::regclass AND objid = to_regclass('endpoint_session')
)
"""
_GRANTS = """
SELECT format('GRANT %s ON endpoint_session TO %s', privilege_type, coalesce(quote_ident(rolname), 'PUBLIC'))
FROM pg_class CROSS JOIN aclexplode(relacl) AS granted LEFT JOIN pg_roles ON pg_roles.oid = grantee
WHERE pg_class.oid = 'endpoint_session'::regclass
"""


async def replace(connection: Connection) -> None:
    """Replace the views and functions of the migrations, within a transaction and before it distributes the tables."""
    await _replace_view(connection)
    await _replace_functions(connection)


async def _replace_view(connection: Connection) -> None:
    session, _, _ = _read("endpoint_session").partition("CREATE FUNCTION")
    session = session.replace("(SELECT endpoint_change_since())", SINCE)
    grants = []
    if await connection.fetchval(_IS_PASSED_ON):
        grants = [row[0] for row in await connection.fetch(_GRANTS)]
        await connection.execute("DROP VIEW endpoint_session")
    await connection.execute(session.replace("CREATE VIEW", "CREATE OR REPLACE VIEW"))
    for grant in grants:
        await connection.execute(grant)


async def _replace_functions(connection: Connection) -> None:
    flapping, _, state_at = _read("distributed").partition(";\n\nCREATE")
    (head,) = _HEAD_OF_STATE_AT.findall(_read("endpoint_state_at"))
    template = f"CREATE{state_at}".replace(":columns", _COLUMNS)
    of_one = head.replace("(at timestamptz)", "(at timestamptz, endpoint text)")
    await connection.execute(flapping)
    await connection.execute(template.replace(":state_at", head).replace(":named", "true"))
    await connection.execute(template.replace(":state_at", of_one).replace(":named", "endpoint_id = endpoint"))


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")
