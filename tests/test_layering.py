"""Imports point one way: stream <- model <- online; dashboard sees stream only; one door per
library.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "stream": {"freshet.stream"},
    "model": {"freshet.stream", "freshet.model"},
    "online": {"freshet.stream", "freshet.model", "freshet.online"},
    "dashboard": {"freshet.stream", "freshet.dashboard"},
}
DOORS = {
    "confluent_kafka": {
        "stream/kafka/__init__.py",
        "stream/kafka/admin.py",
        "stream/kafka/client.py",
        "stream/kafka/publisher.py",
        "stream/kafka/table.py",
        "stream/kafka/servers.py",
    },
    "aiokafka": {"dashboard/feed.py"},
    "faust": {"online/control/process.py"},
    "river": {"online/drift/detectors.py", "model/baselines/online.py"},
    "lightgbm": {"model/baselines/lightgbm.py"},
    "statsforecast": {"model/baselines/statistical.py"},
    "captum": {"model/explain/gradients.py"},
    "peft": {"model/training/lora.py"},
}
HEAVY = {"torch", "transformers", "sklearn", "river", "faust"}


def _modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {_package(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} has a relative import"
            found.add(_package(node.module))
    return found


def _package(name: str) -> str:
    """`river` for `river.drift`, `freshet.stream` for `freshet.stream.errors`."""
    parts = name.split(".")
    return ".".join(parts[: 2 if parts[0] == "freshet" else 1])


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_stands_left_of_it(package: str) -> None:
    for path in _modules(package):
        ours = {name for name in _imports(path) if name.startswith("freshet")}
        assert ours <= MAY_IMPORT[package], path


def test_each_library_has_one_door() -> None:
    for package in MAY_IMPORT:
        for path in _modules(package):
            name = path.relative_to(ROOT).as_posix()
            for library in _imports(path) & DOORS.keys():
                assert name in DOORS[library], (
                    f"{name} imports {library}; its door is {sorted(DOORS[library])}"
                )


@pytest.mark.parametrize("package", ["stream", "dashboard"])
def test_no_heavy_library_is_imported_left_of_the_model(package: str) -> None:
    for path in _modules(package):
        assert not _imports(path) & HEAVY, path


def test_importing_all_of_stream_does_not_load_torch() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in _modules("stream")]
    names = [f"freshet.{name.removesuffix('.__init__')}" for name in names]
    code = (
        f"import importlib, sys\nfor n in {names!r}: importlib.import_module(n)\nassert "
        "'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT, timeout=60)
