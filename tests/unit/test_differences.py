from typing import Any

import pytest

from projector.domain.differences import Differences

NONE = Differences(compared=3, missing=0, extra=0, different=0, by_column={}, shown=())


def test_a_table_whose_rows_are_all_as_the_stream_implies_is_clean() -> None:
    assert NONE.clean is True


@pytest.mark.parametrize("kind", ["missing", "extra", "different"])
def test_a_table_with_a_single_row_that_differs_is_not_clean(kind: str) -> None:
    one: dict[str, Any] = {kind: 1}
    assert NONE._replace(**one).clean is False
