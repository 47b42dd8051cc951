from projector.domain.revision_hint import hinted_revision, with_hint

HINTED = with_hint("3 of 9 bytes are left over", "kaa-2020-05")


def test_hint_is_found_only_in_a_detail_that_has_it() -> None:
    assert hinted_revision(HINTED) == "kaa-2020-05"
    assert hinted_revision("3 of 9 bytes are left over") is None
    assert hinted_revision(f"{HINTED} or not") is None
