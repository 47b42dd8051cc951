"""The generated parts of the reference say what the code says."""

import re
from pathlib import Path

import program
import pytest
import reference

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCTOR = (ROOT / "docs" / "reference" / "doctor.md").read_text(encoding="utf-8")


def first_cells(markdown: str) -> list[str]:
    rows = [reference.cells(line) for line in markdown.splitlines() if line.startswith("| ")]
    return [row[0] for row in rows if row[0] != "---"]


def test_every_part_is_on_a_page_and_every_page_can_be_filled() -> None:
    written = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert set(re.findall(r"^<!-- generated: ([a-z-]+) -->$", written, flags=re.MULTILINE)) == set(reference.PARTS)
    for path in PAGES:
        assert "<!-- generated:" not in reference.fill(path.read_text(encoding="utf-8"))


def test_an_unknown_part_fails_the_build() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        reference.fill("<!-- generated: nonsense -->\n")


def test_settings_have_flag_variable_default_and_limits() -> None:
    rows = [reference.cells(line) for line in reference.PARTS["settings"]().splitlines()[2:]]
    assert len(rows) == len(program.settings())
    by_flag = {row[0]: row[1:] for row in rows}
    assert by_flag["`--stream`"] == ["`PROJECTOR_STREAM`", "`KAA_ENDPOINT_EVENTS`", "JetStream stream to follow."]
    assert by_flag["`--database-url`"][1] == "required"
    assert by_flag["`--batch-size`"][2].endswith("1 to 100,000.")


def test_no_default_of_a_setting_shows_a_mask_instead_of_the_value() -> None:
    assert "***" not in reference.PARTS["settings"]()


def test_every_command_has_a_section_with_its_options_and_without_the_settings() -> None:
    written = reference.PARTS["commands"]()
    names = [name for name, _ in reference.leaves(program.command_line(), "projector")]
    assert re.findall(r"^### (.+)$", written, flags=re.MULTILINE) == names
    assert "`--until-caught-up`" in written
    assert "`--nats-url" not in written
    assert "/root" not in written
    assert "/home" not in written


def test_a_required_option_and_an_argument_are_in_the_usage() -> None:
    written = reference.PARTS["commands"]()
    assert "projector wait --seq VALUE [OPTIONS] [SETTINGS]" in written
    assert "projector sql STATEMENT [SETTINGS]" in written
    assert "projector dead-letters retry [POSITIONS …] [OPTIONS] [SETTINGS]" in written


def test_a_command_without_settings_does_not_claim_to_take_them() -> None:
    assert "projector dev [OPTIONS]\n" in reference.PARTS["commands"]()


def test_metrics_have_type_labels_and_meaning() -> None:
    written = reference.PARTS["metrics"]()
    assert "| `projector_events_total` | counter | `type`, `verdict` |" in written
    assert "| `projector_stage_seconds` | histogram | `stage` |" in written
    assert all(reference.cells(line)[3] for line in written.splitlines())


def test_every_table_and_column_has_a_comment() -> None:
    written = reference.PARTS["tables"]()
    assert "None" not in written
    assert re.findall(r"^## (\w+)$", written, flags=re.MULTILINE) == list(program.TABLES)
    columns = sum(len(one.columns) for one in program.TABLES.values())
    assert len([cell for cell in first_cells(written) if cell != "column"]) == columns


def test_every_error_is_listed_in_its_family() -> None:
    written = reference.PARTS["errors"]()
    families = [kind.__name__ for kind in program.families()]
    assert re.findall(r"^### (\w+)$", written, flags=re.MULTILINE) == families
    named = {*families, *(cell.strip("`") for cell in first_cells(written) if cell != "error")}
    assert named == {kind.__name__ for kind in program.subclasses(program.ProjectorError)}


def test_the_attributes_of_an_error_are_listed() -> None:
    assert "`checkpoint`, `first`" in reference.PARTS["errors"]()


def test_findings_get_severity_and_remedy_from_the_code() -> None:
    written = reference.complete(DOCTOR)
    for check in program.CHECKS:
        (row,) = [line for line in written.splitlines() if line.startswith(f"| `{check.name}` |")]
        assert reference.cells(row)[1::2] == [check.severity, check.remedy]


def test_a_finding_that_is_missing_fails_the_build() -> None:
    without = re.sub(r"^\| `fsync-off`.*\n", "", DOCTOR, flags=re.MULTILINE)
    with pytest.raises(ValueError, match="fsync-off"):
        reference.complete(without)


def test_every_known_fault_of_a_server_is_listed() -> None:
    assert len(reference.PARTS["server-faults"]().splitlines()) == len(program.NATS_FAULTS) + 2
