"""Commands have OpenMP's threads sleep while they wait, and PyTorch's library takes it so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from freshet.cli import main
from freshet.stream.cores import SLEEPING

LOAD = """
import sys
from freshet.cli.main import main
sys.argv = ["freshet", "version"]
try:
    main()
except SystemExit:
    pass
assert "torch" not in sys.modules
import torch
"""


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SLEEPING:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_command_begins_with_threads_that_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr(main, "app", lambda: seen.extend(map(os.environ.get, SLEEPING)))
    main.main()
    assert seen == list(SLEEPING.values())


def test_what_a_person_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setattr(main, "app", lambda: None)
    main.main()
    assert os.environ["OMP_WAIT_POLICY"] == "active"


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch brings GNU's OpenMP on Linux alone")
def test_the_library_that_pytorch_loads_takes_it_so() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**os.environ, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    said = {line.strip() for line in done.stderr.splitlines()}
    assert {"OMP_WAIT_POLICY = 'PASSIVE'", "GOMP_SPINCOUNT = '0'"} <= {
        line.removeprefix("[host] ") for line in said
    }
