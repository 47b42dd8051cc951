"""Where files that are not code lie."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).parent
_NAME = "endpoint-state-projector"
_SYSTEM_FOLDER = Path("/var/lib") / _NAME


def folder(name: str) -> Path:
    """Return the folder `migrations` or `schemas`: at the top of a checkout, inside an installed package."""
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def data_folder() -> Path:
    """Return where `projector dev` keeps its servers' data, and how to reach them, unless told otherwise."""
    if os.geteuid() == 0:
        # Postgres gives root up, and would need the parents of a folder in root's home opened to everybody.
        return _SYSTEM_FOLDER
    import platformdirs

    try:
        return platformdirs.user_data_path(_NAME)
    except RuntimeError:  # a service of systemd runs as a user without a home
        return _SYSTEM_FOLDER
