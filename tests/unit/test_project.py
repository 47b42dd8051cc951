"""Project files that have to agree with each other: versions, changelog, decision records, make targets."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import projector
from projector.doctor.database import _OLDEST

ROOT = Path(__file__).parents[2]
VERSIONS = ROOT / "docs" / "reference" / "versions.md"
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))

BUNDLED = "bundled"


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    return found


@pytest.fixture(scope="module")
def matrix() -> list[dict[str, str]]:
    workflow = yaml.safe_load(text(ROOT / ".github" / "workflows" / "ci.yml"))
    found: list[dict[str, str]] = workflow["jobs"]["test"]["strategy"]["matrix"]["include"]
    return found


def documented(component: str) -> list[str]:
    """Return the first column of the table of a component."""
    (table,) = re.findall(rf"^\| {component} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text(VERSIONS), flags=re.MULTILINE)
    return re.findall(r"^\| (\S+) \|", table, flags=re.MULTILINE)


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


# Supported versions.


@pytest.mark.parametrize(("component", "parts"), [("Python", 2), ("Postgres", 1), ("NATS", 2)])
def test_the_hosted_workflow_runs_every_supported_version_and_no_other(
    component: str, parts: int, matrix: list[dict[str, str]]
) -> None:
    run = {as_numbers(job[component.lower()])[:parts] for job in matrix if job[component.lower()] != BUNDLED}
    assert sorted(run) == [as_numbers(version) for version in documented(component)]


def test_the_package_requires_the_oldest_supported_python_and_classifies_no_unsupported_one(
    project: dict[str, Any],
) -> None:
    supported = documented("Python")
    assert project["requires-python"] == f">={supported[0]}"
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert classified == supported[: len(classified)]
    assert classified


def test_the_doctor_refuses_exactly_what_is_older_than_the_oldest_supported_postgres() -> None:
    assert as_numbers(documented("Postgres")[0]) == _OLDEST[:1]


# Changelog.

CHANGES = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def test_the_changelog_has_an_unreleased_section_then_dated_releases_newest_first() -> None:
    unreleased, *released = re.findall(r"^## (.+)$", text(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)
    assert unreleased == "[Unreleased]"
    matches = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})", heading) for heading in released]
    releases = [(as_numbers(match[1]), match[2]) for match in matches if match]
    assert len(releases) == len(released)
    assert releases == sorted(releases, reverse=True)
    assert {*re.findall(r"^### (.+)$", text(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)} <= {*CHANGES}


def test_the_version_of_the_package_is_the_latest_release_or_later() -> None:
    latest = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", text(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)[0]
    release, _, development = projector.__version__.partition(".dev")
    if development:
        assert as_numbers(release) > as_numbers(latest)
    else:
        assert release == latest


def test_the_security_policy_supports_the_latest_minor_version() -> None:
    latest = re.findall(r"^## \[(\d+\.\d+)\.\d+\]", text(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)[0]
    assert f"| {latest} | yes |" in text(ROOT / "SECURITY.md")


# Decision records.


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.name)
def test_a_decision_record_has_a_status_a_date_and_its_alternatives(path: Path) -> None:
    written = text(path)
    head = re.match(
        r"# (\d+)\. .+\n\n"
        r"Status: (accepted|superseded by \[decision \d+\]\((.+\.md)\))\. Date: \d{4}-\d{2}-\d{2}\."
        r"( Supersedes \[decision \d+\]\(.+\.md\)\.)?\n",
        written,
    )
    assert head, f"{path.name} does not begin with its title, status and date"
    assert int(head[1]) == int(path.name[:4])
    sections = re.findall(r"^## (.+)$", written, flags=re.MULTILINE)
    assert sections == ["Context", "Decision", "Alternatives", "Consequence"]


# Documents at the root.


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_every_link_of_a_document_at_the_root_leads_to_a_file(name: str) -> None:
    without_code = re.sub(r"`[^`\n]+`", "", text(ROOT / name))
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code):
        assert target.startswith("https://") or (ROOT / target).is_file(), f"{name} links to {target}"


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/contributing/releasing.md"])
def test_every_make_target_in_the_contributing_guide_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), flags=re.MULTILINE))
    told = set(re.findall(r"(?:^|`)make ([a-z-]+)", text(ROOT / name), flags=re.MULTILINE))
    assert told
    assert told <= targets
