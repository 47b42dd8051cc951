"""Creates the streams that are missing, and deletes consumers that are no longer needed."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import NoReturn

from nats.js.api import DEFAULT_PREFIX, StorageType, StreamConfig
from nats.js.errors import APIError, BadRequestError, NotFoundError

from projector.errors import BrokerRefusedError, FeedStreamMissingError, NotPermittedError, SettingError
from projector.stream import change_stream, subjects
from projector.stream.connection import Broker, RawClient, connected, translated
from projector.stream.jetstream_errors import NAME_IN_USE, SUBJECTS_OVERLAP

_DUPLICATE_WINDOW_S = 600


async def create_stream(broker: Broker, stream: str) -> bool:
    """Create a stream for all endpoint events unless it exists; return whether it was created.

    It keeps every message forever: a rebuild replays it from the first event.

    Raises:
        BrokerUnavailableError, BrokerRefusedError: NATS cannot be reached, or refuses a request.
        SettingError: the server belongs to a JetStream domain that the settings do not name.
    """
    config = StreamConfig(name=stream, subjects=list(subjects.filters()), storage=StorageType.FILE)
    async with connected(broker, name="projector init") as client, translated():
        try:
            await client.api.stream_info(stream)
        except NotFoundError:
            _check_domain(client, stream)
            try:
                await client.api.add_stream(config)
            except BadRequestError as error:
                if error.err_code != SUBJECTS_OVERLAP:
                    raise
                await _refuse_overlap(client, stream)
            return True
        return False


async def delete_consumers(broker: Broker, stream: str, names: Iterable[str]) -> None:
    """Delete durable consumers of a stream that are no longer needed, if they exist."""
    async with connected(broker, name="projector init") as client, translated():
        for name in names:
            with suppress(NotFoundError):
                await client.api.delete_consumer(stream, name)


async def create_changes_stream(broker: Broker, prefix: str, *, events: str, keep: timedelta) -> str:
    """Create a stream for the published changes, unless one stores them; return its name.

    It keeps messages for as long as the log keeps the changes.

    Raises:
        BrokerUnavailableError, BrokerRefusedError: NATS cannot be reached, or refuses a request.
        FeedStreamMixedError: a stream would store changes and events.
    """
    name = change_stream.default_name(events)
    config = StreamConfig(
        name=name,
        subjects=[f"{prefix}.>"],
        storage=StorageType.FILE,
        max_age=keep.total_seconds(),
        duplicate_window=_DUPLICATE_WINDOW_S,
    )
    async with connected(broker, name="projector init") as client, translated():
        try:
            info = await change_stream.find(client, prefix, events)
        except FeedStreamMissingError:
            try:
                await client.api.add_stream(config)
            except BadRequestError as error:
                if error.err_code not in (SUBJECTS_OVERLAP, NAME_IN_USE):
                    raise
                raise BrokerRefusedError(
                    f"stream {name!r} cannot be created for {prefix}.>: "
                    "a stream of this name exists, or another one stores some of these subjects; "
                    f"add {prefix}.*.* to the subjects of one stream"
                ) from error
            return name
        return str(info["config"]["name"])


def _check_domain(client: RawClient, stream: str) -> None:
    """Check that no stream is created next to one of the same name in another domain.

    Raises:
        SettingError: the settings do not name the domain.
    """
    domain = client.server_info.get("domain")
    if domain and client.api_prefix == DEFAULT_PREFIX:
        raise SettingError(
            f"there is no stream {stream!r} in {domain!r}, the JetStream domain of this NATS server; "
            f"if the stream is in another domain, set PROJECTOR_NATS_API_PREFIX to '$JS.<that domain>.API', "
            f"and to '$JS.{domain}.API' to create it here"
        )


async def _refuse_overlap(client: RawClient, stream: str) -> NoReturn:
    names: list[str] = []
    with suppress(APIError, NotPermittedError):
        for subject in subjects.filters():
            names += (await client.ask("STREAM.NAMES", {"subject": subject}))["streams"] or ()
    raise BrokerRefusedError(
        f"stream {stream!r} cannot be created: another stream stores its subjects"
        f"{': ' if names else ''}{', '.join(sorted(set(names)))}; set PROJECTOR_STREAM to the name of that stream"
    )
