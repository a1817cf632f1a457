"""Imports point one way, room by room, and each library has one door.

The floors are those of docs/architecture.md; this test reads them there.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("stream", "model", "online", "dashboard")
MAY_IMPORT = {
    "stream": {"stream"},
    "model": {"stream", "model"},
    "online": {"stream", "model", "online"},
    "dashboard": {"stream", "dashboard"},
}
DOORS = {
    "confluent_kafka": {"stream/kafka/"},
    "aiokafka": {"dashboard/feed.py"},
    "faust": {"online/control/process.py"},
    "river": {"online/drift/detectors.py", "model/baselines/online.py"},
    "lightgbm": {"model/baselines/lightgbm.py"},
    "statsforecast": {"model/baselines/statistical.py"},
    "captum": {"model/explain/gradients.py"},
    "peft": {"model/training/lora.py"},
    "fugue": {"model/predict/cluster.py"},
    "narwhals": {"model/predict/given.py"},
    "cryptography": {"online/weights/signatures.py"},
}
HEAVY = {"torch", "transformers", "sklearn", "river", "faust"}


class Import(NamedTuple):
    """One import of ours: who, from which line, and which module or package."""

    path: str
    line: int
    name: str


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> list[Import]:
    """Everything a file imports, also inside its functions, as dotted names."""
    place = path.relative_to(ROOT).as_posix()
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [Import(place, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{place}:{node.lineno} is a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [Import(place, node.lineno, name) for name in names]
    return found


def libraries(path: Path) -> set[str]:
    return {entry.name.split(".")[0] for entry in imports(path)}


def floors() -> dict[str, dict[str, int]]:
    """From the page's lines `package: room room | room | ...` to each room's floor."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    found = {}
    for package, text in re.findall(r"^(stream|model|online): (.+)$", page, re.MULTILINE):
        rooms = enumerate(text.split("|"))
        found[package] = {room: floor for floor, names in rooms for room in names.split()}
    return found


def room_of(dotted: list[str], package: str) -> str:
    """The room of a dotted name inside a package; a file in the folder itself is `ground`.

    >>> room_of(["kafka", "client", "consumer"], "stream"), room_of(["errors"], "stream")
    ('kafka', 'ground')
    """
    return dotted[0] if dotted and (ROOT / package / dotted[0]).is_dir() else "ground"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_stands_left_of_it(package: str) -> None:
    ours = [entry for path in modules(package) for entry in imports(path)]
    ours = [entry for entry in ours if entry.name.split(".")[0] == "freshet"]
    assert ours
    for entry in ours:
        assert entry.name.split(".")[1] in MAY_IMPORT[package], entry


@pytest.mark.parametrize("package", ["stream", "model", "online"])
def test_no_import_goes_up_a_floor(package: str) -> None:
    floor = floors()[package]
    for path in modules(package):
        own = room_of(list(path.relative_to(ROOT / package).parts[:-1]), package)
        for entry in imports(path):
            head, *dotted = entry.name.split(".")
            if head != "freshet" or dotted[0] != package:
                continue
            other = room_of(dotted[1:], package)
            assert other == own or floor[other] < floor[own], entry


@pytest.mark.parametrize("package", ["stream", "model", "online"])
def test_the_page_names_every_room_on_a_floor_and_in_a_line(package: str) -> None:
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert set(floors()[package]) == folders | {"ground"}
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert not [room for room in folders if f"`{package}/{room}/`" not in page]


def test_each_library_has_one_door() -> None:
    for package in PACKAGES:
        for path in modules(package):
            name = path.relative_to(ROOT).as_posix()
            for library in libraries(path) & DOORS.keys():
                doors = DOORS[library]
                assert any(name.startswith(door) for door in doors), f"{name} imports {library}"


def test_the_page_names_the_doors() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = ("confluent_kafka", "aiokafka", "faust", "river")
    assert not [door for library in named for door in DOORS[library] if f"`{door}`" not in page]


@pytest.mark.parametrize("package", ["stream", "dashboard"])
def test_no_heavy_library_is_imported_left_of_the_model(package: str) -> None:
    for path in modules(package):
        assert not libraries(path) & HEAVY, path


def test_importing_all_of_stream_does_not_load_torch() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules("stream")]
    names = [f"freshet.{name.removesuffix('.__init__')}" for name in names]
    load = f"import importlib, sys\nfor n in {names!r}: importlib.import_module(n)\n"
    code = load + "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT, timeout=180)
