"""An announcement counts only with the sha256 of the manifest that the registry holds."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from freshet.online.weights.announced import (
    Announcements,
    announcement,
    assignment_of,
    checker,
    within,
)
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import BASE, Manifest, Registry
from freshet.stream.errors import RegistryError
from freshet.stream.schemas import ModelEvent

UNKNOWN = "v0009-20231114T221320Z-00000000"


def added(registry: Registry, text: str = "weights") -> Manifest:
    def build(folder: Path) -> None:
        (folder / "model.safetensors").write_text(text)

    return registry.add(build, parent=BASE, created_at_ms=0)


def told_of(registry: Registry) -> ModelEvent:
    version = added(registry).version
    return announcement(registry, "promoted", version, 7, Assignment(version))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def test_an_announcement_carries_the_checksum_of_the_manifest(registry: Registry) -> None:
    manifest = added(registry)
    folder = registry.path(manifest.version)
    by_hand = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert announcement(
        registry, "promoted", manifest.version, 7, Assignment(manifest.version)
    ) == ModelEvent(
        kind="promoted",
        version=manifest.version,
        at_ms=7,
        sha256=hashlib.sha256(b"weights").hexdigest(),
        manifest_sha256=by_hand,
        uri=str(folder.resolve()),
    )


def test_what_was_altered_is_not_announced(registry: Registry) -> None:
    version = added(registry).version
    (registry.path(version) / "model.safetensors").write_text("altered")
    with pytest.raises(RegistryError, match="altered"):
        announcement(registry, "promoted", version, 7, Assignment(version))


def test_what_was_announced_counts_from_any_mount_of_the_folder(registry: Registry) -> None:
    version = added(registry).version
    event = announcement(registry, "promoted", version, 7, Assignment(version))
    check = checker(registry)
    check(event)
    check(msgspec.structs.replace(event, uri=""))
    check(msgspec.structs.replace(event, uri=f"/mnt/elsewhere/versions/{version}"))
    check(msgspec.structs.replace(event, sha256=""))


def test_the_shipped_weights_count_by_their_name(registry: Registry) -> None:
    event = announcement(registry, "rolled_back", BASE, 7, Assignment(BASE))
    assert event == ModelEvent(kind="rolled_back", version=BASE, at_ms=7)
    check = checker(registry)
    check(event)
    for change in ({"uri": "/evil"}, {"manifest_sha256": "0" * 64}):
        with pytest.raises(RegistryError, match="base names a folder"):
            check(msgspec.structs.replace(event, **change))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"uri": "/evil"}, "names another folder, '/evil'"),
        ({"uri": "/evil/versions/v0002"}, "names another folder"),
        ({"manifest_sha256": ""}, "without the sha256 of its manifest"),
        ({"manifest_sha256": "0" * 64}, "comes with sha256 0000000000000000 of its manifest"),
        ({"sha256": "0" * 64}, "sha256 of other weights"),
        ({"version": UNKNOWN, "uri": ""}, "has no version"),
        ({"version": "../../etc", "uri": ""}, "has no version"),
        ({"version": "", "uri": ""}, "has no version"),
        ({"version": "champion", "uri": ""}, "has no version"),
    ],
)
def test_what_does_not_fit_the_registry_is_refused(
    registry: Registry, change: dict[str, Any], reason: str
) -> None:
    event = told_of(registry)
    with pytest.raises(RegistryError, match=reason):
        checker(registry)(msgspec.structs.replace(event, **change))


def test_an_announcement_is_no_longer_believed_when_the_manifest_is_another(
    registry: Registry,
) -> None:
    version = added(registry).version
    event = announcement(registry, "promoted", version, 7, Assignment(version))
    path = registry.path(version) / "manifest.json"
    path.write_bytes(path.read_bytes() + b"\n")
    found = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    with pytest.raises(RegistryError) as caught:
        checker(registry)(event)
    assert str(caught.value) == (
        f"promoted {version} comes with sha256 {event.manifest_sha256[:16]} of its manifest, "
        f"the registry's has {found}"
    )


def test_a_long_name_makes_a_short_message(registry: Registry) -> None:
    event = ModelEvent(kind="promoted", version="v" * 1_000, at_ms=1, uri="/" + "u" * 9_000)
    with pytest.raises(RegistryError) as caught:
        checker(registry)(event)
    shown = "v" * 200, "/" + "u" * 199
    assert str(caught.value) == f"promoted {shown[0]} names another folder, {shown[1]!r}"


# A registry that does not answer ------------------------------------------------------------------


def test_a_registry_that_hangs_holds_nobody_up_but_the_first_and_counts_once_it_answers(
    registry: Registry,
) -> None:
    told = told_of(registry)
    hangs, asked = threading.Event(), list[str]()

    def slow(asked_of: ModelEvent) -> None:
        asked.append(asked_of.version)
        assert hangs.wait(60)
        checker(registry)(asked_of)

    check = within(slow, 0.02)
    with pytest.raises(RegistryError, match=r"does not answer within 0\.02 s"):
        check(told)
    for _ in range(3):
        with pytest.raises(RegistryError, match="the registry does not answer"):
            check(told)
    assert len(asked) == 1
    (hanging,) = [thread for thread in threading.enumerate() if thread.name == "registry"]
    hangs.set()
    assert hanging.daemon, "a process that ends does not wait for it"
    hanging.join(60)
    patient = within(slow, 10.0)
    for _ in range(200):
        patient(told)
    with pytest.raises(RegistryError, match="without the sha256"):
        patient(msgspec.structs.replace(told, manifest_sha256=""))


@pytest.mark.parametrize("name", ["is_dir", "is_symlink", "open"])
def test_whatever_a_volume_answers_is_a_refusal(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    told = told_of(registry)

    def stale(self: Path, *_: object) -> None:
        raise OSError(116, "Stale file handle")

    heard = Announcements(checker(registry))
    with monkeypatch.context() as patch:
        patch.setattr(Path, name, stale)
        with pytest.raises(RegistryError, match="Stale file handle"):
            checker(registry)(told)
        assert not heard.take(told)
    heard.reconsider()
    assert heard.newest == told


def test_an_error_that_nobody_foresaw_is_a_refusal_too() -> None:
    def check(told: ModelEvent) -> None:
        raise KeyError("odd")

    heard = Announcements(check)
    assert not heard.take(event("v1", 1))
    refused = heard.next_refusal()
    assert refused is not None
    assert refused.reason == "version v1 cannot be checked: KeyError('odd')"


# Which of several counts --------------------------------------------------------------------------


def event(version: str, at_ms: int, kind: Any = "promoted") -> ModelEvent:
    return ModelEvent(kind=kind, version=version, at_ms=at_ms)


def known_only(told: ModelEvent) -> None:
    if told.version.startswith("x"):
        raise RegistryError("unknown")


def test_the_newest_that_counts_is_the_newest_by_its_own_time() -> None:
    heard = Announcements(known_only)
    assert heard.take(event("a", 10)) and heard.take(event("b", 20))
    assert not heard.take(event("c", 15))
    assert not heard.take(event("d", 30, "rejected"))
    assert heard.newest == event("b", 20)
    # Of one moment the one that came last.
    assert heard.take(event("e", 20, "rolled_back"))
    assert heard.newest == event("e", 20, "rolled_back")


def test_a_flood_of_refusals_outdates_nothing_and_is_held_in_a_bound() -> None:
    heard = Announcements(known_only)
    for number in range(1_000):
        assert not heard.take(event(f"x{number}", 1_000 + number))
    assert heard.newest is None
    assert heard.take(event("a", 10))
    # By arrival: the oldest of them are forgotten, whatever time they claim.
    assert list(heard.refused) == [f"x{number}" for number in range(984, 1_000)]
    told = [heard.next_refusal() for _ in range(16)]
    assert [one.event.version for one in told if one is not None] == list(heard.refused)
    assert heard.next_refusal() is None


def test_a_refusal_that_something_newer_overtakes_is_forgotten() -> None:
    heard = Announcements(known_only)
    heard.take(event("x1", 10))
    heard.take(event("x2", 30))
    heard.take(event("a", 20))
    assert list(heard.refused) == ["x2"]
    told = heard.next_refusal()
    assert told is not None and told.event.version == "x2"


def test_reconsidering_takes_up_what_is_there_by_now() -> None:
    away = {"v1", "v2", "v3"}

    def check(told: ModelEvent) -> None:
        if told.version in away:
            raise RegistryError("away")

    heard = Announcements(check)
    for version, at_ms in (("v2", 20), ("v1", 10), ("v3", 30)):
        heard.take(event(version, at_ms))
    assert heard.reconsider() is None and heard.newest is None
    away.remove("v1")
    assert heard.reconsider() == heard.newest == event("v1", 10)
    away.remove("v2")
    assert heard.reconsider() == heard.newest == event("v2", 20)
    assert list(heard.refused) == ["v3"]
    assert heard.reconsider() is None and heard.newest == event("v2", 20)


def test_two_that_serve_are_announced_with_a_proof_of_each(registry: Registry) -> None:
    first, second = added(registry).version, added(registry, "other").version
    now = Assignment(first, second, ("pets", "toys"))
    event = announcement(registry, "promoted", second, 7, now)
    assert event.version == second and event.uri.endswith(second)
    for part, version in zip(event.serves, (first, second), strict=True):
        sealed = registry.sealed(version)
        assert part.version == version and part.manifest_sha256 == sealed.sha256
        assert part.sha256 == sealed.manifest.weights_sha256
    assert [part.segments for part in event.serves] == [[], ["pets", "toys"]]
    assert assignment_of(event) == now
    checker(registry)(event)
    # What was gone back to is named where it is the default, too.
    back = announcement(registry, "rolled_back", first, 8, now)
    assert (back.version, back.sha256) == (first, registry.manifest(first).weights_sha256)
    checker(registry)(back)


def test_the_shipped_weights_may_serve_beside_a_version(registry: Registry) -> None:
    version = added(registry).version
    event = announcement(registry, "promoted", version, 7, Assignment(BASE, version, ("pets",)))
    checker(registry)(event)
    assert (event.serves[0].version, event.serves[0].manifest_sha256) == (BASE, "")


@pytest.mark.parametrize(
    ("part", "change", "reason"),
    [
        (0, {"manifest_sha256": ""}, "without the sha256 of its manifest"),
        (0, {"manifest_sha256": "0" * 64}, "comes with sha256 0000000000000000"),
        (1, {"manifest_sha256": ""}, "without the sha256 of its manifest"),
        (1, {"sha256": "0" * 64}, "sha256 of other weights"),
        (0, {"version": "../../evil"}, "has no version"),
        (0, {"version": BASE}, "is the shipped weights"),
        (0, {"segments": ["pets"]}, "does not say who serves whom: the first serves all others"),
        (1, {"segments": []}, "does not say who serves whom"),
        (1, {"version": "v0009-20260101T000000Z-00000000"}, "what changed is one of the two"),
    ],
)
def test_two_of_which_one_does_not_fit_are_refused(
    registry: Registry, part: int, change: dict[str, Any], reason: str
) -> None:
    first, second = added(registry).version, added(registry, "other").version
    event = announcement(registry, "promoted", second, 7, Assignment(first, second, ("pets",)))
    parts = list(event.serves)
    parts[part] = msgspec.structs.replace(parts[part], **change)
    with pytest.raises(RegistryError, match=reason):
        checker(registry)(msgspec.structs.replace(event, serves=parts))


def test_one_of_two_alone_says_not_who_serves_whom(registry: Registry) -> None:
    first, second = added(registry).version, added(registry, "other").version
    event = announcement(registry, "promoted", second, 7, Assignment(first, second, ("pets",)))
    with pytest.raises(RegistryError, match="does not say who serves whom"):
        checker(registry)(msgspec.structs.replace(event, serves=event.serves[1:]))
