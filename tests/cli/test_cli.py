"""The command line as others rely on it: fast help, a known error as one clear line."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import freshet

ROOT = Path(__file__).parent.parent.parent
PROMISED = (
    *("demo", "ingest", "worker", "control", "learn", "dashboard", "simulate", "replay"),
    *("data", "backtest", "train", "explain", "pretrain"),
    *("verify", "doctor", "topics", "windows", "forecasts", "dlq", "map", "model", "config"),
    "retrain",
)


def run(
    *args: str, env: dict[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **(env or {})}
    command = [sys.executable, "-m", "freshet", *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=180, env=environ, cwd=cwd, check=False
    )


def test_help_names_every_promised_command() -> None:
    text = run("--help").stdout
    assert not [name for name in PROMISED if name not in text]


def test_help_answers_without_importing_heavy_libraries() -> None:
    code = (
        "import sys\nfrom freshet.cli.main import app\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([n for n in ('torch', 'numpy', 'redis', 'confluent_kafka', 'pydantic') if n in "
        "sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_help_takes_little_more_work_than_the_help_of_an_empty_program() -> None:
    """300 ms on an idle core, of which the library of commands and its pictures take most.

    A bound in seconds would say more of a busy core's neighbours than of the code, and one quiet
    moment of eight is enough to show that the code does no more.
    """
    empty = ["-c", "import typer; typer.run(lambda: None)", "--help"]
    best_help_s, best_empty_s = math.inf, math.inf
    for _ in range(8):
        best_help_s = min(best_help_s, cpu_s(["-m", "freshet", "--help"]))
        best_empty_s = min(best_empty_s, cpu_s(empty))
        if best_help_s < 1.6 * best_empty_s:
            return
    pytest.fail(f"help takes {best_help_s:.2f} s, that of an empty program {best_empty_s:.2f} s")


def cpu_s(arguments: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments], capture_output=True, timeout=180, cwd=ROOT, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_wrong_setting_is_one_line_and_exit_status_1(tmp_path: Path) -> None:
    config = tmp_path / "freshet.toml"
    config.write_text('[kafka]\nbootstrap_server = "x:1"\n')
    done = run("config", "show", "--config", str(config))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "did you mean kafka.bootstrap_servers?" in done.stderr


def test_a_missing_redis_is_one_line_and_exit_status_1() -> None:
    done = run(
        "windows",
        "export",
        "--resolution-ms",
        "3600000",
        env={"FRESHET_REDIS__URL": "redis://127.0.0.1:1/0"},
    )
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage_is_exit_status_2() -> None:
    assert run("demo", "--no-such-option").returncode == 2
    assert run("no-such-command").returncode == 2


def test_config_show_says_where_a_value_comes_from(tmp_path: Path) -> None:
    done = run("config", "show", "--json", env={"FRESHET_REDIS__TIMEOUT_MS": "77"}, cwd=tmp_path)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["redis.timeout_ms"] == {
        "name": "redis.timeout_ms",
        "value": "77",
        "source": "FRESHET_REDIS__TIMEOUT_MS",
    }
    assert rows["kafka.bootstrap_servers"]["source"] == "default"


@pytest.mark.parametrize("name", [name for name in freshet.__all__ if name != "__version__"])
def test_public_names_are_there(name: str) -> None:
    assert getattr(freshet, name).__name__ == name


def test_an_unknown_public_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match="it has Forecaster"):
        _ = freshet.forecastor


def test_a_broken_version_is_named_with_exit_status_1(tmp_path: Path) -> None:
    env = {"FRESHET_LEARN__REGISTRY": str(tmp_path)}
    done = run("model", "verify", env=env)
    assert (done.returncode, done.stdout.strip()) == (0, "")
    broken = "v0001-20260101T000000Z-00000000"
    (tmp_path / "versions" / broken).mkdir(parents=True)
    done = run("model", "verify", env=env)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{broken}  {tmp_path}/versions/{broken} has no manifest.json")
    assert run("model", "list", env=env).stdout.endswith("base  champion\n")
