"""The JSON values that decoding accepts, compared with those that Postgres accepts."""

from random import Random

import asyncpg
import pytest

from projector.errors import PoisonError
from projector.stream.json_values import MAX_DEPTH, checked_json

_PIECES = (
    *'[]{}",:.-+eE0123456789 \\u',
    "null",
    "true",
    '"a"',
    "1e131071",
    "1e131072",
    "1e-16383",
    "1e-16384",
    "\\u0000",
    "\\ud83d",
    "\\ude00",
    "\\ud83d\\ude00",
    "\\n",
    "\t",
    "NaN",
    "\ufeff",
    "☕",
)
_EXPONENTS = (0, 5, 16_342, 16_343, 16_382, 16_383, 16_384, 131_020, 131_070, 131_071, 131_072, 1_000_000)


def candidates() -> list[str]:
    """Texts that are JSON, almost JSON, or not JSON at all, the same in every run."""
    random = Random(7)  # noqa: S311 - texts that can be repeated are the point
    shapes = ("{}", "[{}]", '{{"k": {}}}', '"{}"', " {}\n")
    made = ["".join(random.choices(_PIECES, k=random.randrange(1, 6))) for _ in range(4000)]
    numbers = [
        random.choice(("", "-"))
        + random.choice(("0", "1", "12", "9" * 50))
        + random.choice(("", ".5", f".{'0' * 40}1"))
        + f"e{random.choice(('', '+', '-'))}{random.choice(_EXPONENTS)}"
        for _ in range(1000)
    ]
    deep = ["[" * MAX_DEPTH + "]" * MAX_DEPTH, '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH]
    return [random.choice(shapes).format(text) for text in (*made, *numbers)] + deep


async def test_postgres_accepts_exactly_what_is_not_parked(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    taken = refused = 0
    try:
        for text in candidates():
            try:
                value = checked_json("key", text)
            except PoisonError:
                refused += 1
                with pytest.raises(asyncpg.DataError):
                    await connection.fetchval("SELECT $1::text::jsonb", text if "\0" not in text else '"\\u0000"')
            else:
                taken += 1
                await connection.fetchval("SELECT $1::text::jsonb IS NULL", value or "null")
    finally:
        await connection.close()
    assert taken > 1000
    assert refused > 100
