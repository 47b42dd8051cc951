import pytest

from projector.doctor.known_faults import known_faults


@pytest.mark.parametrize(
    ("version", "in_clusters", "alone"),
    [
        ((2, 1, 9), 0, 0),
        ((2, 2, 0), 1, 1),
        ((2, 10, 19), 1, 1),
        ((2, 10, 20), 2, 1),
        ((2, 10, 22), 2, 1),
        ((2, 10, 23), 1, 1),
        ((2, 10, 26), 1, 1),
        ((2, 10, 27), 0, 0),
        ((2, 11, 0), 1, 1),
        ((2, 11, 1), 0, 0),
    ],
)
def test_a_version_has_the_faults_of_its_range_and_no_others(
    version: tuple[int, ...], in_clusters: int, alone: int
) -> None:
    for clustered, expected in ((True, in_clusters), (False, alone)):
        found = known_faults(version, clustered=clustered) or ""
        assert found.count("fixed in") == expected


def test_a_fault_is_named_with_its_source_and_the_version_to_update_to() -> None:
    assert known_faults((2, 11, 0), clustered=False) == (
        "this is NATS 2.11.0: any user who may publish to $JS.> can delete the streams of every account "
        "(CVE-2025-30215, fixed in 2.11.1)"
    )
