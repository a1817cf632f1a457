"""What a person does with versions: what is served afterwards, and what the workers are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from freshet.online.weights import registry as registry_module
from freshet.online.weights import versions as module
from freshet.online.weights.announced import assignment_of
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import (
    BASE,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    Registry,
    sha256_of,
)
from freshet.online.weights.versions import (
    collect,
    promote,
    rollback,
    show,
    sign,
    verify,
    versions,
)
from freshet.stream.codec import decode
from freshet.stream.config import LearnSettings, RedisSettings, Settings
from freshet.stream.errors import ConfigError, RegistryError, StoreUnavailableError
from freshet.stream.schemas import ModelEvent

UNKNOWN = "v0009-20231114T221320Z-00000000"


class Shop:
    """A registry in a folder, and what was published on the topic of models."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(
            learn=LearnSettings(registry=folder), redis=RedisSettings(url="redis://here:1")
        )
        self.registry = Registry(folder)
        self.told: list[tuple[str, str, ModelEvent]] = []
        self.flushed: list[int] = []
        self.served: list[str] = []

    def add(self, text: str, parent: str = BASE) -> str:
        def build(folder: Path) -> None:
            (folder / "model.safetensors").write_text(text)

        return self.registry.add(build, parent=parent, created_at_ms=0).version

    def aliases(self) -> dict[str, list[str]]:
        return {str(entry["version"]): entry["aliases"] for entry in versions(self.settings)}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    shop = Shop(tmp_path / "registry")

    class Publisher:
        def __init__(self, settings: Settings) -> None:
            assert settings is shop.settings

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def produce(self, topic: str, value: bytes, *, key: str) -> None:
            shop.told.append((topic, key, decode(ModelEvent, value)))
            shop.served.append(str(shop.registry.champion()))

        def flush(self) -> None:
            shop.flushed.append(len(shop.told))

    def clock_of(client: Any) -> Any:
        assert client == "redis://here:1"
        return SimpleNamespace(now_ms=lambda: 123)

    monkeypatch.setattr(module, "Publisher", Publisher)
    monkeypatch.setattr(module, "connect", lambda redis: redis.url.get_secret_value())
    monkeypatch.setattr(module, "open_clock", clock_of)
    return shop


def test_the_shipped_weights_come_first_then_all_versions_each_with_its_aliases(
    shop: Shop,
) -> None:
    assert versions(shop.settings) == [{"version": BASE, "aliases": [CHAMPION]}]
    first = shop.add("one")
    second = shop.add("two", parent=first)
    shop.registry.serve(Assignment(first))
    shop.registry.serve(Assignment(second))
    shop.registry.move_alias(CHALLENGER, second)
    assert versions(shop.settings) == [
        {"version": BASE, "aliases": []},
        {"version": first, "aliases": [PREVIOUS]},
        {"version": second, "aliases": [CHAMPION, CHALLENGER]},
    ]


def test_an_alias_of_what_is_no_version_is_listed_with_what_is_wrong(shop: Shop) -> None:
    first, second = shop.add("one"), shop.add("two")
    shop.registry.serve(Assignment(first))
    (shop.registry.path(first) / "manifest.json").unlink()
    sound, other, lost = versions(shop.settings)
    assert sound == {"version": BASE, "aliases": [PREVIOUS]}
    assert other == {"version": second, "aliases": []}
    assert (lost["version"], lost["aliases"]) == (first, [CHAMPION])
    assert "half written" in lost["wrong"]


def test_a_version_is_shown_by_its_name_or_an_alias_once_its_files_were_checked(
    shop: Shop,
) -> None:
    assert show(shop.settings, CHAMPION) == show(shop.settings, BASE) == {"version": BASE}
    assert show(shop.settings, PREVIOUS) == {"version": BASE}
    first, second = shop.add("one"), shop.add("two")
    shop.registry.serve(Assignment(second))
    shown = show(shop.settings, CHAMPION)
    file = shop.registry.path(second) / "model.safetensors"
    assert (shown["version"], shown["parent"]) == (second, BASE)
    assert shown["sha256"] == {"model.safetensors": sha256_of(file)}
    assert show(shop.settings, first)["version"] == first
    file.write_text("altered")
    with pytest.raises(RegistryError, match="altered"):
        show(shop.settings, CHAMPION)


def test_promoting_serves_a_version_and_then_tells_the_workers_where_it_is(shop: Shop) -> None:
    first, second = shop.add("one"), shop.add("two")
    assert promote(shop.settings, first) == f"{first} is the champion, {BASE} was"
    assert promote(shop.settings, second) == f"{second} is the champion, {first} was"
    folder = shop.registry.path(second)
    event = ModelEvent(
        kind="promoted",
        version=second,
        at_ms=123,
        sha256=sha256_of(folder / "model.safetensors"),
        manifest_sha256=sha256_of(folder / "manifest.json"),
        uri=str(folder.resolve()),
        parent=first,
        reason="by hand",
    )
    assert shop.told[1] == (shop.settings.kafka.topics.models, f"promoted:{second}", event)
    assert shop.served == [first, second] and shop.flushed == [1, 2]
    assert shop.aliases() == {BASE: [], first: [PREVIOUS], second: [CHAMPION]}


def test_workers_in_other_folders_are_told_the_whole_path(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = shop.add("one")
    monkeypatch.chdir(tmp_path)
    learn = LearnSettings(registry=Path("registry"))
    monkeypatch.setattr(shop, "settings", shop.settings.model_copy(update={"learn": learn}))
    promote(shop.settings, version)
    assert shop.told[0][2].uri == str((tmp_path / "registry" / "versions" / version).resolve())


def test_rolling_back_serves_the_parent_and_then_tells_the_workers_so(shop: Shop) -> None:
    first = shop.add("one")
    second = shop.add("two", parent=first)
    shop.registry.serve(Assignment(second))
    assert rollback(shop.settings) == f"{first} is the champion again, {second} was"
    assert rollback(shop.settings) == f"{BASE} is the champion again, {first} was"
    folder = shop.registry.path(first)
    sha256 = sha256_of(folder / "model.safetensors")
    told = [(key, event.version, event.parent, event.sha256) for _, key, event in shop.told]
    assert told == [
        (f"rolled_back:{first}", first, second, sha256),
        (f"rolled_back:{BASE}", BASE, first, ""),
    ]
    events = [event for _, _, event in shop.told]
    assert [event.uri for event in events] == [str(folder.resolve()), ""]
    assert {(event.kind, event.at_ms, event.reason) for event in events} == {
        ("rolled_back", 123, "by hand")
    }
    assert shop.served == [first, BASE]


def test_the_shipped_weights_can_be_promoted_too(shop: Shop) -> None:
    first = shop.add("one")
    shop.registry.serve(Assignment(first))
    assert promote(shop.settings, BASE) == f"{BASE} is the champion, {first} was"
    assert str(shop.registry.champion()) == BASE
    assert [(key, event.sha256, event.uri) for _, key, event in shop.told] == [
        (f"promoted:{BASE}", "", "")
    ]


@pytest.mark.parametrize("act", [promote, show])
def test_what_is_not_there_is_neither_served_nor_told(
    shop: Shop, act: Callable[[Settings, str], object]
) -> None:
    with pytest.raises(RegistryError, match="no version"):
        act(shop.settings, UNKNOWN)
    with pytest.raises(RegistryError, match="nothing to roll back"):
        rollback(shop.settings)
    assert str(shop.registry.champion()) == BASE and shop.told == []


def test_an_altered_version_is_not_promoted(shop: Shop) -> None:
    version = shop.add("one")
    (shop.registry.path(version) / "model.safetensors").write_text("altered")
    with pytest.raises(RegistryError, match="altered"):
        promote(shop.settings, version)
    assert str(shop.registry.champion()) == BASE and shop.told == []


def test_nothing_moves_when_the_version_to_roll_back_to_was_altered(shop: Shop) -> None:
    first = shop.add("one")
    second = shop.add("two", parent=first)
    shop.registry.serve(Assignment(second))
    (shop.registry.path(first) / "model.safetensors").write_text("altered")
    with pytest.raises(RegistryError, match="altered"):
        rollback(shop.settings)
    assert str(shop.registry.champion()) == second and shop.told == []


def test_what_is_wrong_with_each_version_is_told_and_with_what_else_lies_there(shop: Shop) -> None:
    first, second = shop.add("one"), shop.add("two")
    assert verify(shop.settings) == [
        {"name": first, "wrong": ""},
        {"name": second, "wrong": ""},
    ]
    file = shop.registry.path(second) / "model.safetensors"
    file.write_text("altered")
    (shop.registry.folder / "versions" / UNKNOWN).mkdir()
    sound, altered, half = verify(shop.settings)
    assert sound == {"name": first, "wrong": ""}
    assert altered["name"] == second and f"{file} was altered" in altered["wrong"]
    assert half["name"] == UNKNOWN and "half written" in half["wrong"]
    shop.registry.serve(Assignment(first))
    assert verify(shop.settings, CHAMPION) == [{"name": first, "wrong": ""}]
    assert verify(shop.settings, BASE) == [{"name": BASE, "wrong": ""}]
    (missing,) = verify(shop.settings, "v0008-20231114T221320Z-00000000")
    assert "has no version" in missing["wrong"]


def test_what_nobody_needs_is_deleted_and_nothing_else(shop: Shop) -> None:
    made = [shop.add("0")]
    for number in range(1, 8):
        made.append(shop.add(str(number), parent=made[-1]))
    shop.registry.serve(Assignment(made[3]))
    shop.registry.serve(Assignment(made[4]))
    shop.registry.move_alias(CHALLENGER, made[1])
    # The champion is 4 and its parent 3, which `previous` names; 1 is the challenger, 0 its parent,
    # and 2 the parent of 3. Of the others the newest stay.
    assert collect(shop.settings, 1, delete=False) == [made[5], made[6]]
    assert len(shop.registry.list()) == 8
    assert collect(shop.settings, 2, delete=True) == [made[5]]
    assert [manifest.version for manifest in shop.registry.list()] == made[:5] + made[6:]
    assert rollback(shop.settings) == f"{made[3]} is the champion again, {made[4]} was"
    assert collect(shop.settings, 100, delete=True) == []


def test_to_keep_more_than_there_are_deletes_none(shop: Shop) -> None:
    made = [shop.add("0")]
    for number in range(1, 4):
        made.append(shop.add(str(number), parent=made[-1]))
    shop.registry.serve(Assignment(made[3]))
    assert collect(shop.settings, 5, delete=False) == []


def test_only_a_key_signs(shop: Shop) -> None:
    version = shop.add("one")
    with pytest.raises(ConfigError, match=r"no key to sign with; --key, or learn\.signing_key"):
        sign(shop.settings, version, None)


def test_a_version_is_signed_by_the_key_that_is_named_else_by_that_of_the_settings(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = []
    monkeypatch.setattr(Registry, "sign", lambda self, version, key: signed.append((version, key)))
    monkeypatch.setattr(registry_module, "check_keys", lambda *keys: None)
    version = shop.add("one")
    shop.registry.serve(Assignment(version))
    learn = shop.settings.learn.model_copy(update={"signing_key": "ours.pem"})
    settings = shop.settings.model_copy(update={"learn": learn})
    assert sign(settings, CHAMPION, None) == f"{version} is signed"
    assert sign(settings, version, Path("other.pem")) == f"{version} is signed"
    assert signed == [(version, Path("ours.pem")), (version, Path("other.pem"))]


def test_nothing_moves_when_nobody_can_be_told_the_time(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is in Redis."""

    def away(client: object) -> None:
        raise StoreUnavailableError("away")

    version = shop.add("one")
    monkeypatch.setattr(module, "open_clock", away)
    with pytest.raises(StoreUnavailableError):
        promote(shop.settings, version)
    assert str(shop.registry.champion()) == BASE
    shop.registry.serve(Assignment(version))
    with pytest.raises(StoreUnavailableError):
        rollback(shop.settings)
    assert str(shop.registry.champion()) == version and shop.told == []


# Two that serve -----------------------------------------------------------------------------------


def test_a_version_may_be_promoted_for_some_and_is_listed_so(shop: Shop) -> None:
    first, second = shop.add("one"), shop.add("two")
    shop.registry.serve(Assignment(first))
    said = promote(shop.settings, second, ["toys", "pets"])
    assert said == f"{first}, {second} for pets, toys is the champion, {first} was"
    ((_, key, event),) = shop.told
    assert key == f"promoted:{second}" and event.parent == first
    assert assignment_of(event) == Assignment(first, second, ("pets", "toys"))
    assert versions(shop.settings) == [
        {"version": BASE, "aliases": []},
        {"version": first, "aliases": [CHAMPION, PREVIOUS]},
        {"version": second, "aliases": [CHAMPION], "segments": ["pets", "toys"]},
    ]
    shown = show(shop.settings, CHAMPION)
    assert shown["version"] == first and shown["beside"] == {second: ["pets", "toys"]}
    assert "beside" not in show(shop.settings, second)


def test_a_third_version_is_promoted_for_everybody_or_not_at_all(shop: Shop) -> None:
    first, second, third = (shop.add(text) for text in ("one", "two", "three"))
    two = Assignment(first, second, ("pets",))
    shop.registry.serve(two)
    with pytest.raises(RegistryError, match="would be the third") as error:
        promote(shop.settings, third, ["toys"])
    assert error.value.hint == "at most two versions serve: promote one for everybody first"
    assert shop.registry.champion() == two and shop.told == []
    # In the place of the second it is no third.
    promote(shop.settings, third, ["pets", "toys"])
    assert shop.registry.champion() == Assignment(first, third, ("pets", "toys"))
    promote(shop.settings, third)
    assert shop.registry.champion() == Assignment(third)
    assert [event.serves == [] for _, _, event in shop.told] == [False, True]


def test_segments_are_given_back_by_promoting_the_default_for_them(shop: Shop) -> None:
    first, second = shop.add("one"), shop.add("two")
    shop.registry.serve(Assignment(first, second, ("pets", "toys")))
    promote(shop.settings, first, ["toys"])
    assert shop.registry.champion() == Assignment(first, second, ("pets",))


def test_of_two_the_newest_is_rolled_back_and_the_other_serves_on(shop: Shop) -> None:
    first = shop.add("one")
    second = shop.add("two", parent=first)
    third = shop.add("three", parent=second)
    shop.registry.serve(Assignment(first, third, ("pets",)))
    for version, serving in (
        (second, Assignment(first, second, ("pets",))),
        (first, Assignment(first)),
        (BASE, Assignment()),
    ):
        rollback(shop.settings)
        assert shop.registry.champion() == serving
        assert assignment_of(shop.told[-1][2]) == serving
        assert shop.told[-1][2].version == version


def test_what_was_promoted_last_is_rolled_back_though_it_was_made_first(shop: Shop) -> None:
    first, second = shop.add("one"), shop.add("two")
    shop.registry.serve(Assignment(second))
    promote(shop.settings, first, ["pets"])
    rollback(shop.settings)
    assert shop.registry.champion() == Assignment(second), "not its parent, which serves nobody"
    assert (shop.told[-1][2].version, shop.told[-1][2].parent) == (second, first)


def test_what_serves_some_is_needed_and_not_deleted(shop: Shop) -> None:
    made = [shop.add(str(number)) for number in range(4)]
    shop.registry.serve(Assignment(made[2], made[0], ("pets",)))
    assert collect(shop.settings, 1, delete=True) == [made[1]]
    with pytest.raises(RegistryError, match="is the champion"):
        shop.registry.remove(made[0])


def test_a_champion_that_cannot_be_read_is_mended_by_promoting_for_everybody(shop: Shop) -> None:
    version = shop.add("one")
    shop.registry.serve(Assignment(version))
    (shop.registry.folder / "aliases" / "champion").write_text("nonsense")
    with pytest.raises(RegistryError, match="which is no version"):
        promote(shop.settings, version, ["pets"])
    promote(shop.settings, version)
    assert shop.registry.champion() == Assignment(version)
