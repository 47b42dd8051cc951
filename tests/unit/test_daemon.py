"""What the log of a daemon says at its end."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from projector.cli import daemon
from projector.cli.log import Journal


async def test_an_unexpected_error_is_in_the_log_with_its_traceback() -> None:
    unexpected = KeyError("x")

    def build(_: object) -> Any:
        class Broken:
            @staticmethod
            def stop() -> None: ...

            @staticmethod
            async def run() -> None:
                raise unexpected

        return Broken

    with capture_logs() as logged, pytest.raises(KeyError):
        await daemon.run(build, Journal(), None)
    (line,) = logged
    assert (line["event"], line["log_level"], line["error"]) == ("broken", "error", "KeyError")
    assert line["exc_info"] is unexpected
