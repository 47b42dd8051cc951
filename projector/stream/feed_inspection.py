"""Inspects the stream of the published changes, and changes nothing."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from nats.js.errors import APIError, NotFoundError

from projector.domain.broker_info import Coverage, FeedInfo
from projector.stream import change_stream
from projector.stream.connection import RawClient
from projector.stream.units import NS_PER_S

PUBLISHING_NEEDS = (
    "{prefix}.>",
    "$JS.API.STREAM.INFO.{changes}",
    "$JS.API.STREAM.MSG.GET.{changes}",
)


async def inspect(
    client: RawClient, forbidden: Callable[[Sequence[str]], Awaitable[tuple[str, ...]]], prefix: str, events: str
) -> FeedInfo:
    """Return what a server reports about the stream that stores the prefix.

    `forbidden` returns which of some subjects the user may not publish to.
    """
    refused = await forbidden([need.replace("{prefix}", prefix) for need in PUBLISHING_NEEDS])
    if refused:
        return FeedInfo(prefix=prefix, forbidden=refused)
    configs = []
    with suppress(NotFoundError):
        configs.append((await client.ask(f"STREAM.INFO.{change_stream.default_name(events)}"))["config"])
    unseen: str | None = None
    if not configs or change_stream.stores(configs[0], prefix) is not Coverage.WHOLLY:
        if await forbidden(["$JS.API.STREAM.NAMES"]):
            unseen = "the streams that store the published changes: the NATS user may not use $JS.API.STREAM.NAMES"
        else:
            with suppress(APIError):
                names = (await client.ask("STREAM.NAMES", {"subject": f"{prefix}.>"}))["streams"] or ()
                configs += [(await client.ask(f"STREAM.INFO.{name}"))["config"] for name in names]
    found = [config for config in configs if change_stream.stores(config, prefix) is Coverage.WHOLLY]
    if not found:
        return FeedInfo(prefix=prefix, unseen=unseen)
    return _feed_info(prefix, found[0])


def _feed_info(prefix: str, config: dict[str, Any]) -> FeedInfo:
    def limit(name: str) -> int | None:
        return config[name] if config.get(name, -1) > 0 else None

    return FeedInfo(
        prefix=prefix,
        stream=config["name"],
        stores_events=change_stream.stores_events(config),
        stores_others=any(
            subject != prefix and not subject.startswith(f"{prefix}.") for subject in config.get("subjects", ())
        ),
        window_s=config.get("duplicate_window", 0) / NS_PER_S,
        refuses_when_full=config.get("discard") == "new",
        max_messages=limit("max_msgs"),
        max_bytes=limit("max_bytes"),
        max_message_bytes=limit("max_msg_size"),
        sealed=config.get("sealed", False),
    )
