"""freshet works wherever it is installed: beside a user's own files, and without its checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("freshet", "stream", "model", "online", "dashboard")
BUILD_FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose files are called as our folders are, and fail when they are imported."""
    folder = tmp_path / "hostile"
    (folder / "online").mkdir(parents=True)
    for name in ("model.py", "stream.py", "dashboard.py", "online/__init__.py"):
        (folder / name).write_text("raise RuntimeError('a file of the user was imported')\n")
    return folder


def run(python: Path | str, *arguments: str, cwd: Path) -> str:
    """What a fresh process prints, whose path knows nothing but its environment and `cwd`."""
    hidden = ("PYTHONPATH", "PYTHONSAFEPATH")
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [python, *arguments],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


@pytest.mark.slow
def test_files_of_the_user_with_the_names_of_our_folders_hide_nothing(hostile: Path) -> None:
    code = (
        "import freshet, freshet.online, freshet.dashboard\n"
        "print(freshet.Forecaster.__name__, freshet.WindowReader.__name__)"
    )
    assert run(sys.executable, "-c", code, cwd=hostile).split() == ["Forecaster", "WindowReader"]


def test_every_package_is_typed() -> None:
    assert not [name for name in SOURCES if not (ROOT / name / "py.typed").is_file()]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds freshet's wheel, its dependencies and no checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in BUILD_FILES:
        shutil.copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip")
    build = ("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source))
    subprocess.run([*pip, *build], check=True, timeout=400)
    (wheel,) = folder.glob("freshet-*.whl")

    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", ask, cwd=folder).strip())
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", site, wheel], check=True)
    # A path file brings the dependencies, but not the path files among them: no editable install.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.slow
def test_a_wheel_holds_everything_that_the_checkout_holds(installed: Path, tmp_path: Path) -> None:
    code = "import freshet.stream as it; print(it.__path__[0])"
    package = Path(run(installed, "-c", code, cwd=tmp_path).strip()).parent
    assert ROOT not in package.parents
    wanted = {path for name in SOURCES for path in (ROOT / name).rglob("*") if path.is_file()}
    names = {path.relative_to(ROOT).as_posix() for path in wanted if path.suffix != ".pyc"}
    missing = [name for name in names if not (package / name.removeprefix("freshet/")).is_file()]
    assert not missing


@pytest.mark.slow
def test_the_lines_of_the_readme_run_as_they_stand(installed: Path, tmp_path: Path) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    said = "\nassert list(forecasts['status'].unique()) == ['ok'] and len(forecasts) == 14"
    run(installed, "-W", "error", "-c", lines + said, cwd=tmp_path)
    assert (tmp_path / "forecasts.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_notebook_runs_outside_the_checkout_and_finds_what_was_planted(
    installed: Path, tmp_path: Path
) -> None:
    # A promotion was made to sell three for one, and a week ago knows nothing of it.
    said = """
assert scores["forecasts"] < 0.5 * scores["the week before"]
assert 0.72 < inside < 0.88
assert set(first.status) == {"cold_start"} and (first["0.1"] < first["predictions"]).all()
parts = found.explanation.shapley.contributions
assert {part.group.key for part in parts[:2]} == {"price", "promotion"}
"""
    cells = (ROOT / "docs" / "notebooks" / "shop.py").read_text("utf-8")
    run(installed, "-W", "error", "-c", cells + said, cwd=tmp_path)


@pytest.mark.slow
def test_the_demo_runs_from_a_wheel_in_a_hostile_folder(installed: Path, hostile: Path) -> None:
    options = ("--seconds", "20", "--headless", "--summary", "out.json", "--items", "24")
    run(installed, "-m", "freshet", "demo", *options, cwd=hostile)
    summary = json.loads((hostile / "out.json").read_text())
    assert summary["conserved"]
    assert summary["forecasts"]["published"] > 0
