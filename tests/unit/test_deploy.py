"""The files in docs/deploy are consistent with the projector, and the installed tools accept them."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import program
import pytest
import typer
import yaml

from projector.cli.exit_codes import EXIT_FATAL, EXIT_USAGE
from projector.cli.main import app
from projector.dev.embedded import _nats_executable
from projector.monitoring.liveness import HEARTBEAT_PERIOD_S
from projector.settings import CONFIG_VARIABLE, ENVIRONMENT_PREFIX, SETTINGS
from projector.settings.urls import http_address

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
ALERTS = DEPLOY / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
DOCKERFILE = DEPLOY / "Dockerfile"
RUNBOOK = ROOT / "docs" / "how-to" / "alerts.md"

VARIABLES = {CONFIG_VARIABLE} | {setting.variable for setting in SETTINGS.values()}


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    return [rule for group in loaded(ALERTS)["groups"] for rule in group["rules"]]


def run(tool: str, *arguments: object) -> str:
    """Run a tool that accepts its input, and return what it printed; skip if it is not installed."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed")
    ended = subprocess.run(
        [found, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


# Alerts and dashboard.


def queries(where: Any) -> Iterator[str]:
    """Yield every query of a dashboard, as Prometheus would be asked it."""
    if isinstance(where, dict):
        if isinstance(query := where.get("expr"), str):
            yield query.replace("$job", "projector").replace("$__rate_interval", "1m")
        where = list(where.values())
    if isinstance(where, list):
        for inner in where:
            yield from queries(inner)


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def named_metrics() -> set[str]:
    """Return the metrics of alerts and dashboard; a histogram's parts count as the histogram."""
    asked = " ".join([*(rule["expr"] for rule in rules()), *queries(dashboard())])
    names = set(re.findall(r"\b(?:projector|process)_[a-z_]+\b", asked))
    return {
        re.sub(r"^(projector_(?:batch_messages|stage_seconds))_(?:bucket|sum|count)$", r"\1", name) for name in names
    }


def test_every_queried_metric_is_documented() -> None:
    documented = {metric.name for metric in program.metrics()}
    assert len(named_metrics()) > 20
    assert named_metrics() <= documented


def test_every_alert_has_severity_summary_and_runbook() -> None:
    headings = re.findall(r"^### (.+)$", RUNBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (ROOT / file) == RUNBOOK
        assert rule["alert"] in headings
        assert anchor == rule["alert"].lower()


def test_every_documented_alert_exists() -> None:
    explained = re.findall(r"^### (Projector\w+)$", RUNBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert explained == [rule["alert"] for rule in rules()]


def test_promtool_accepts_the_alerts_and_the_settings_of_prometheus() -> None:
    run("promtool", "check", "rules", ALERTS)
    run("promtool", "check", "config", DEPLOY / "prometheus.yaml")


def test_the_alerts_fire_when_they_should() -> None:
    run("promtool", "test", "rules", DEPLOY / "alerts.test.yaml")


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    tests = (DEPLOY / "alerts.test.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r'alertname="(\w+)"', tests)) == {rule["alert"] for rule in rules()}


def test_promtool_accepts_every_query_of_the_dashboard(tmp_path: Path) -> None:
    asked = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries(dashboard()))]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": asked}]}), encoding="utf-8")
    assert f"{len(asked)} rules found" in run("promtool", "check", "rules", path)


def test_dashboard_queries_the_selected_prometheus() -> None:
    def sources(where: Any) -> Iterator[Any]:
        if isinstance(where, dict):
            if "datasource" in where:
                yield where["datasource"]
            where = list(where.values())
        if isinstance(where, list):
            for inner in where:
                yield from sources(inner)

    assert {json.dumps(source) for source in sources(dashboard())} == {
        json.dumps({"type": "prometheus", "uid": "${datasource}"})
    }
    variables = [variable["name"] for variable in dashboard()["templating"]["list"]]
    assert variables == ["datasource", "job"]


def test_dashboard_panels_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == [
        "Is it healthy?",
        "How fresh is the table?",
        "How fast is it?",
        "What is wrong?",
    ]
    covered = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(covered) == len(set(covered))
    assert max(x for x, _ in covered) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


# systemd.


def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "projector.service", encoding="utf-8")
    return parser


def test_unit_starts_a_valid_command_line() -> None:
    program, *arguments = shlex.split(unit()["Service"]["ExecStart"])
    assert Path(program).name == "projector"
    (command,) = arguments
    assert command in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert unit()["Service"]["Environment"].partition("=")[0] in VARIABLES


def test_watchdog_waits_longer_than_the_health_check() -> None:
    assert float(unit()["Service"]["WatchdogSec"]) > 2 * HEARTBEAT_PERIOD_S


def test_fatal_exit_is_not_restarted() -> None:
    assert unit()["Service"]["RestartPreventExitStatus"].split() == [str(EXIT_USAGE), str(EXIT_FATAL)]


def test_systemd_accepts_the_unit_and_rates_it_as_sandboxed(tmp_path: Path) -> None:
    written = (DEPLOY / "projector.service").read_text(encoding="utf-8")
    installed = tmp_path / "projector.service"
    installed.write_text(written.replace("/opt/projector/bin/projector", sys.executable), encoding="utf-8")
    assert run("systemd-analyze", "verify", installed) == ""
    said = run("systemd-analyze", "security", "--offline=true", installed)
    (exposure,) = re.findall(r"Overall exposure level for projector\.service: ([\d.]+)", said)
    assert float(exposure) < 2


# Containers.


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their arguments, each on one line."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, arguments) for name, _, arguments in (line.partition(" ") for line in joined.splitlines() if line)]


def test_image_is_built_from_existing_files_only() -> None:
    copied = {
        source
        for name, arguments in instructions()
        if name == "COPY" and not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_container_is_not_root_and_holds_no_secret() -> None:
    names = [name for name, _ in instructions()]
    assert names.count("FROM") == 2
    final = instructions()[max(at for at, name in enumerate(names) if name == "FROM") :]
    (user,) = [arguments for name, arguments in final if name == "USER"]
    assert int(user.partition(":")[0]) > 0
    assert not re.search(r"URL|PASSWORD|CREDENTIALS|NKEY|_KEY", " ".join(arguments for _, arguments in instructions()))


def test_container_health_check_uses_the_http_address() -> None:
    environment = dict(re.findall(rf"({ENVIRONMENT_PREFIX}\w+)=(\S+)", dict(instructions())["ENV"]))
    assert set(environment) <= VARIABLES
    address = http_address(environment["PROJECTOR_HTTP"])
    assert address is not None
    health = dict(instructions())["HEALTHCHECK"]
    assert f"http://127.0.0.1:{address[1]}/healthz" in health
    assert dict(instructions())["EXPOSE"] == str(address[1])


def services() -> dict[str, Any]:
    found: dict[str, Any] = loaded(DEPLOY / "compose.yaml")["services"]
    return found


def test_the_services_are_started_with_settings_and_commands_that_exist() -> None:
    ours = {name: service for name, service in services().items() if "build" in service}
    assert ours.keys() == {"init", "projector"}
    for service in ours.values():
        assert set(service["environment"]) <= VARIABLES
        (command,) = service["command"]
        assert command in typer.main.get_command(app).commands  # type: ignore[attr-defined]
        build = service["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert ROOT / build["dockerfile"] == DOCKERFILE


def test_every_mounted_path_exists() -> None:
    volumes = loaded(DEPLOY / "compose.yaml")["volumes"]
    mounted = [volume.split(":")[0] for service in services().values() for volume in service.get("volumes", [])]
    assert {source for source in mounted if not source.startswith(".")} == set(volumes)
    assert all((DEPLOY / source).is_file() for source in mounted if source.startswith("."))


def test_no_service_is_published_to_other_machines() -> None:
    assert all(port.startswith("127.0.0.1:") for service in services().values() for port in service.get("ports", []))


def test_prometheus_scrapes_the_addresses_of_the_daemons() -> None:
    (job,) = loaded(DEPLOY / "prometheus.yaml")["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == ["projector"]
    assert str(found["port"]) == dict(instructions())["EXPOSE"]
    assert "projector" in job["job_name"]


def test_compose_accepts_the_services(tmp_path: Path) -> None:
    # The name of the project is newer than the Compose of Debian.
    written = re.sub(r"^name: .*\n", "", (DEPLOY / "compose.yaml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    (tmp_path / "docs" / "deploy").mkdir(parents=True)
    path = tmp_path / "docs" / "deploy" / "compose.yaml"
    path.write_text(written, encoding="utf-8")
    (path.parent / ".env").write_text("POSTGRES_PASSWORD=p\nGRAFANA_PASSWORD=g\n", encoding="utf-8")
    resolved = yaml.safe_load(run("docker-compose", "--file", path, "--profile", "monitoring", "config"))
    assert resolved["services"].keys() == services().keys()
    assert resolved["services"]["projector"]["environment"]["PROJECTOR_DATABASE_URL"].endswith(":p@postgres/fleet")


def test_nats_accepts_its_configuration() -> None:
    assert "is valid" in run(str(_nats_executable()), "-t", "-c", DEPLOY / "nats.conf")
