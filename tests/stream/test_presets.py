"""A preset is the same map as its keys by hand, and what stands beside it wins."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from freshet.stream import presets
from freshet.stream.config import Settings, load, shown
from freshet.stream.errors import ConfigError
from freshet.stream.event_settings import EventSettings
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.fold.headers import fingerprint

MAPS = [(name, kind) for name in presets.names() for kind in presets.kinds_of(name)]


def settings_of(kind: str, section: dict[str, Any]) -> Settings:
    return Settings.model_validate({"events": {kind: section}})


@pytest.mark.parametrize(("name", "kind"), MAPS)
def test_a_preset_makes_the_windows_that_its_keys_by_hand_make(name: str, kind: Any) -> None:
    by_hand = settings_of(kind, tomllib.loads(presets.text_of(name))["events"][kind])
    by_name = settings_of(kind, {"preset": name})
    assert fingerprint(kind, by_name) == fingerprint(kind, by_hand)
    assert fingerprint(kind, by_name) != fingerprint(kind, Settings())
    EventDecoder(kind, by_name.events)


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_sets_nothing_but_the_maps_of_topics(name: str) -> None:
    assert tomllib.loads(presets.text_of(name)).keys() == {"events"}
    assert set(presets.kinds_of(name)) <= set(EventSettings.model_fields)
    assert presets.text_of(name).startswith("# ")


def test_what_is_set_beside_a_preset_wins_field_by_field() -> None:
    beside = {"mode": "events", "fields": {"region": "shop", "event_id": "name"}}
    orders = settings_of("orders", {"preset": "shopify", **beside}).events.orders
    assert (orders.mode, orders.skip_when["test"]) == ("events", True)  # type: ignore[index]
    assert (orders.fields["region"], orders.fields["event_id"]) == ("shop", "name")
    assert orders.fields["lines"] == "line_items"


def test_a_preset_can_be_set_by_the_environment() -> None:
    environ = {"FRESHET_EVENTS__ORDERS__PRESET": "shopify"}
    assert load(environ=environ).settings.events.orders.mode == "state"


def test_config_show_tells_what_came_from_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "freshet.toml"
    section = '[events.orders]\npreset = "shopify"\nkey = "any"\n'
    path.write_text(f'{section}[events.orders.fields]\nregion = "shop"\n')
    loaded = load(path, environ={})
    found = {name: source for name, _, source in shown(loaded.settings, loaded.sources)}
    assert found["events.orders.preset"] == str(path)
    assert found["events.orders.mode"] == "its preset"
    assert found["events.orders.key"] == str(path)
    assert found["events.orders.fields"] == f"its preset, and {path}"
    assert found["events.orders.keep_ms"] == found["events.clicks.fields"] == "default"


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("orders", "shopfy", "there is no preset 'shopfy'; did you mean 'shopify'?"),
        ("orders", "Shopify", "there is no preset 'Shopify'; did you mean 'shopify'?"),
        ("orders", "zzz", "there is no preset 'zzz'; known are "),
        ("clicks", "shopify", "the preset 'shopify' has orders, and no clicks"),
    ],
)
def test_a_preset_that_is_not_there_is_told_with_the_nearest(
    kind: str, name: str, text: str
) -> None:
    with pytest.raises(ValidationError, match="preset") as caught:
        settings_of(kind, {"preset": name})
    assert text in str(caught.value)
    with pytest.raises(ConfigError) as told:
        load(environ={f"FRESHET_EVENTS__{kind.upper()}__PRESET": name})
    assert text in told.value.message
