"""Every failpoint is one place in the source, and some test dies there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from freshet.stream.failpoints import VARIABLE, Failpoint

ROOT = Path(__file__).parents[2]
NAMES: tuple[str, ...] = get_args(Failpoint)
TWICE = """
from freshet.stream.failpoints import failpoint
for name in ("before_scores", "after_scores", "before_scores"):
    print(name, flush=True)
    failpoint(name)
print("alive", flush=True)
"""


def texts(*folders: str) -> str:
    here = Path(__file__)
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return "\n".join(path.read_text("utf-8") for path in files if path != here)


def run(wanted: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TWICE],
        env=os.environ | {VARIABLE: wanted},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_failpoint_is_one_place_in_the_source() -> None:
    places = re.findall(r'failpoint\("(\w+)"\)', texts("stream", "online"))
    assert sorted(places) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_some_test_dies_at_every_failpoint(name: str) -> None:
    # At its first pass, or at the one that is named behind a colon.
    assert re.search(f'"{name}[":]', texts("tests"))


@pytest.mark.parametrize(("wanted", "passed"), [("before_scores", 1), ("before_scores:2", 3)])
def test_the_process_dies_at_the_pass_that_was_asked_for(wanted: str, passed: int) -> None:
    done = run(wanted)
    assert done.returncode == -signal.SIGKILL
    assert len(done.stdout.splitlines()) == passed


def test_a_name_that_is_no_failpoint_is_said() -> None:
    done = run("before_score")
    assert done.returncode == 1
    assert "FRESHET_FAILPOINT names before_score, which is no failpoint" in done.stderr
