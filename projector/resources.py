"""Locations of the files that are not code."""

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
    """Return the default folder of `projector dev`: the data of its servers, and the settings that reach them."""
    if os.geteuid() == 0:
        # Postgres does not run as root: the parents of a folder in root's home would have to be opened to all users.
        return _SYSTEM_FOLDER
    import platformdirs

    try:
        return platformdirs.user_data_path(_NAME)
    except RuntimeError:  # a systemd service may run as a user without a home
        return _SYSTEM_FOLDER
