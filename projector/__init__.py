"""Keeps the current state of every endpoint in Postgres, exactly as its event stream implies.

This is the public API; no other name of the package is stable.
Names are imported on first use, so `import projector` is cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from projector.version import __version__

if TYPE_CHECKING:
    from projector.app.dead_letters import Retried
    from projector.app.explanation import ExplainedColumn, ExplainedEvent, ExplainedKey, Explanation, Replayed
    from projector.app.notifications import (
        Active,
        CaughtUp,
        ChangesLost,
        Committed,
        Heartbeat,
        Listening,
        Notification,
        NotListening,
        Published,
        PublishingFailed,
        PublishingResumed,
        Received,
        Released,
        Retrying,
        StandingBy,
        StreamRecognized,
        TooManyWorkers,
        WorkerDied,
    )
    from projector.app.observers import Observer
    from projector.app.projection import Outcome
    from projector.app.rebuild import Mention, Report
    from projector.app.replay import Progress
    from projector.app.status import Status
    from projector.app.waiting import Waited
    from projector.doctor.examination import Examination
    from projector.doctor.findings import Finding
    from projector.domain.checkpoint import Checkpoint
    from projector.domain.dead_letters import ListedDeadLetter, StoredDeadLetter
    from projector.domain.differences import Differences, RowDifference
    from projector.domain.facets import Verdict
    from projector.domain.messages import DeadLetter, Message, Selection
    from projector.domain.rules import Rules
    from projector.domain.shards import Shard
    from projector.domain.summary import Census
    from projector.errors import (
        BrokerLoginError,
        BrokerRefusedError,
        BrokerUnavailableError,
        CheckpointMovedError,
        ConsumerPausedError,
        DamagedRowError,
        DatabaseLoginError,
        DatabaseRefusedError,
        DatabaseUnavailableError,
        DeliveryInterruptedError,
        EventsLostError,
        FatalError,
        FeedMovedError,
        FeedStreamMissingError,
        FeedStreamMixedError,
        HeldRowsRefusedError,
        LoginRefusedAgainError,
        MessagesSkippedError,
        MomentUnknownError,
        NoDeadLetterError,
        NoEndpointError,
        NotDistributableError,
        NotMigratedError,
        NotPermittedError,
        OtherStreamError,
        PoisonError,
        ProjectorError,
        ProjectorRunningError,
        QueryRefusedError,
        RebuildRunningError,
        RetryTooEarlyError,
        RowsChangedError,
        RulesChangedError,
        SettingError,
        ShardsChangedError,
        StreamMissingError,
        StreamReplacedError,
        StreamTrimmedError,
        TransientError,
        WorkerFailedError,
    )
    from projector.queries.statement import Answer
    from projector.runtime import Projector
    from projector.settings import Settings

__all__ = [
    "Active",
    "Answer",
    "BrokerLoginError",
    "BrokerRefusedError",
    "BrokerUnavailableError",
    "CaughtUp",
    "Census",
    "ChangesLost",
    "Checkpoint",
    "CheckpointMovedError",
    "Committed",
    "ConsumerPausedError",
    "DamagedRowError",
    "DatabaseLoginError",
    "DatabaseRefusedError",
    "DatabaseUnavailableError",
    "DeadLetter",
    "DeliveryInterruptedError",
    "Differences",
    "EventsLostError",
    "Examination",
    "ExplainedColumn",
    "ExplainedEvent",
    "ExplainedKey",
    "Explanation",
    "FatalError",
    "FeedMovedError",
    "FeedStreamMissingError",
    "FeedStreamMixedError",
    "Finding",
    "Heartbeat",
    "HeldRowsRefusedError",
    "ListedDeadLetter",
    "Listening",
    "LoginRefusedAgainError",
    "Mention",
    "Message",
    "MessagesSkippedError",
    "MomentUnknownError",
    "NoDeadLetterError",
    "NoEndpointError",
    "NotDistributableError",
    "NotListening",
    "NotMigratedError",
    "NotPermittedError",
    "Notification",
    "Observer",
    "OtherStreamError",
    "Outcome",
    "PoisonError",
    "Progress",
    "Projector",
    "ProjectorError",
    "ProjectorRunningError",
    "Published",
    "PublishingFailed",
    "PublishingResumed",
    "QueryRefusedError",
    "RebuildRunningError",
    "Received",
    "Released",
    "Replayed",
    "Report",
    "Retried",
    "RetryTooEarlyError",
    "Retrying",
    "RowDifference",
    "RowsChangedError",
    "Rules",
    "RulesChangedError",
    "Selection",
    "SettingError",
    "Settings",
    "Shard",
    "ShardsChangedError",
    "StandingBy",
    "Status",
    "StoredDeadLetter",
    "StreamMissingError",
    "StreamRecognized",
    "StreamReplacedError",
    "StreamTrimmedError",
    "TooManyWorkers",
    "TransientError",
    "Verdict",
    "Waited",
    "WorkerDied",
    "WorkerFailedError",
    "__version__",
]

_MODULES = {
    "projector.app.dead_letters": ("Retried",),
    "projector.app.explanation": ("ExplainedColumn", "ExplainedEvent", "ExplainedKey", "Explanation", "Replayed"),
    "projector.doctor.examination": ("Examination",),
    "projector.doctor.findings": ("Finding",),
    "projector.app.notifications": (
        "Active",
        "CaughtUp",
        "ChangesLost",
        "Committed",
        "Heartbeat",
        "Listening",
        "NotListening",
        "Notification",
        "Published",
        "PublishingFailed",
        "PublishingResumed",
        "Received",
        "Released",
        "Retrying",
        "StandingBy",
        "StreamRecognized",
        "TooManyWorkers",
        "WorkerDied",
    ),
    "projector.app.observers": ("Observer",),
    "projector.app.projection": ("Outcome",),
    "projector.app.rebuild": ("Mention", "Report"),
    "projector.app.replay": ("Progress",),
    "projector.app.status": ("Status",),
    "projector.app.waiting": ("Waited",),
    "projector.domain.checkpoint": ("Checkpoint",),
    "projector.domain.dead_letters": ("ListedDeadLetter", "StoredDeadLetter"),
    "projector.domain.differences": ("Differences", "RowDifference"),
    "projector.domain.facets": ("Verdict",),
    "projector.domain.messages": ("DeadLetter", "Message", "Selection"),
    "projector.domain.rules": ("Rules",),
    "projector.domain.shards": ("Shard",),
    "projector.domain.summary": ("Census",),
    "projector.errors": (
        "BrokerLoginError",
        "BrokerRefusedError",
        "BrokerUnavailableError",
        "CheckpointMovedError",
        "ConsumerPausedError",
        "DamagedRowError",
        "DatabaseLoginError",
        "DatabaseRefusedError",
        "DatabaseUnavailableError",
        "DeliveryInterruptedError",
        "EventsLostError",
        "FatalError",
        "FeedMovedError",
        "FeedStreamMissingError",
        "FeedStreamMixedError",
        "HeldRowsRefusedError",
        "LoginRefusedAgainError",
        "MessagesSkippedError",
        "MomentUnknownError",
        "NoDeadLetterError",
        "NoEndpointError",
        "NotDistributableError",
        "NotMigratedError",
        "NotPermittedError",
        "OtherStreamError",
        "PoisonError",
        "ProjectorError",
        "ProjectorRunningError",
        "QueryRefusedError",
        "RebuildRunningError",
        "RetryTooEarlyError",
        "RowsChangedError",
        "RulesChangedError",
        "SettingError",
        "ShardsChangedError",
        "StreamMissingError",
        "StreamReplacedError",
        "StreamTrimmedError",
        "TransientError",
        "WorkerFailedError",
    ),
    "projector.runtime": ("Projector",),
    "projector.settings": ("Settings",),
    "projector.queries.statement": ("Answer",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
