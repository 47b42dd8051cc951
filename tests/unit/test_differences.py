from typing import Any

import pytest

from projector.domain.differences import Differences

NONE = Differences(compared=3, missing=0, extra=0, different=0, by_column={}, shown=())


def test_table_without_differences_is_clean() -> None:
    assert NONE.clean is True


@pytest.mark.parametrize("kind", ["missing", "extra", "different"])
def test_table_with_one_difference_is_not_clean(kind: str) -> None:
    one: dict[str, Any] = {kind: 1}
    assert NONE._replace(**one).clean is False
