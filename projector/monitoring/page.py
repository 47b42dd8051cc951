"""The page at `/`, and the Content-Security-Policy that allows its own script and style only."""

import base64
import hashlib
import re
from importlib import resources
from typing import NamedTuple


class Page(NamedTuple):
    """A page in one file, with its script and style."""

    html: str
    policy: str
    """The Content-Security-Policy."""


def load() -> Page:
    """Load the page from the package."""
    html = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    directives = (
        "default-src 'none'",
        f"script-src {_hash_of('script', html)}",
        f"style-src {_hash_of('style', html)}",
        "img-src data:",  # the icon of the browser tab
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return Page(html, "; ".join(directives))


def _hash_of(element: str, html: str) -> str:
    (text,) = re.findall(f"<{element}>(.*?)</{element}>", html, flags=re.DOTALL)
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
