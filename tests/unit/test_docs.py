"""Fails the build if the docs contradict the code; test_reference.py tests the generated parts."""

import importlib
import json
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import program
import pytest
import reference

import projector
from projector.domain.endpoint import Endpoint, fold
from projector.domain.messages import Message, Skipped
from projector.storage.columns import FACET_COLUMNS
from projector.storage.tables import endpoint_state, metadata
from projector.storage.wire import encode_json
from projector.stream import subjects
from projector.stream.codec import Codec
from projector.stream.protocol import REVISIONS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
COMMAND_LINE = DOCS / "reference" / "command-line.md"
HTTP = DOCS / "reference" / "http.md"
LOG = DOCS / "reference" / "log.md"
TROUBLESHOOT = DOCS / "how-to" / "troubleshoot.md"
DEAD_LETTERS = DOCS / "how-to" / "dead-letters.md"
SEMANTICS = DOCS / "explanation" / "semantics.md"
DOCUMENTS = (README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))

Cells = list[str]


def text(*paths: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def tables(path: Path) -> Iterator[list[Cells]]:
    """Yield the tables of a document, each as rows of cells, the first row being the heads."""
    yield from tables_in(text(path))


def tables_in(written: str) -> Iterator[list[Cells]]:
    for block in re.findall(r"(?:^\|.*\|\n)+", written, flags=re.MULTILINE):
        heads, _, *rows = block.splitlines()
        yield [[cell.strip() for cell in line[1:-1].split("|")] for line in (heads, *rows)]


def table(path: Path, *heads: str) -> list[Cells]:
    """Return the rows of the one table with these heads, or of all of them together."""
    found = [row for head, *rows in tables(path) if tuple(head) == heads for row in rows]
    assert found, f"{path.name} has no table with the columns {heads}"
    return found


def outside_blocks(path: Path) -> str:
    return re.sub(r"^```.*?^```$", "", text(path), flags=re.MULTILINE | re.DOTALL)


def quoted(path: Path) -> Iterator[str]:
    """Yield the texts in backticks."""
    yield from re.findall(r"`([^`\n]+)`", outside_blocks(path))


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# The command line.


def commands() -> set[str]:
    return {name for name, _ in reference.leaves(program.command_line(), "projector")}


@every_document
def test_every_command_and_every_option_that_is_named_exists(path: Path) -> None:
    known = commands() | {"projector dead-letters", "projector COMMAND"}
    written = text(path)
    named = re.findall(r"(?<![\w/-])projector (?:(dead-letters) )?([a-z][a-z-]*)(?=[ `\n])", "\n".join(shell(written)))
    assert {f"projector {f'{group} ' if group else ''}{name}" for group, name in named} <= known
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", written)) - {"--help"}
    assert options <= set(known_options(program.command_line()))


def shell(written: str) -> Iterator[str]:
    """Yield the lines of shell blocks, and the texts in backticks."""
    for block in re.findall(r"^```sh\n(.*?)^```$", written, flags=re.MULTILINE | re.DOTALL):
        yield from (f"{line} " for line in block.splitlines())
    yield from (f"{span}`" for span in re.findall(r"`(projector [^`\n]+)`", written))


def known_options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (option for option in parameter.opts if option.startswith("--"))
    for own in getattr(command, "commands", {}).values():
        yield from known_options(own)


@every_document
def test_every_setting_that_is_named_exists(path: Path) -> None:
    known = {f"{program.ENVIRONMENT_PREFIX}{name.upper()}" for name in program.settings()} | {"PROJECTOR_CONFIG"}
    assert set(re.findall(r"\bPROJECTOR_[A-Z_]+\b", text(path))) <= known


@pytest.mark.parametrize("path", [README, COMMAND_LINE, TROUBLESHOOT], ids=lambda path: path.name)
def test_the_exit_codes_are_those_of_the_command_line(path: Path) -> None:
    codes = [int(code) for code, _ in table(path, "exit code", "meaning")]
    assert codes == list(program.EXIT_CODES)


def test_the_status_fields_in_the_docs_are_those_of_the_code() -> None:
    documented = [name for row in table(COMMAND_LINE, "field", "meaning") for name in names_in(row[0])]
    assert documented == list(program.STATUS_FIELDS)


def test_the_log_events_in_the_docs_are_those_of_the_code() -> None:
    documented = [name for row in table(LOG, "event", "meaning") for name in names_in(row[0])]
    assert sorted(documented) == sorted(set(program.log_events()))


def test_the_http_endpoints_in_the_docs_are_those_of_the_code() -> None:
    documented = [name for row in table(HTTP, "endpoint", "answer") for name in names_in(row[0])]
    assert documented == list(program.http_endpoints())


# Errors.


def test_every_fatal_error_has_a_section_with_its_remedy() -> None:
    headings = re.findall(r"^### (\w+Error)$", text(TROUBLESHOOT), flags=re.MULTILINE)
    assert headings == [kind.__name__ for kind in program.subclasses(program.FatalError)]


def test_every_reason_to_park_a_message_is_documented() -> None:
    documented = [row[0].strip("`") for row in table(DEAD_LETTERS, "reason", "cause")]
    assert documented == list(program.POISON_REASONS)


@every_document
def test_every_error_that_is_named_exists(path: Path) -> None:
    known = {"ProjectorError", *(kind.__name__ for kind in program.subclasses(program.ProjectorError))}
    assert set(re.findall(r"\b[A-Z]\w+Error\b", text(path))) <= known


# The columns.


def test_semantics_lists_the_events_that_set_every_column() -> None:
    documented = [name for row in table(SEMANTICS, "column", "set by") for name in names_in(row[0])]
    registers = [facet.registers.name for facet in FACET_COLUMNS]
    columns = [column.name for column in endpoint_state.columns if column.name not in registers]
    assert sorted(documented) == sorted(columns)
    assert all(f"`{name}`" in text(SEMANTICS) for name in registers)


def test_semantics_lists_the_facts_of_each_event_type_and_revision() -> None:
    facts = table(SEMANTICS, "fact", *REVISIONS)
    for column, revision in enumerate(REVISIONS.values(), start=1):
        assert {name for row in facts for name in names_in(row[column])} == set(revision.event_types)


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)

every_revision = pytest.mark.parametrize("revision", REVISIONS)


def unix_ms(time: str) -> int:
    hours, minutes, seconds = map(int, time.split(":"))
    midnight = NOON.replace(hour=0)
    return int((midnight + timedelta(hours=hours, minutes=minutes, seconds=seconds)).timestamp() * 1000)


def section(revision: str) -> str:
    """Return the section with the worked example of a revision."""
    _, _, rest = text(SEMANTICS).partition(f"## Example: {revision}\n")
    assert rest
    return rest.partition("\n## ")[0]


def example_table(revision: str, *heads: str) -> list[Cells]:
    (rows,) = [rows for head, *rows in tables_in(section(revision)) if tuple(head) == heads]
    return rows


def fields(says: str) -> dict[str, Any]:
    """Return the fields of an event of the worked example, written as JSON or as name=value."""
    if says.startswith("`"):
        found: dict[str, Any] = json.loads(says.strip("`"))
        return found
    name, _, value = says.partition("=")
    return {name: value.split(",") if name in ("removed", "added", "updated") else value} if name else {}


# What the events of the example leave out, and their schemas have no default for.
REST: dict[str, dict[str, Any]] = {
    "kaa-2017-04": {"removed": [], "added": [], "updated": [], "endpointId": "meter-7", "endpointIds": ["meter-7"]},
    "kaa-2020-05": {
        "correlationId": "",
        "appVersionName": "",
        "removed": {},
        "added": {},
        "updated": {},
        "content": b"",
    },
}


def example(revision: str) -> list[tuple[Message, str]]:
    """Return the messages of the worked example, and what is said to have come of each."""
    codec = Codec(revision, ROOT / "schemas")
    found = []
    stored_at = 0
    heads = ("position", "type", "originator", "replica", "time", "fields", "verdict")
    for position, type_, originator, replica, time, says, verdict in example_table(revision, *heads):
        record: dict[str, Any] = {"timestamp": unix_ms(time), "originatorReplicaId": replica}
        record |= REST[revision] | fields(says)
        (event_type,) = names_in(type_)
        stored_at = max(stored_at, record["timestamp"]) + 5
        payload = codec.encode(event_type, record)
        message = Message(int(position), stored_at, subjects.build(originator, event_type), payload)
        found.append((message, verdict))
    return found


@cache
def folded_example(revision: str) -> tuple[Endpoint, tuple[str, ...]]:
    """Fold the worked example; return the endpoint, and the verdict on each message."""
    codec = Codec(revision, ROOT / "schemas")
    endpoints: dict[str, Endpoint] = defaultdict(Endpoint.unseen)
    verdicts = []
    for message, _ in example(revision):
        events = codec.decode(message)
        assert not isinstance(events, Skipped)
        ((_, verdict),) = fold(events, endpoints)
        verdicts.append(verdict.value)
    return endpoints["meter-7"], tuple(verdicts)


@every_revision
def test_verdicts_of_the_example_are_those_in_its_table(revision: str) -> None:
    _, verdicts = folded_example(revision)
    assert [said for _, said in example(revision)] == list(verdicts)


@every_revision
def test_row_of_the_example_is_the_one_its_events_imply(revision: str) -> None:
    endpoint, _ = folded_example(revision)
    row: dict[str, Any] = {"endpoint_id": "meter-7"}
    for state, facet in zip(endpoint.states, FACET_COLUMNS, strict=True):
        row |= zip((column.name for column in facet.columns), facet.values(state), strict=True)
    row |= {"last_event_seq": endpoint.last_event_seq, "last_event_at": endpoint.last_event_at}

    def written(name: str, value: Any) -> object:
        if value is None:
            return "null"
        if name.endswith("_at"):
            return f"{datetime.fromtimestamp(value / 1000, UTC):%H:%M:%S}"
        return exact(encode_json(value)) if isinstance(value, dict) else str(value)

    documented = {
        name.strip("`"): exact(value) if value.startswith("{") else value
        for name, value in example_table(revision, "column", "value")
    }
    assert documented == {name: written(name, value) for name, value in row.items()}
    assert list(documented) == list(row)


def exact(written: str | bytes) -> object:
    """Read JSON in which a number is the text that it is."""
    return json.loads(written, parse_int=str, parse_float=str)


@every_revision
def test_the_registers_that_are_shown_are_those_of_the_example(revision: str) -> None:
    endpoint, _ = folded_example(revision)
    (block,) = re.findall(r"^```json\n(.*?)^```$", section(revision), flags=re.MULTILINE | re.DOTALL)
    by_name = {columns.registers.name: state for columns, state in zip(FACET_COLUMNS, endpoint.states, strict=True)}
    assert json.loads(block) == json.loads(encode_json(by_name["metadata_registers"]))


# Links and names.


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", reference.fill(outside_blocks(path)), flags=re.MULTILINE)
    return {slug(heading) for heading in headings}


@every_document
def test_every_link_within_the_project_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", outside_blocks(path)):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        where = (path.parent / file).resolve() if file else path
        assert where.exists(), f"{path.name} links to {target}"
        assert where.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(where), f"{path.name} links to {target}"


def test_every_decision_record_has_a_unique_number() -> None:
    names = [path.name for path in (ROOT / "docs" / "decisions").iterdir()]
    assert all(re.match(r"\d{4}-", name) for name in names)
    assert len({name[:4] for name in names}) == len(names)
    for name in names:
        written = text(ROOT / "docs" / "decisions" / name)
        assert written.startswith(f"# {int(name[:4])}. ")
        assert re.findall(r"^## (\w+)$", written, flags=re.MULTILINE) == [
            "Context",
            "Decision",
            *(["Alternatives"] if "\n## Alternatives\n" in written else []),
            "Consequence",
        ]


FILE_ENDINGS = ("py", "md", "toml", "ini", "avsc", "jsonl")
FOLDERS = ("app", "benchmarks", "docs", "domain", "migrations", "projector", "schemas", "storage", "stream", "tests")
NOT_OURS = {"projector.toml", "postmaster.pid"}
"""Files that are named and are not in the repository."""


def is_path(name: str) -> bool:
    if not re.fullmatch(r"[\w./-]+", name) or name.startswith(("/", "~")):
        return False
    return name.partition("/")[0] in FOLDERS if "/" in name else name.rpartition(".")[2] in FILE_ENDINGS


@every_document
def test_every_path_that_is_named_exists(path: Path) -> None:
    for name in filter(is_path, quoted(path)):
        # A bare file name is that of a file in the folder that the sentence is about.
        places = [ROOT / name, ROOT / "projector" / name]
        assert (
            name in NOT_OURS
            or any(place.exists() for place in places)
            or ("/" not in name and any((ROOT / "projector").rglob(name)))
        ), f"{path.name} names {name}"


@cache
def modules() -> dict[str, ModuleType]:
    """Return every module by its name without that of the package, and by each shorter end of it."""
    found: dict[str, ModuleType] = {}
    for info in pkgutil.walk_packages(projector.__path__, "projector."):
        if info.name == "projector.__main__":
            continue
        module = importlib.import_module(info.name)
        parts = info.name.split(".")
        found |= {".".join(parts[start:]): module for start in range(len(parts))}
    return found


@cache
def classes() -> dict[str, list[type]]:
    found: dict[str, list[type]] = defaultdict(list)
    for module in set(modules().values()):
        for name, value in vars(module).items():
            if isinstance(value, type):
                found[name].append(value)
    return found


def has(owner: object, path: Iterable[str]) -> bool:
    for name in path:
        if isinstance(owner, type) and name in {
            *getattr(owner, "__dataclass_fields__", {}),
            *getattr(owner, "__annotations__", {}),
        }:
            return True
        if not hasattr(owner, name):
            return False
        owner = getattr(owner, name)
    return True


def exists(name: str) -> bool:
    """Tell whether a dotted name is one of the code, of the tables, of Postgres or of the protocol."""
    parts = name.split(".")
    if any(name in revision.event_types for revision in REVISIONS.values()):
        return True
    if parts[0] in metadata.tables:
        return parts[1] in metadata.tables[parts[0]].columns
    if parts[0].startswith("pg_") or parts[0] == "citus":
        return True
    owners: list[Any] = list(classes().get(parts[0], ()))
    if any(has(owner, parts[1:]) for owner in owners):
        return True
    ends = range(len(parts), 0, -1)
    return any(
        ".".join(parts[:end]) in modules() and has(modules()[".".join(parts[:end])], parts[end:]) for end in ends
    )


@every_document
def test_every_dotted_name_exists(path: Path) -> None:
    for name in quoted(path):
        # Subjects in capitals only are those of the NATS API.
        if re.fullmatch(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", name) and not (
            name.isupper() or name in NOT_OURS or is_path(name)
        ):
            assert exists(name), f"{path.name} names {name}"


@every_document
def test_every_table_that_is_named_exists(path: Path) -> None:
    known = {
        *metadata.tables,
        "endpoint_state_at",
        "endpoint_state_batch",
        "endpoint_state_rebuild",
        "dead_letter_rebuild",
        "projector_migration",
    }
    named = re.findall(r"\b(?:endpoint_state|dead_letter|projector_checkpoint)(?:_\w+)?\b", text(path))
    not_tables = {"dead_letters_by_reason", "dead_letters", "projector_checkpoint_position"}
    assert set(named) - not_tables <= known
