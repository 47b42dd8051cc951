"""Hooks of MkDocs: fill the reference from the code, and bring in what stands outside of `docs/`."""

import posixpath
import re
from pathlib import Path
from typing import Any

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_FROM_CHECKOUT = ("CHANGELOG.md", "benchmarks/results/results.md", "benchmarks/results/results.svg")
"""Files of the checkout that pages link to, and that the site has at the same path."""
_LINK = re.compile(r"(?<=\]\()(\.\./[^)\s#]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List every decision record in the navigation."""
    for section in config.nav or ():
        if isinstance(section, dict) and "Decisions" in section:
            section["Decisions"] = reference.decisions(Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the checkout that pages link to."""
    root = Path(config.docs_dir).parent
    for path in _FROM_CHECKOUT:
        files.append(File.generated(config, path, abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Fill in what the code says, and redirect links out of `docs/` to what the site has instead."""
    try:
        filled = reference.complete(reference.fill(markdown))
    except (KeyError, ValueError) as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error
    folder = posixpath.dirname(page.file.src_uri)

    def within(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", folder, link[1]))
        return posixpath.relpath(target, folder or ".") if target in _FROM_CHECKOUT else link[1]

    return _LINK.sub(within, filled)
