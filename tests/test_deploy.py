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
from tests.compose import Service, image_environ, services
from tests.compose import load as load_compose

ROOT = Path(__file__).parent.parent
SERVICE_KEYS = {
    *("build", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "ports"),
    *("read_only", "restart", "stop_grace_period", "tmpfs", "volumes", "working_dir"),
}
TOP_KEYS = {"name", "services", "volumes", "networks", "configs", "secrets"}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


SHOP = "deploy/docker-compose.shop.yml"
GPU = "deploy/docker-compose.gpu.yml"


def compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    return load_compose(name)


def all_services() -> dict[str, Service]:
    return services(load_compose("docker-compose.yml", SHOP))


def ours() -> dict[str, Service]:
    return {name: one for name, one in all_services().items() if one.image == "freshet"}


@pytest.mark.parametrize("name", ["docker-compose.yml", GPU, SHOP])
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
    for overlay in ([], ["-f", GPU], ["-f", SHOP]):
        command = ["docker", "compose", "-f", "docker-compose.yml", *overlay, "config", "--quiet"]
        subprocess.run(command, check=True, cwd=ROOT, timeout=180)


def test_every_dependency_and_volume_exists() -> None:
    found = all_services()
    for service in found.values():
        assert set(service.needs) <= found.keys()
        assert set(service.needs.values()) <= CONDITIONS
        for mount in service.mounts:
            volumes = compose()["volumes"]
            assert mount.source in volumes if mount.is_volume else (ROOT / mount.source).exists()


def test_what_must_outlive_its_container_lies_on_a_volume() -> None:
    kept = {
        name: {mount.target for mount in one.mounts if mount.is_volume}
        for name, one in all_services().items()
    }
    kafka = all_services()["kafka"].environ["KAFKA_LOG_DIRS"]
    assert kept["kafka"] == {kafka} == {"/var/lib/kafka/data"}
    assert kept["redis"] == {all_services()["redis"].working_dir} == {"/data"}
    registry = all_services()["learn"].environ["FRESHET_LEARN__REGISTRY"]
    assert kept["learn"] == kept["worker"] == {"/data"} and registry.startswith("/data/")
    assert (kept["prometheus"], kept["grafana"]) == ({"/prometheus"}, {"/var/lib/grafana"})


def test_no_container_but_kafkas_writes_anywhere_else() -> None:
    writable = {name for name, one in all_services().items() if not one.read_only}
    assert writable == {"kafka"}


def test_what_people_and_their_programs_ask_is_published_to_this_machine_alone() -> None:
    published = {name: one.published for name, one in all_services().items() if one.published}
    assert published == {
        "kafka": ("127.0.0.1:29092:29092",),
        "dashboard": ("127.0.0.1:8321:8321",),
        "prometheus": ("127.0.0.1:9090:9090",),
        "alertmanager": ("127.0.0.1:9093:9093",),
        "grafana": ("127.0.0.1:3000:3000",),
    }
    advertised = all_services()["kafka"].environ["KAFKA_ADVERTISED_LISTENERS"]
    assert advertised == "PLAINTEXT://kafka:9092,HOST://localhost:29092"


def test_every_image_has_an_exact_version_and_every_process_a_limit() -> None:
    raw = compose()["services"]
    for name, service in raw.items():
        if service["image"] != "freshet":
            assert re.search(r":v?\d+\.\d+\.\d+(-alpine)?$", service["image"]), service["image"]
        limits = service["deploy"]["resources"]["limits"]
        assert limits.keys() == {"cpus", "memory"}, name
        runs_once = service["restart"] == "no"
        assert runs_once or service["restart"] == "unless-stopped"
    bases = re.findall(r"^FROM (\S+)", (ROOT / "deploy/Dockerfile").read_text("utf-8"), re.M)
    assert len(set(bases)) == 1 and re.search(r":\d+\.\d+\.\d+-slim", bases[0])


def test_every_process_is_asked_whether_it_is_ready_where_it_listens() -> None:
    for name in ("ingest", "worker", "control", "learn", "dashboard"):
        service = ours()[name]
        assert service.health is not None
        port = service.environ.get("FRESHET_DASHBOARD__PORT", "9100")
        assert f"http://127.0.0.1:{port}/readyz" in service.health[-1]


def test_a_simulated_shop_has_volumes_and_topics_of_its_own() -> None:
    assert load_compose("docker-compose.yml", SHOP)["name"] != compose()["name"]
    assert ours()["topics"].command == ("topics", "create", "--simulated")


def test_every_environment_name_is_a_known_setting_with_a_valid_value() -> None:
    for service in ours().values():
        load(None, service.environ)
    load(ROOT / "deploy/freshet.toml", {})
    image = {name: text for name, text in image_environ().items() if name.startswith("FRESHET_")}
    assert image
    load(None, image)


def test_every_command_is_one_of_the_command_line() -> None:
    group = typer.main.get_command(app)
    for service in ours().values():
        command, args = group, list(service.command)
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
        assert ours()[name].command[-2:] == ("--http-port", "9100")
    assert "dashboard:8321" in scraped


def test_prometheus_accepts_its_files() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool on PATH")
    folder = ROOT / "deploy/prometheus"
    subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], check=True, cwd=folder, timeout=180
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
        ["promtool", "test", "rules", "alert_rules.yml"],
        check=True,
        cwd=ROOT / "tests",
        timeout=180,
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
        ["promtool", "check", "rules", "asked.yml"], check=True, cwd=tmp_path, timeout=180
    )
