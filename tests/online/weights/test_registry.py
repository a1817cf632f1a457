"""Versions appear whole or not at all, aliases name what exists, and altered files are named."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from freshet.online.weights import registry as module
from freshet.online.weights.registry import (
    BASE,
    CHAMPION,
    PREVIOUS,
    VERSION_PATTERN,
    Manifest,
    Registry,
)
from freshet.stream.errors import RegistryError

STEPS = [
    "registry_files_written",
    "registry_before_rename",
    "registry_after_rename",
    "registry_before_alias",
    "registry_between_aliases",
]


class Crash(Exception):
    """The process died here."""


def weights(text: str = "weights") -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "model.safetensors").write_text(text)
        (folder / "config.json").write_text("{}")

    return build


def add(
    registry: Registry, text: str = "weights", parent: str = BASE, request_id: str = ""
) -> Manifest:
    return registry.add(
        weights(text), parent=parent, created_at_ms=1_700_000_000_000, request_id=request_id
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def test_a_version_is_named_by_number_time_and_weights(registry: Registry) -> None:
    manifest = add(registry)
    assert manifest.version == f"v0001-20231114T221320Z-{manifest.weights_sha256[:8]}"
    assert registry.verify(manifest.version) == manifest
    assert sorted(manifest.sha256) == ["config.json", "model.safetensors"]


def test_versions_sort_as_they_were_added(registry: Registry) -> None:
    names = [add(registry, str(number)).version for number in range(11)]
    assert [manifest.version for manifest in registry.list()] == names == sorted(names)


def test_an_empty_folder_serves_the_base(registry: Registry) -> None:
    assert (registry.champion(), registry.alias(PREVIOUS), registry.list()) == (BASE, None, ())
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        registry.roll_back()


def test_rolling_back_goes_to_the_parent_and_then_to_its_parent(registry: Registry) -> None:
    first = add(registry).version
    registry.serve(first)
    second = add(registry, "other", parent=first).version
    registry.serve(second)
    assert (registry.champion(), registry.alias(PREVIOUS)) == (second, first)
    assert registry.roll_back() == registry.champion() == first
    assert registry.roll_back() == registry.champion() == registry.alias(PREVIOUS) == BASE


def test_altered_missing_and_added_files_are_named(registry: Registry) -> None:
    version = add(registry).version
    folder = registry.path(version)
    (folder / "config.json").write_text("{ }")
    with pytest.raises(RegistryError, match=r"config\.json was altered"):
        registry.verify(version)
    (folder / "config.json").unlink()
    with pytest.raises(RegistryError, match=r"config\.json is missing"):
        registry.verify(version)
    (folder / "config.json").write_text("{}")
    (folder / "extra.bin").write_text("")
    with pytest.raises(RegistryError, match=r"extra\.bin is not in the manifest"):
        registry.verify(version)


def test_a_broken_manifest_and_a_renamed_version_are_refused(registry: Registry) -> None:
    first, second = add(registry).version, add(registry, "other").version
    path = registry.path(first) / "manifest.json"
    path.write_bytes((registry.path(second) / "manifest.json").read_bytes())
    with pytest.raises(RegistryError, match="names version"):
        registry.manifest(first)
    path.write_text("{")
    with pytest.raises(RegistryError, match="cannot be read"):
        registry.manifest(first)


@pytest.mark.parametrize(
    "name", ["v9999", "../aliases", "base", "", "v0001-20231114T221320Z-00000000"]
)
def test_a_version_that_does_not_exist_is_refused(registry: Registry, name: str) -> None:
    add(registry)
    with pytest.raises(RegistryError, match="has no version"):
        registry.path(name)


def test_an_alias_cannot_name_what_does_not_exist(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="has no version"):
        registry.move_alias(CHAMPION, "v0001-20231114T221320Z-00000000")
    with pytest.raises(RegistryError, match="unknown alias"):
        registry.move_alias("winner", BASE)
    with pytest.raises(RegistryError, match="unknown alias"):
        registry.alias("../versions")


def test_a_build_without_weights_or_with_an_error_makes_no_version(registry: Registry) -> None:
    with pytest.raises(RegistryError, match=r"holds no model\.safetensors"):
        registry.add(lambda folder: None, parent=BASE, created_at_ms=0)
    with pytest.raises(Crash):
        registry.add(_crash, parent=BASE, created_at_ms=0)
    assert registry.list() == ()


def _crash(folder: Path) -> None:
    (folder / "model.safetensors").write_text("half")
    raise Crash


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="cannot be added"):
        add(Registry(tmp_path / "file"))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("passes", [1, 2])
def test_a_crash_at_any_step_leaves_a_valid_registry_that_goes_on(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, step: str, passes: int
) -> None:
    first = add(registry).version
    registry.serve(first)
    left = [passes]

    def fail(name: str) -> None:
        left[0] -= name == step
        if name == step and left[0] == 0:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(module, "failpoint", fail)
        crashed = False
        try:
            second = add(registry, "second", parent=first, request_id="r").version
            registry.serve(second)
        except Crash:
            crashed = True
    assert crashed or passes == 2
    assert registry.champion() in (first, *(m.version for m in registry.list()))
    for manifest in registry.list():
        registry.verify(manifest.version)
    done = registry.find("r") or add(registry, "second", parent=first, request_id="r")
    registry.serve(done.version)
    assert (registry.champion(), registry.alias(PREVIOUS)) == (done.version, first)
    assert len(registry.list()) == 2
    third = add(registry, "third").version
    assert {path.name for path in (registry.folder / "versions").iterdir()} == {
        first,
        done.version,
        third,
    }


def test_a_reader_beside_the_writer_never_sees_half_a_version(registry: Registry) -> None:
    stop, seen, wrong = threading.Event(), set[str](), list[Exception]()

    def read() -> None:
        while not stop.is_set():
            try:
                for manifest in registry.list():
                    registry.verify(manifest.version)
                if (champion := registry.champion()) != BASE:
                    seen.add(registry.verify(champion).version)
            except Exception as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        registry.serve(add(registry, f"weights {number}").version)
    stop.set()
    reader.join()
    assert wrong == []
    assert all(VERSION_PATTERN.fullmatch(name) for name in seen)
