"""The columns of each facet in `endpoint_state`, and how they derive from its state.

A facet has derived columns, which users query,
and one column of registers: its whole state as JSON, loaded to fold on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec import Raw
from sqlalchemy import BigInteger, Column, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from projector.domain import application, configuration, connectivity, metadata, registration
from projector.domain.endpoint import FACETS
from projector.domain.facets import Facet
from projector.domain.metadata import Metadata

TIME = TIMESTAMP(timezone=True)

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FacetColumns:
    """The columns of one facet."""

    facet: Facet[Any]
    columns: tuple[Column[Any], ...]
    values: Callable[[Any], Row]
    """Returns the values of `columns` for a state, in their order; times in Unix ms."""
    registers: Column[Any]

    @property
    def all_columns(self) -> tuple[Column[Any], ...]:
        """The derived columns, then the registers."""
        return (*self.columns, self.registers)


def required(name: str, kind: Any, comment: str, default: str | None = None, **options: Any) -> Column[Any]:
    """Return a column that is never null; `default` is an SQL expression."""
    server_default = None if default is None else text(default)
    return Column(name, kind, nullable=False, server_default=server_default, comment=comment, **options)


def _facet(facet: Facet[Any], *columns: Column[Any], values: Callable[[Any], Row] | None = None) -> FacetColumns:
    registers = Column(
        f"{facet.name}_registers",
        Text,  # not JSONB: it is read and written as a whole, so parsing it would only cost time
        comment=f"Internal: the registers from which the {facet.name} columns derive. "
        "Each value with its stamp: [stream sequence, Unix ms, originator, replica]",
    )
    return FacetColumns(facet=facet, columns=columns, values=values or facet.values, registers=registers)


_CONNECTIVITY = _facet(
    connectivity.FACET,
    required("connectivity_status", Text, "unknown, connected or disconnected", "'unknown'"),
    Column("connectivity_changed_at", TIME, comment="Time of the connect or disconnect that decides the status"),
    Column("connected_at", TIME, comment="Time of the latest connect"),
    Column("disconnected_at", TIME, comment="Time of the latest disconnect that was applied"),
    Column("connected_originator", Text, comment="Service instance that holds the latest session"),
    Column("connected_replica", Text, comment="Replica of that instance; null: unknown"),
)

_APPLICATION = _facet(
    application.FACET,
    Column("app_version", Text, comment="Application version that the endpoint runs"),
    Column("app_version_changed_at", TIME, comment="Time of the latest event that named the version"),
    Column("previous_app_version", Text, comment="Application version before the latest update"),
)

_REGISTRATION = _facet(
    registration.FACET,
    required("registration_status", Text, "unknown, registered or unregistered", "'unknown'"),
    Column("registered_at", TIME, comment="Time of the registration; null once the endpoint was unregistered"),
    Column(
        "unregistered_at",
        TIME,
        comment="Time of the latest unregistration: nothing that it supersedes is in any column",
    ),
)


def _metadata(state: Metadata) -> Row:
    texts, changed_at = metadata.values(state)
    return {name: None if text is None else Raw(text) for name, text in texts.items()}, changed_at


_METADATA = _facet(
    metadata.FACET,
    required(
        "metadata", JSONB, "Metadata keys and their values; null where the protocol carries no value", "'{}'::jsonb"
    ),
    Column("metadata_changed_at", TIME, comment="Time of the latest metadata event"),
    values=_metadata,
)

_CONFIGURATION = _facet(
    configuration.FACET,
    required(
        "config_status",
        Text,
        "none, pending (the available configuration is not the applied one), applied, "
        "or failed (neither confirmed nor announced anew since the failure)",
        "'none'",
    ),
    Column("config_available_id", Text, comment="Latest announced configuration; empty: none is assigned"),
    Column("config_available_at", TIME, comment="Time of its announcement"),
    Column("config_applied_id", Text, comment="Latest confirmed configuration; empty: that there is none"),
    Column("config_applied_at", TIME, comment="Time of its confirmation"),
    Column("config_pending_id", Text, comment="The available configuration while it is pending, else null"),
    Column("config_failed_id", Text, comment="Latest configuration that failed, whatever the status"),
    Column("config_failed_at", TIME, comment="Time of that failure"),
    Column("config_failure_code", Integer, comment="Status code of that failure"),
    Column("config_failure_reason", Text, comment="Reason of that failure; null: none was given"),
)

FACET_COLUMNS = (_CONNECTIVITY, _APPLICATION, _REGISTRATION, _METADATA, _CONFIGURATION)
"""One for each of `FACETS`, in the same order."""

if tuple(columns.facet for columns in FACET_COLUMNS) != FACETS or any(
    tuple(column.name for column in columns.columns) != columns.facet.columns for columns in FACET_COLUMNS
):
    raise AssertionError("every facet of the domain needs its columns, in the same order")

ENDPOINT_ID = Column("endpoint_id", Text, primary_key=True, comment="Endpoint id, as its events name it")

LAST_EVENT = (
    required(
        "last_event_seq", BigInteger, "Stream sequence of the latest event that named the endpoint, applied or not"
    ),
    required("last_event_at", TIME, "Time of that event"),
)

_ADDED = (
    "registration_status",
    "unregistered_at",
    "registration_registers",
    "config_failed_id",
    "config_failed_at",
    "config_failure_code",
    "config_failure_reason",
)
"""Columns that were added to a table with rows, in that order: Postgres appends a new column to the others."""

ENDPOINT_COLUMNS: tuple[Column[Any], ...] = tuple(
    sorted(
        (
            ENDPOINT_ID,
            *(column for facet in FACET_COLUMNS for column in facet.columns),
            *LAST_EVENT,
            *(facet.registers for facet in FACET_COLUMNS),
        ),
        key=lambda column: _ADDED.index(column.name) if column.name in _ADDED else -1,
    )
)
"""All columns, in the order of the table."""
