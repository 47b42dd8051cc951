"""The meanings and remedies of JetStream errors."""

from collections.abc import Mapping

from nats.js.errors import APIError, BadRequestError

from projector.errors import BrokerRefusedError, BrokerUnavailableError, ProjectorError

CONSUMER_IS_INACTIVE_TOO_LONG = 10153
STREAM_NOT_FOUND = 10059
SUBJECTS_OVERLAP = 10065
NAME_IN_USE = 10058
OTHER_END = (10070, 10071, 10164)
"""The stream has another end than a publisher expects."""
DUPLICATE_IN_FLIGHT = 10158
"""A cluster has taken note of a message id, but stored no message with it."""
JETSTREAM_OFF = (10039, 10076)
"""For the account, and on the server."""

_TRANSIENT = frozenset(
    {
        10002,  # the account's resources are exhausted
        10005,  # no server to place it on
        10013,  # another client has just created a consumer of this name
        10105,  # the existing consumer is active
        10148,  # the existing consumer has another configuration
        10026,  # the maximum number of consumers is reached
    }
)
"""Codes of transient errors that JetStream reports as bad requests (status 400)."""

_OFF = "enable JetStream there, or set PROJECTOR_NATS_API_PREFIX if it is in another domain or account"
_STORAGE = "raise the storage limits of the account or the server, or free some"
_WORK_QUEUE = (
    "copy it into a stream with limits retention: a work queue deletes acknowledged messages and cannot be replayed"
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
    10077: "raise the limits of the stream, or let it discard old messages",
    10084: _WORK_QUEUE,
    10098: _WORK_QUEUE,
    10113: "the account requires a size limit: create the stream yourself, with max_bytes",
    10122: "the account limits the size of a stream: create the stream yourself, with a smaller max_bytes",
}
"""By error code; None: no answer."""


def jetstream_error(error: APIError) -> ProjectorError:
    """Return an error of JetStream as one of the three families, with its remedy."""
    remedy = _REMEDIES.get(error.err_code)
    said = f"JetStream answered: {error.description}" if error.description else "no JetStream answers"
    if isinstance(error, BadRequestError) and error.err_code not in _TRANSIENT:
        remedy = remedy or "run `projector doctor`, which checks the stream and the consumer"
        return BrokerRefusedError(f"NATS refused a request: {said} (error {error.err_code}); {remedy}")
    code = f" (error {error.err_code})" if error.err_code else ""
    return BrokerUnavailableError("; ".join(filter(None, (f"{said}{code}", remedy))))
