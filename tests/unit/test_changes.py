"""Places in the log of changes."""

from itertools import pairwise

import pytest

from projector.domain.changes import FeedCursor, LoggedChange, Page, Place

IN_ORDER = [
    Place(1, (0, "e1", "configuration")),
    Place(1, (3, "e1", "metadata")),
    Place(1, (3, "e2", "application")),
    Place(1, (3, "e2", "metadata")),
    Place(1, (20, "e1", "metadata")),
    Place(1),
    Place(2, (0, "e1", "metadata")),
    Place(2),
    Place(10, (1, "e1", "metadata")),
]


def test_places_sort_as_the_log_is_read_and_the_end_of_a_commit_comes_last() -> None:
    assert all(one.order < other.order for one, other in pairwise(IN_ORDER))


@pytest.mark.parametrize(("position", "sorted_as"), [(9, 9), (None, 0)])
def test_a_correction_comes_before_the_events_of_its_commit(position: int | None, sorted_as: int) -> None:
    change = LoggedChange(
        0, 7, 1, "e1", "metadata", "applied", position, 1, 1, "metadata.updated", "epr", None, b"{}", b"{}"
    )
    assert change.place == Place(7, (sorted_as, "e1", "metadata"))


def test_a_new_cursor_and_a_page_have_lost_nothing() -> None:
    cursor = FeedCursor(0, Place(1), 1)
    assert (cursor.stream, cursor.stream_seq, cursor.lost_commits) == (None, 0, 0)
    page = Page((), Place(1), 1)
    assert (page.complete, page.lost_commits) == (False, 0)
