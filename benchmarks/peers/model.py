"""The table as an application declares it: the columns of `endpoint_state` that users query."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import DateTime, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The mappings of this application."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(),
    }


class Endpoint(Base):
    """One endpoint."""

    __tablename__ = "endpoint_state"

    endpoint_id: Mapped[str] = mapped_column(primary_key=True)
    connectivity_status: Mapped[str] = mapped_column(default="unknown")
    connectivity_changed_at: Mapped[datetime | None]
    connected_at: Mapped[datetime | None]
    disconnected_at: Mapped[datetime | None]
    connected_originator: Mapped[str | None]
    connected_replica: Mapped[str | None]
    app_version: Mapped[str | None]
    app_version_changed_at: Mapped[datetime | None]
    previous_app_version: Mapped[str | None]
    registered_at: Mapped[datetime | None]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    metadata_changed_at: Mapped[datetime | None]
    config_status: Mapped[str] = mapped_column(default="none")
    config_available_id: Mapped[str | None]
    config_available_at: Mapped[datetime | None]
    config_applied_id: Mapped[str | None]
    config_applied_at: Mapped[datetime | None]
    config_pending_id: Mapped[str | None]
    last_event_seq: Mapped[int]
    last_event_at: Mapped[datetime]


def engine_url(database_url: str) -> str:
    """Return the URL by which SQLAlchemy finds the database and its driver."""
    return database_url.replace("postgresql://", "postgresql+asyncpg://", 1)
