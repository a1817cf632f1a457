"""Versions appear whole or not at all, aliases name what exists, and altered files are named."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from freshet.online.weights import files
from freshet.online.weights import registry as module
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.lineage import roll_back
from freshet.online.weights.manifest import sha256_of
from freshet.online.weights.registry import (
    BASE,
    CHAMPION,
    PREVIOUS,
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
    assert [name[:5] for name in names] == [f"v{number:04d}" for number in range(1, 12)]
    assert [manifest.version for manifest in registry.list()] == names


def renumbered(registry: Registry, number: int) -> str:
    """The newest version under another number."""
    manifest = registry.list()[-1]
    _, rest = manifest.version.split("-", 1)
    renamed = msgspec.structs.replace(manifest, version=f"v{number:04d}-{rest}")
    folder = registry.path(manifest.version)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(renamed))
    folder.rename(folder.with_name(renamed.version))
    return renamed.version


def test_after_version_9999_comes_version_10000_which_is_the_newest(registry: Registry) -> None:
    add(registry, request_id="r")
    old = renumbered(registry, 9_999)
    names = [old, *(add(registry, text, request_id="r").version for text in ("a", "b"))]
    assert [name.split("-")[0] for name in names] == ["v9999", "v10000", "v10001"]
    assert [manifest.version for manifest in registry.list()] == names
    assert registry.find("r") == registry.manifest(names[-1])
    assert str(registry.serve(Assignment(names[1]))) == str(registry.champion()) == names[1]
    assert registry.verify(names[1]).version == names[1]


def test_a_number_is_not_given_twice_when_an_older_version_was_deleted(registry: Registry) -> None:
    first, second = add(registry).version, add(registry, "other").version
    shutil.rmtree(registry.path(first))
    assert add(registry, "third").version.startswith("v0003-")
    assert registry.list()[0].version == second


def test_a_manifest_says_all_that_the_version_was_made_of(registry: Registry) -> None:
    parent = add(registry).version
    made = registry.add(
        weights("mine"),
        parent=parent,
        created_at_ms=1_700_000_001_999,
        request_id="r7",
        offsets={"orders:0": 12},
        gate={"verdict": "promote", "gain": 0.25, "finite.ok": True},
        segments=("pets",),
    )
    read = json.loads((registry.path(made.version) / "manifest.json").read_bytes())
    sums = {
        "config.json": hashlib.sha256(b"{}").hexdigest(),
        "model.safetensors": hashlib.sha256(b"mine").hexdigest(),
    }
    assert read == {
        "version": f"v0002-20231114T221321Z-{sums['model.safetensors'][:8]}",
        "parent": parent,
        "created_at_ms": 1_700_000_001_999,
        "request_id": "r7",
        "offsets": {"orders:0": 12},
        "gate": {"verdict": "promote", "gain": 0.25, "finite.ok": True},
        "segments": ["pets"],
        "sha256": sums,
    }
    assert made.weights_sha256 == sums["model.safetensors"]


def test_a_checksum_is_of_the_whole_file_however_long(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_the_newest_version_answers_a_request_and_none_answers_no_request(
    registry: Registry,
) -> None:
    add(registry, "a", request_id="r")
    second = add(registry, "b", request_id="r")
    add(registry, "c")
    assert registry.find("r") == second
    assert registry.find("other") is None
    assert registry.find("") is None


def test_all_files_are_on_disk_before_the_version_exists_and_its_name_after(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(module, "sync", lambda path: steps.append(path.name))
    monkeypatch.setattr(module, "failpoint", steps.append)
    add(registry)
    written, renamed = steps.index("registry_before_rename"), steps.index("registry_after_rename")
    synced = {name for name in steps[:written] if not name.startswith(".building")}
    assert synced >= {"config.json", "model.safetensors", "manifest.json"}
    assert any(name.startswith(".building") for name in steps[:written])
    assert steps[renamed + 1 :] == ["versions"]


def test_an_alias_moves_by_a_rename_and_is_on_disk_before_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = add(registry).version, add(registry, "other").version
    registry.move_alias(CHAMPION, first)
    steps: list[str] = []
    monkeypatch.setattr(files, "sync", lambda path: steps.append(path.name))
    monkeypatch.setattr(module, "failpoint", steps.append)
    with (registry.folder / "aliases" / CHAMPION).open() as opened:
        registry.move_alias(CHAMPION, second)
        # Whoever had the alias open reads all of the old one.
        assert opened.read() == first
    assert str(registry.champion()) == second
    assert steps[0].startswith(".champion.")
    assert steps[1:] == ["registry_before_alias", "aliases"]


def test_an_alias_that_a_person_wrote_may_end_with_a_new_line(registry: Registry) -> None:
    version = add(registry).version
    registry.serve(Assignment(version))
    (registry.folder / "aliases" / CHAMPION).write_text(version + "\n")
    assert str(registry.champion()) == version


def test_an_alias_that_is_no_text_is_one_clear_error(registry: Registry) -> None:
    registry.serve(Assignment(add(registry).version))
    (registry.folder / "aliases" / CHAMPION).write_bytes(b"\xff\xfe")
    with pytest.raises(RegistryError, match="champion cannot be read"):
        registry.champion()
    (registry.folder / "aliases" / CHAMPION).unlink()
    (registry.folder / "aliases" / CHAMPION).mkdir()
    with pytest.raises(RegistryError, match="champion cannot be read"):
        registry.champion()


def test_a_version_whose_manifest_is_missing_does_not_exist(registry: Registry) -> None:
    version = add(registry).version
    (registry.path(version) / "manifest.json").unlink()
    with pytest.raises(RegistryError, match="has no version"):
        registry.path(version)


def test_an_empty_folder_serves_the_base(registry: Registry) -> None:
    assert (str(registry.champion()), registry.list()) == (BASE, ())
    assert registry.alias(PREVIOUS) is None
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        roll_back(registry)


def test_the_folder_is_made_by_the_first_write_even_where_only_the_base_is_served(
    registry: Registry,
) -> None:
    assert not registry.folder.exists()
    assert str(registry.serve(Assignment(BASE))) == str(registry.alias(CHAMPION)) == BASE
    assert registry.alias(PREVIOUS) is None, "nothing served before"
    assert str(registry.serve(Assignment(BASE))) == BASE, "again"


def test_rolling_back_goes_to_the_parent_and_then_to_its_parent(registry: Registry) -> None:
    first = add(registry).version
    registry.serve(Assignment(first))
    second = add(registry, "other", parent=first).version
    registry.serve(Assignment(second))
    assert (str(registry.champion()), str(registry.alias(PREVIOUS))) == (second, first)
    assert str(roll_back(registry).serving) == str(registry.champion()) == first
    assert str(registry.alias(PREVIOUS)) == second
    assert str(roll_back(registry).serving) == str(registry.champion()) == BASE
    assert str(registry.alias(PREVIOUS)) == first


def test_the_parent_of_the_champion_is_the_way_back_whatever_else_was_served(
    registry: Registry,
) -> None:
    first, second = add(registry).version, add(registry, "other").version
    third = add(registry, "third", parent=first).version
    registry.serve(Assignment(third))
    registry.move_alias(PREVIOUS, second)
    assert str(roll_back(registry).serving) == str(registry.champion()) == first


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


def test_a_checksum_is_compared_to_its_last_digit(registry: Registry) -> None:
    version = add(registry).version
    path = registry.path(version) / "manifest.json"
    manifest = registry.manifest(version)
    config = manifest.sha256["config.json"]
    other = config[:-1] + ("0" if config[-1] != "0" else "1")
    sums = {**manifest.sha256, "config.json": other}
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, sha256=sums)))
    with pytest.raises(RegistryError, match=r"config\.json was altered"):
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
    "name",
    [
        "v9999",
        "../aliases",
        "base",
        "",
        "v0001-20231114T221320Z-00000000",
        "v0001-20231114T221320Z-00000000/../../elsewhere",
    ],
)
def test_a_version_that_does_not_exist_is_refused(registry: Registry, name: str) -> None:
    add(registry)
    elsewhere = registry.folder / "elsewhere"
    for folder in (elsewhere, registry.folder / "versions" / "v0001-20231114T221320Z-00000000"):
        folder.mkdir()
    (elsewhere / "manifest.json").write_text("{}")
    with pytest.raises(RegistryError, match="has no version"):
        registry.path(name)


def test_an_alias_cannot_name_what_does_not_exist(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="has no version"):
        registry.move_alias(CHAMPION, "v0001-20231114T221320Z-00000000")
    with pytest.raises(RegistryError, match="unknown alias"):
        registry.move_alias("winner", BASE)
    with pytest.raises(RegistryError, match="unknown alias"):
        str(registry.alias("../versions"))


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
    registry.serve(Assignment(first))
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
            registry.serve(Assignment(second))
        except Crash:
            crashed = True
    assert crashed or passes == 2
    assert str(registry.champion()) in (first, *(m.version for m in registry.list()))
    for manifest in registry.list():
        registry.verify(manifest.version)
    done = registry.find("r") or add(registry, "second", parent=first, request_id="r")
    registry.serve(Assignment(done.version))
    assert (str(registry.champion()), str(registry.alias(PREVIOUS))) == (done.version, first)
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
                if (champion := str(registry.champion())) != BASE:
                    seen.add(registry.verify(champion).version)
            except Exception as error:
                wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    served = set()
    # Until the reader has met the writer at work, which takes it a few versions at most.
    while len(served) < 30 or (len(seen) < 3 and len(served) < 1_000):
        served.add(str(registry.serve(Assignment(add(registry, f"weights {len(served)}").version))))
    stop.set()
    reader.join()
    assert wrong == []
    assert len(seen) >= 3
    assert seen <= served
