"""Errors reach the process that started a worker as they were raised."""

import pickle

import pytest

from projector import errors
from projector.errors import ProjectorError


@pytest.mark.parametrize(
    "error",
    [
        errors.DatabaseUnavailableError("down"),
        errors.CheckpointMovedError(expected=7, found=None),
        errors.ConsumerPausedError("S", "c", until="2026-01-01T00:00:00Z"),
        errors.MessagesSkippedError(8),
        errors.FeedStreamMissingError("changes", "S_CHANGES"),
        errors.PoisonError("trailing-bytes", "3 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_keeps_its_text_and_its_facts_between_processes(error: ProjectorError) -> None:
    received = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(received) is type(error)
    assert (str(received), received.__dict__) == (str(error), error.__dict__)
