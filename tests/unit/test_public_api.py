"""The public names: each can be imported, and what is listed, typed and loaded is the same."""

import ast
import inspect
import re
from pathlib import Path
from typing import get_args

import pytest

import projector
from projector import errors

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"


def is_error(name: str) -> bool:
    value = getattr(projector, name)
    return inspect.isclass(value) and issubclass(value, Exception)


def typed_names() -> set[str]:
    """The names that type checkers see."""
    tree = ast.parse(Path(projector.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_every_public_name_can_be_imported_and_is_typed() -> None:
    assert sorted(projector.__all__) == projector.__all__
    assert {getattr(projector, name) for name in projector.__all__}
    assert {*projector.__all__} - {"__version__"} == typed_names() == {*projector._MODULE_OF}


def documented_names(text: str) -> list[str]:
    """The public names that a part of the reference documents, in its order."""
    return re.findall(r"^::: projector\.(\w+)$", text, flags=re.MULTILINE)


def test_every_public_name_is_in_the_reference() -> None:
    assert sorted([*documented_names(REFERENCE.read_text(encoding="utf-8")), "__version__"]) == projector.__all__


def test_the_reference_lists_notifications_and_errors_under_their_headings() -> None:
    _, *parts = re.split(r"^## (.+)$", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = {heading: documented_names(text) for heading, text in zip(parts[::2], parts[1::2], strict=True)}
    kinds = [kind.__name__ for kind in get_args(projector.Notification)]
    assert sorted(sections["Notifications"]) == sorted(["Notification", *kinds])
    assert sections["Errors"] == sorted(name for name in projector.__all__ if is_error(name))


def test_every_public_name_but_errors_is_used_by_the_types_of_the_api() -> None:
    tree = ast.parse((Path(__file__).parents[1] / "typing" / "api.py").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "projector"]
    imported = {alias.name for node in imports for alias in node.names}
    assert {name for name in projector.__all__ if not is_error(name)} <= imported


def test_every_error_is_public() -> None:
    kinds = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert kinds <= {*projector.__all__}


def test_private_name_is_not_importable() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Runtime'"):
        projector.Runtime  # noqa: B018
    with pytest.raises(ImportError):
        from projector import Runtime  # noqa: F401, PLC0415
    assert "Projector" in dir(projector)
