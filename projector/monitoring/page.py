"""The pages for a browser: their markup, scripts and styles, and the policy that allows these only."""

from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

_DIRECTIVES = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src data:",  # the icon of the browser tab
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
POLICY = "; ".join(_DIRECTIVES)
"""The Content-Security-Policy of every page."""

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


class File(NamedTuple):
    """A file for a browser."""

    text: str
    content_type: str


def load() -> Mapping[str, File]:
    """Load the files from the package, by name."""
    return {
        file.name: File(file.read_text(encoding="utf-8"), content_type)
        for file in resources.files(__package__).joinpath("browser").iterdir()
        for suffix, content_type in _TYPES.items()
        if file.name.endswith(suffix)
    }
