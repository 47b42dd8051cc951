"""A standby that is copied from a running Postgres."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from projector.dev.embedded import EmbeddedPostgres
from tests.support import servers

NAME = "standby_one"
"""For `synchronous_standby_names`."""

_BASE_BACKUP = servers.POSTGRES_BIN / "pg_basebackup"

needs_base_backup = pytest.mark.skipif(not _BASE_BACKUP.exists(), reason="this Postgres cannot copy itself")


@contextmanager
def standby_of(primary: EmbeddedPostgres, folder: Path) -> Iterator[EmbeddedPostgres]:
    """Copy a server into a new folder, and let the copy follow it."""
    user = primary._user or os.geteuid()
    folder.mkdir()
    shutil.chown(folder, user)
    source = f"host={primary._data} user=postgres application_name={NAME}"
    subprocess.run(
        [_BASE_BACKUP, "--pgdata", folder / "data", "--dbname", source, "--write-recovery-conf", "-c", "fast"],
        check=True,
        capture_output=True,
        cwd=folder,
        user=user,
    )
    for lock in (folder / "data").glob(".s.PGSQL.*"):  # the primary's socket is in its folder, too
        lock.unlink()
    with servers.postgres_copied(folder) as standby:
        yield standby
