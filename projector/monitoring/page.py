"""The page at `/`, and the policy under which a browser runs what is in it and nothing else."""

import base64
import hashlib
import re
from importlib import resources
from typing import NamedTuple


class Page(NamedTuple):
    """One file, with its script and its style inside."""

    html: str
    policy: str
    """Its Content-Security-Policy."""


def load() -> Page:
    """Return the page as it is installed."""
    html = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    directives = (
        "default-src 'none'",
        f"script-src {_hash_of('script', html)}",
        f"style-src {_hash_of('style', html)}",
        "img-src data:",  # the icon in the browser's tab
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
