"""What the errors mean that JetStream answers with, and what helps against them."""

from collections.abc import Mapping

from nats.js.errors import APIError, BadRequestError

from projector.errors import BrokerRefusedError, BrokerUnavailableError, ProjectorError

CONSUMER_IS_INACTIVE_TOO_LONG = 10153
STREAM_NOT_FOUND = 10059
SUBJECTS_OVERLAP = 10065
JETSTREAM_OFF = (10039, 10076)
"""For the account, and on the server."""

_MAY_PASS = frozenset(
    {
        10002,  # the account's resources are used up
        10005,  # no server to place it on
        10013,  # another client has just created a consumer of this name,
        10105,  # which is active,
        10148,  # and otherwise configured
        10026,  # there are as many consumers as there may be
    }
)
"""Codes of the errors that JetStream calls bad requests (status 400) though the same request may work the next time."""

_OFF = "enable JetStream there, or set PROJECTOR_NATS_API_PREFIX if it is in another domain or account"
_STORAGE = "raise the storage limits of the account or the server, or free some"
_WORK_QUEUE = (
    "copy it into a stream with limits retention: a work queue deletes what is acknowledged, and has no replay"
)
_REMEDIES: Mapping[int | None, str] = {
    None: _OFF,
    10039: _OFF,
    10076: _OFF,
    10002: _STORAGE,
    10023: _STORAGE,
    10028: _STORAGE,
    10047: _STORAGE,
    10026: "raise max_consumers of the stream or of the account, or delete consumers that nothing uses: "
    "the daemon needs one, and one more for its monitoring, `projector status` and `projector rebuild`",
    10027: "raise max_streams of the account, or create the stream in another account",
    10084: _WORK_QUEUE,
    10098: _WORK_QUEUE,
    10113: "the account requires a size limit: create the stream yourself, with max_bytes",
    10122: "the account limits the size of a stream: create the stream yourself, with a smaller max_bytes",
}
"""By code of the error; None: nothing answers."""


def jetstream_error(error: APIError) -> ProjectorError:
    """Return an error of JetStream as one of the three families, with what helps against it."""
    remedy = _REMEDIES.get(error.err_code)
    said = f"JetStream answered: {error.description}" if error.description else "no JetStream answers"
    if isinstance(error, BadRequestError) and error.err_code not in _MAY_PASS:
        remedy = remedy or "run `projector doctor`, which checks the stream and the consumer"
        return BrokerRefusedError(f"NATS refused a request: {said} (error {error.err_code}); {remedy}")
    code = f" (error {error.err_code})" if error.err_code else ""
    return BrokerUnavailableError("; ".join(filter(None, (f"{said}{code}", remedy))))
