"""Whatever lies in the registry's folder: what is no version is named and passed over."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from freshet.online.weights import lock
from freshet.online.weights import registry as module
from freshet.online.weights.aliases import CHALLENGER
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.lineage import roll_back
from freshet.online.weights.lock import only_writer
from freshet.online.weights.registry import BASE, CHAMPION, PREVIOUS, Manifest, Registry
from freshet.stream.errors import RegistryError

NAME = "v0007-20231114T221320Z-00000000"


def weights(text: str = "weights") -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "model.safetensors").write_text(text)

    return build


def add(registry: Registry, text: str = "weights", parent: str = BASE, request: str = "") -> str:
    return registry.add(
        weights(text), parent=parent, created_at_ms=1_700_000_000_000, request_id=request
    ).version


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def half_written(registry: Registry, sound: str, other: Path) -> None:
    (other / "model.safetensors").write_text("half")


def without_anything(registry: Registry, sound: str, other: Path) -> None:
    """A restore had only made the folder."""


def cut_manifest(registry: Registry, sound: str, other: Path) -> None:
    whole = (registry.path(sound) / "manifest.json").read_bytes()
    (other / "manifest.json").write_bytes(whole[: len(whole) // 2])


def others_manifest(registry: Registry, sound: str, other: Path) -> None:
    shutil.copyfile(registry.path(sound) / "manifest.json", other / "manifest.json")


def binary_manifest(registry: Registry, sound: str, other: Path) -> None:
    (other / "manifest.json").write_bytes(b"\xff\xfe\x00")


def deep_manifest(registry: Registry, sound: str, other: Path) -> None:
    (other / "manifest.json").write_bytes(b"[" * 100_000)


def long_manifest(registry: Registry, sound: str, other: Path) -> None:
    (other / "manifest.json").write_bytes(b" " * (1 << 20) + b"{}")


def piped_manifest(registry: Registry, sound: str, other: Path) -> None:
    os.mkfifo(other / "manifest.json")


def manifest_that_is_a_folder(registry: Registry, sound: str, other: Path) -> None:
    (other / "manifest.json").mkdir()


def linked_manifest(registry: Registry, sound: str, other: Path) -> None:
    (other / "manifest.json").symlink_to(registry.path(sound) / "manifest.json")


def manifest_without_weights(registry: Registry, sound: str, other: Path) -> None:
    text = json.dumps({"version": NAME, "parent": BASE, "created_at_ms": 0})
    (other / "manifest.json").write_text(text)


def manifest_with_a_strange_parent(registry: Registry, sound: str, other: Path) -> None:
    sums = {"model.safetensors": "0"}
    told = {"version": NAME, "parent": "../../etc", "created_at_ms": 0, "sha256": sums}
    (other / "manifest.json").write_text(json.dumps(told))


def linked_folder(registry: Registry, sound: str, other: Path) -> None:
    other.rmdir()
    other.symlink_to(registry.path(sound))


def link_to_nowhere(registry: Registry, sound: str, other: Path) -> None:
    other.rmdir()
    other.symlink_to("nowhere")


def a_file(registry: Registry, sound: str, other: Path) -> None:
    other.rmdir()
    other.write_text("")


DAMAGES = [
    (half_written, r"has no manifest\.json: it was half written"),
    (without_anything, "half written"),
    (cut_manifest, "cannot be read"),
    (others_manifest, "names version 'v0001"),
    (binary_manifest, "cannot be read"),
    (deep_manifest, "cannot be read"),
    (long_manifest, "longer than 1048576 bytes"),
    (piped_manifest, "no plain file"),
    (manifest_that_is_a_folder, "no plain file"),
    (linked_manifest, "is a link"),
    (manifest_without_weights, r"lists no model\.safetensors"),
    (manifest_with_a_strange_parent, r"names parent '\.\./\.\./etc'"),
    (linked_folder, "is a link"),
    (link_to_nowhere, "has no version"),
    (a_file, "has no version"),
]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("damage", "reason"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES]
)
def test_one_broken_version_is_named_and_the_others_are_served(
    registry: Registry, damage: Callable[[Registry, str, Path], None], reason: str
) -> None:
    sound = add(registry, request="r1")
    other = registry.folder / "versions" / NAME
    other.mkdir()
    damage(registry, sound, other)
    assert [manifest.version for manifest in registry.list()] == [sound]
    (flaw,) = registry.survey()[1]
    assert flaw.name == NAME
    with pytest.raises(RegistryError, match=reason) as caught:
        registry.verify(NAME)
    assert flaw.reason == str(caught.value)
    found = registry.find("r1")
    assert found is not None and found.version == sound
    # Its number is taken, and it stops no writer.
    later = add(registry, "later", parent=sound)
    assert later.startswith("v0008-")
    assert str(registry.serve(Assignment(later))) == str(registry.champion()) == later


def test_what_is_no_version_is_named_too(registry: Registry) -> None:
    sound = add(registry)
    folder = registry.folder / "versions"
    (folder / "lost+found").mkdir()
    (folder / ".DS_Store").write_text("")
    (folder / "v٠٠٠١-20231114T221320Z-00000000").mkdir()
    (folder / ".building-other").mkdir()
    manifests, flaws = registry.survey()
    assert [manifest.version for manifest in manifests] == [sound]
    names = [flaw.name for flaw in flaws]
    assert names == [".DS_Store", "lost+found", "v٠٠٠١-20231114T221320Z-00000000"]


def test_a_flaw_is_logged_once(registry: Registry) -> None:
    add(registry)
    (registry.folder / "versions" / NAME).mkdir()
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            registry.list()
    assert [line["event"] for line in lines] == ["version_skipped"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_file_of_a_version_that_is_no_plain_file_is_named(registry: Registry, kind: str) -> None:
    version = add(registry)
    file = registry.path(version) / "model.safetensors"
    file.rename(registry.folder / "elsewhere")
    if kind == "link":
        file.symlink_to(registry.folder / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    with pytest.raises(RegistryError, match=r"model\.safetensors is a link, or no plain file"):
        registry.verify(version)


def test_rubbish_left_by_a_writer_stops_no_other(registry: Registry) -> None:
    add(registry)
    folder = registry.folder / "versions"
    (folder / ".building-1").write_text("no folder")
    (folder / ".building-2").symlink_to(registry.folder)
    (folder / ".removed-3").mkdir()
    second = add(registry, "second")
    assert second.startswith("v0002-")
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_message_shows_sixteen_digits_of_what_was_found_and_what_should_be(
    registry: Registry,
) -> None:
    version = add(registry)
    file = registry.path(version) / "model.safetensors"
    file.write_text("altered")
    found = hashlib.sha256(b"altered").hexdigest()[:16]
    expected = hashlib.sha256(b"weights").hexdigest()[:16]
    with pytest.raises(RegistryError) as caught:
        registry.verify(version)
    assert str(caught.value) == (
        f"{file} was altered: sha256 {found}, the manifest says {expected}; "
        f"`freshet model rollback` returns to {BASE}"
    )


def test_a_manifest_of_a_mebibyte_is_read_and_a_longer_one_is_not(registry: Registry) -> None:
    version = add(registry)
    path = registry.path(version) / "manifest.json"
    path.write_bytes(path.read_bytes().ljust(1 << 20))
    assert registry.verify(version).version == version
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(RegistryError, match="longer than 1048576 bytes"):
        registry.manifest(version)


@pytest.mark.parametrize("name", ["version", "parent"])
def test_a_long_name_in_a_manifest_is_shown_in_part(registry: Registry, name: str) -> None:
    version = add(registry)
    path = registry.path(version) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {name: "n" * 1_000}))
    with pytest.raises(RegistryError, match=f" names {name} '{'n' * 80}', "):
        registry.manifest(version)


def test_nobody_changes_what_a_manifest_says(registry: Registry) -> None:
    manifest = registry.manifest(add(registry))
    with pytest.raises(AttributeError, match="immutable"):
        manifest.parent = "another"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Manifest(manifest.version, BASE, 0)  # type: ignore[call-arg]


# Aliases ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "../../etc", "v1", "winner", "x" * 10_000])
def test_an_alias_that_names_no_version_is_one_clear_error(registry: Registry, text: str) -> None:
    registry.serve(Assignment(add(registry)))
    (registry.folder / "aliases" / CHAMPION).write_text(text)
    with pytest.raises(RegistryError, match=r"champion names .*, which is no version"):
        registry.champion()


def test_nothing_moves_to_a_version_that_was_altered(registry: Registry) -> None:
    first = add(registry)
    second = add(registry, "second", parent=first)
    registry.serve(Assignment(second))
    (registry.path(first) / "model.safetensors").write_text("altered")
    for move in (lambda: str(registry.serve(Assignment(first))), lambda: roll_back(registry)):
        with pytest.raises(RegistryError, match="altered"):
            move()
    assert (str(registry.champion()), str(registry.alias(PREVIOUS))) == (second, BASE)


# Removal ------------------------------------------------------------------------------------------


def test_a_version_that_an_alias_names_is_not_removed(registry: Registry) -> None:
    first = add(registry)
    second = add(registry, "second", parent=first)
    third = add(registry, "third", parent=second)
    registry.serve(Assignment(first))
    registry.serve(Assignment(second))
    registry.move_alias(CHALLENGER, third)
    for version, alias in ((first, PREVIOUS), (second, CHAMPION), (third, CHALLENGER)):
        with pytest.raises(RegistryError, match=f"is the {alias}"):
            registry.remove(version)
    registry.serve(Assignment(third))
    registry.remove(first)
    assert [manifest.version for manifest in registry.list()] == [second, third]
    with pytest.raises(RegistryError, match="has no version"):
        registry.remove(first)
    with pytest.raises(RegistryError, match="has no version"):
        registry.remove("../aliases")


def test_a_reader_never_sees_half_of_a_version_that_is_removed(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = add(registry)
    seen = []

    def removed(path: Path) -> None:
        seen.append((path.name, registry.survey()))

    monkeypatch.setattr(module.shutil, "rmtree", removed)
    registry.remove(version)
    assert seen == [(f".removed-{version}", ((), ()))]


# Two writers --------------------------------------------------------------------------------------


def test_writers_that_add_at_once_get_numbers_of_their_own(registry: Registry) -> None:
    """Each with a registry of its own, as processes have."""
    made: list[str] = []
    together = threading.Barrier(4)

    def write(name: int) -> None:
        own = Registry(registry.folder)
        together.wait()
        for number in range(5):
            made.append(str(own.serve(Assignment(add(own, f"{name} {number}")))))

    writers = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [manifest.version for manifest in registry.list()]
    assert [int(version[1:5]) for version in found] == list(range(1, 21))
    assert sorted(made) == sorted(found)
    for version in found:
        registry.verify(version)
    assert str(registry.champion()) in found
    assert registry.survey()[1] == ()


def test_a_writer_waits_for_another_and_not_for_ever(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "FIRST_WAIT_S", 0.001)
    inside = threading.Event()

    def hold() -> None:
        with only_writer(registry.folder):
            inside.set()
            released.wait(60)

    released = threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(60)
    held = r"another process has held .*\.lock for 0 s"
    with pytest.raises(RegistryError, match=held), only_writer(registry.folder, patience_s=0.05):
        pytest.fail("two writers at once")
    released.set()
    holder.join()
    with only_writer(registry.folder, patience_s=0.05):
        pass


def test_versions_of_one_number_are_told_apart(registry: Registry) -> None:
    """As writers of older releases could make them."""
    first = add(registry)
    twin = first[:-8] + "00000000"
    shutil.copytree(registry.path(first), registry.folder / "versions" / twin)
    path = registry.path(twin) / "manifest.json"
    path.write_text(path.read_text().replace(first, twin))
    assert {manifest.version for manifest in registry.list()} == {first, twin}
    assert registry.list() == registry.list()
    assert add(registry, "next").startswith("v0002-")
