from projector.domain.summary import FeedState


def test_a_projection_that_has_published_nothing_yet_has_lost_no_commit() -> None:
    assert FeedState("fleet").lost_commits == 0
