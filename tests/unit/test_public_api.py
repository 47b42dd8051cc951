"""The public names: each can be imported, and what is listed, typed and loaded is the same."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import projector
from projector import errors


def typed_names() -> set[str]:
    """The names that type checkers see."""
    tree = ast.parse(Path(projector.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_every_public_name_can_be_imported_and_is_typed() -> None:
    assert sorted(projector.__all__) == projector.__all__
    assert {getattr(projector, name) for name in projector.__all__}
    assert {*projector.__all__} - {"__version__"} == typed_names() == {*projector._MODULE_OF}


def test_every_public_name_is_in_the_reference() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "api.md"
    documented = re.findall(r"^::: projector\.(\w+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted([*documented, "__version__"]) == projector.__all__


def test_every_error_is_public() -> None:
    kinds = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert kinds <= {*projector.__all__}


def test_private_name_is_not_importable() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Runtime'"):
        projector.Runtime  # noqa: B018
    with pytest.raises(ImportError):
        from projector import Runtime  # noqa: F401, PLC0415
    assert "Projector" in dir(projector)
