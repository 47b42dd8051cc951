"""Every method of the ports with two implementations has a conformance case."""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

from projector.app import ports
from projector.app.dead_letters import RetryStore
from projector.app.explain import Records
from projector.app.feed import ChangeLog, ChangeStream

CASES = Path(__file__).parents[1] / "conformance"
EXCEPT = {
    "Decoder": "has one implementation, which the tests of the codec test",
    "OpenSource": "has no named method: every case of a stream calls the `open` of the stream under test",
}


def is_port(found: type[Any]) -> bool:
    return found.__module__ == ports.__name__ and bool(getattr(found, "_is_protocol", False))


PORTS: list[type[Any]] = [
    *(found for _, found in inspect.getmembers(ports, inspect.isclass) if is_port(found)),
    RetryStore,
    Records,
    ChangeLog,
    ChangeStream,
]
METHODS = [
    (port.__name__, name)
    for port in PORTS
    for name in vars(port)
    if not name.startswith("_") and port.__name__ not in EXCEPT
]


@pytest.fixture(scope="module")
def named() -> set[str]:
    """The attributes that the cases name, of any object: a method that shares its name with another may go untested."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in CASES.glob("test_*.py")]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_the_exceptions_are_ports() -> None:
    assert EXCEPT.keys() <= {port.__name__ for port in PORTS}


@pytest.mark.parametrize(("port", "method"), METHODS)
def test_a_method_of_a_port_has_a_conformance_case(port: str, method: str, named: set[str]) -> None:
    assert method in named, f"no case of tests/conformance names {port}.{method}"
