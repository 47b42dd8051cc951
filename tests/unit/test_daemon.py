"""The log of a daemon at its end."""

import pytest
from structlog.testing import capture_logs

from projector.cli.log import DaemonLog
from projector.errors import StreamMissingError


def test_unexpected_error_is_logged_with_its_traceback() -> None:
    unexpected = KeyError("x")
    with capture_logs() as logged, pytest.raises(KeyError), DaemonLog().errors_logged():
        raise unexpected
    (line,) = logged
    assert (line["event"], line["log_level"], line["error"]) == ("broken", "error", "KeyError")
    assert line["exc_info"] is unexpected


def test_fatal_error_is_logged_as_the_reason_of_the_end() -> None:
    with capture_logs() as logged, pytest.raises(StreamMissingError), DaemonLog().errors_logged():
        raise StreamMissingError("S")
    (line,) = logged
    assert (line["event"], line["log_level"], "exc_info" in line) == ("stopped", "info", False)
    assert line["reason"].startswith("there is no stream 'S'")
