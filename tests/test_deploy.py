"""What cannot be run without Docker is at least checked: structure, setting names, commands,
mounted files.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from freshet.cli.main import app
from freshet.stream.config import load

ROOT = Path(__file__).parent.parent
SERVICE_KEYS = {
    *(
        "build",
        "command",
        "depends_on",
        "deploy",
        "environment",
        "healthcheck",
        "image",
        "networks",
        "ports",
    ),
    *("profiles", "restart", "volumes"),
}
TOP_KEYS = {"name", "services", "volumes", "networks", "configs", "secrets"}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


def compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / name).read_text("utf-8"))
    return loaded


def ours() -> dict[str, dict[str, Any]]:
    return {
        name: service
        for name, service in compose()["services"].items()
        if service["image"] == "freshet"
    }


@pytest.mark.parametrize("name", ["docker-compose.yml", "deploy/docker-compose.gpu.yml"])
def test_the_compose_file_has_only_keys_of_the_compose_specification(name: str) -> None:
    loaded = compose(name)
    assert {key for key in loaded if not key.startswith("x-")} <= TOP_KEYS
    for service in loaded["services"].values():
        assert service.keys() <= SERVICE_KEYS


def test_the_docker_client_accepts_the_compose_files() -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("no docker compose client to parse the file with")
    for overlay in ([], ["-f", "deploy/docker-compose.gpu.yml"]):
        command = ["docker", "compose", "-f", "docker-compose.yml", *overlay, "config", "--quiet"]
        subprocess.run(command, check=True, cwd=ROOT, timeout=60)


def test_every_dependency_and_volume_exists() -> None:
    loaded = compose()
    for service in loaded["services"].values():
        needs = service.get("depends_on", {})
        assert set(needs) <= loaded["services"].keys()
        if isinstance(needs, dict):
            assert {need["condition"] for need in needs.values()} <= CONDITIONS
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in loaded["volumes"] or (ROOT / source).exists(), source


def test_every_environment_name_is_a_known_setting_with_a_valid_value() -> None:
    for service in ours().values():
        load(None, service["environment"])
    image = dict(
        re.findall(r"(FRESHET_\w+)=(\S+)", (ROOT / "deploy/Dockerfile").read_text("utf-8"))
    )
    assert image
    load(None, image)


def test_every_command_is_one_of_the_command_line() -> None:
    group = typer.main.get_command(app)
    for service in ours().values():
        command, args = group, list(service["command"])
        while hasattr(command, "commands"):
            command = command.commands[args.pop(0)]
        command.make_context("freshet", args)


def test_every_process_of_a_deployment_is_in_the_compose_file() -> None:
    assert {"ingest", "worker", "control", "learn", "dashboard", "topics"} <= ours().keys()


def test_prometheus_scrapes_the_ports_that_the_processes_open() -> None:
    scraped = {
        target
        for job in compose("deploy/prometheus/prometheus.yml")["scrape_configs"]
        for targets in job["static_configs"]
        for target in targets["targets"]
    }
    for name in ("ingest", "worker", "control", "learn"):
        assert f"{name}:9100" in scraped
        assert ours()[name]["command"][-2:] == ["--http-port", "9100"]
    assert "dashboard:8321" in scraped


def test_prometheus_accepts_its_files() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool on PATH")
    folder = ROOT / "deploy/prometheus"
    subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], check=True, cwd=folder, timeout=60
    )


def test_the_dashboard_and_the_alert_rules_ask_only_for_metrics_that_are_exported() -> None:
    exported = set()
    for package in ("stream", "online", "dashboard"):
        for path in (ROOT / package).rglob("*.py"):
            exported |= set(re.findall(r'"(freshet_[a-z_]+)"', path.read_text("utf-8")))
    board = json.loads((ROOT / "deploy/grafana/dashboards/freshet.json").read_text("utf-8"))
    asked = " ".join(
        target["expr"] for panel in board["panels"] for target in panel.get("targets", [])
    )
    asked += (ROOT / "deploy/prometheus/alerts.yml").read_text("utf-8")
    names = set(re.findall(r"freshet_[a-z_]+", asked))
    assert names
    bare = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in exported}
    assert not {
        name for name in names if re.sub(r"_(total|bucket|sum|count)$", "", name) not in bare
    }


@pytest.mark.slow
def test_prometheus_finds_each_alert_firing_and_silent_when_it_should_be() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool on PATH")
    subprocess.run(
        ["promtool", "test", "rules", "alert_rules.yml"], check=True, cwd=ROOT / "tests", timeout=60
    )


def alert_rules() -> list[dict[str, Any]]:
    return [
        rule
        for group in compose("deploy/prometheus/alerts.yml")["groups"]
        for rule in group["rules"]
    ]


def test_every_alert_is_tested_and_leads_to_a_section_of_the_runbook() -> None:
    titles = re.findall(r"^#+ (.+)$", (ROOT / "docs/runbook.md").read_text("utf-8"), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    tested = (ROOT / "tests/alert_rules.yml").read_text("utf-8")
    for rule in alert_rules():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/runbook.md"
        assert anchor in anchors, rule["alert"]
        assert tested.count(f"alertname: {rule['alert']}") >= 2, (
            "one test where it fires, one where it does not"
        )


def test_the_grafana_dashboard_has_no_panels_on_top_of_each_other_and_one_datasource() -> None:
    board = json.loads((ROOT / "deploy/grafana/dashboards/freshet.json").read_text("utf-8"))
    provisioned = compose("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"][
        0
    ]["uid"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert all(
            target["datasource"]["uid"] == provisioned for target in panel.get("targets", [])
        )


def test_prometheus_understands_every_question_of_the_grafana_dashboard(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool on PATH")
    board = json.loads((ROOT / "deploy/grafana/dashboards/freshet.json").read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert asked
    rules = [
        {"record": f"q{n}", "expr": text.replace("$__rate_interval", "1m")}
        for n, text in enumerate(asked)
    ]
    (tmp_path / "asked.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}), "utf-8"
    )
    subprocess.run(
        ["promtool", "check", "rules", "asked.yml"], check=True, cwd=tmp_path, timeout=60
    )
