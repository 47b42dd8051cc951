"""Checks of the published changes."""

from collections.abc import Sequence

from projector.doctor.findings import Check, Inspection
from projector.domain.broker_info import FeedInfo
from projector.domain.summary import FeedState

_SHORTEST_WINDOW_S = 120.0
_LARGE_CHANGE_BYTES = 16_384


def _state(inspection: Inspection) -> FeedState | None:
    return inspection.seen_database.feed if inspection.seen_database else None


def _forbidden(feed: FeedInfo) -> str | None:
    return f"the NATS user may not use: {', '.join(feed.forbidden)}" if feed.forbidden else None


def _missing(feed: FeedInfo) -> str | None:
    if feed.stream is not None or feed.forbidden or feed.unseen:
        return None
    return f"no stream stores {feed.prefix}.>"


def _mixed(feed: FeedInfo) -> str | None:
    return f"stream {feed.stream!r} stores the events as well" if feed.stores_events else None


def _shared(feed: FeedInfo) -> str | None:
    if not feed.stores_others or feed.stores_events:
        return None
    return f"stream {feed.stream!r} stores other subjects than {feed.prefix}.> as well"


def _window(feed: FeedInfo) -> str | None:
    if feed.stream is None or feed.window_s >= _SHORTEST_WINDOW_S:
        return None
    return f"stream {feed.stream!r} recognizes repeated messages for {feed.window_s:g} s only (duplicate_window)"


def _fills_up(feed: FeedInfo) -> str | None:
    sizes = [
        *([] if feed.max_messages is None else [f"{feed.max_messages} messages"]),
        *([] if feed.max_bytes is None else [f"{feed.max_bytes} bytes"]),
    ]
    if not feed.refuses_when_full or not sizes:
        return None
    return f"stream {feed.stream!r} rejects new messages at {', '.join(sizes)}"


def _sealed(feed: FeedInfo) -> str | None:
    return f"stream {feed.stream!r} is sealed" if feed.sealed else None


def _message_size(feed: FeedInfo) -> str | None:
    limit = feed.max_message_bytes
    if limit is None or limit >= _LARGE_CHANGE_BYTES:
        return None
    return f"stream {feed.stream!r} rejects messages of more than {limit} bytes (max_msg_size)"


def _failing(inspection: Inspection) -> str | None:
    state = _state(inspection)
    if state is None or state.error is None:
        return None
    return f"nothing has been published since {state.error_since}: {state.error}"


def _lost(inspection: Inspection) -> str | None:
    state = _state(inspection)
    if state is None or not state.lost_commits:
        return None
    return f"the changes of {state.lost_commits} commits, at most, left the log before they were published"


FEED_CHECKS: Sequence[Check[FeedInfo]] = (
    Check(
        "publish-permissions",
        "error",
        _forbidden,
        "grant the NATS user the permissions that docs/how-to/connect.md lists for publishing changes",
    ),
    Check(
        "changes-stream-missing",
        "error",
        _missing,
        "run `projector init` to create it, or add the subjects to a stream; until then nothing is published",
    ),
    Check(
        "changes-stream-mixed",
        "error",
        _mixed,
        "take one of them out of its subjects, or set PROJECTOR_PUBLISH to another prefix",
    ),
    Check("changes-stream-sealed", "error", _sealed, "store the changes in another stream"),
    Check(
        "changes-stream-shared",
        "warning",
        _shared,
        "give the changes a stream of their own: while others publish to it, changes are published more slowly, "
        "and only the duplicate window keeps repeats out",
    ),
    Check("changes-window", "warning", _window, "make it longer than the outages that you expect"),
    Check(
        "changes-fill-up",
        "warning",
        _fills_up,
        "let it discard old messages instead: a full stream stops the feed, "
        "and the log drops changes that are not published in time",
    ),
    Check(
        "changes-message-size",
        "warning",
        _message_size,
        "raise max_msg_size: larger changes are published without their values",
    ),
)
PUBLISHING_CHECKS: Sequence[Check[Inspection]] = (
    Check("not-publishing", "error", _failing, "correct the cause; the daemon then publishes what it could not"),
    Check(
        "changes-lost",
        "warning",
        _lost,
        "keep changes for longer (PROJECTOR_CHANGES); readers of the feed have to read the table again",
    ),
)
