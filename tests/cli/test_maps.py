"""`freshet map` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from freshet.cli.main import app
from freshet.stream import presets
from freshet.stream.errors import ConfigError

ORDER = {
    "id": 7,
    "created_at": "2026-03-01T10:00:00Z",
    "updated_at": "2026-03-01T10:00:00Z",
    "cancelled_at": None,
    "line_items": [{"sku": "mug", "quantity": 2, "price": "9.50"}],
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_try_takes_a_preset_and_standard_input() -> None:
    done = CliRunner().invoke(app, ["map", "try", "--preset", "shopify", "-"], json.dumps(ORDER))
    assert done.exit_code == 0, done.output
    assert "sku=mug  region=-  quantity=2  unit_price=9.5" in done.stdout
    assert "on the topic each record's key must be its order_id" in done.stdout


def test_try_with_keys_judges_them() -> None:
    args = ["map", "try", "--preset", "shopify", "--key", "line_items[0].sku", "-"]
    done = CliRunner().invoke(app, args, json.dumps(ORDER))
    assert done.exit_code == 1
    assert "KeyMismatch" in done.stdout


def test_try_without_a_preset_takes_the_configurations_map() -> None:
    Path("freshet.toml").write_text('[events.orders]\npreset = "shopify"\nkey = "any"\n')
    done = CliRunner().invoke(app, ["map", "try", "--json", "-"], json.dumps(ORDER))
    (record,) = json.loads(done.stdout)["records"]
    assert (record["event_id"], record["became"]) == ("7", "applied")


def test_try_ends_with_1_where_nothing_counts() -> None:
    done = CliRunner().invoke(app, ["map", "try", "-"], json.dumps(ORDER))
    assert done.exit_code == 1
    assert "MissingField: the field 'event_id' is missing" in done.stdout


def test_show_lists_presets_and_prints_one_that_a_configuration_takes() -> None:
    listed = CliRunner().invoke(app, ["map", "show"]).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(presets.names())
    printed = CliRunner().invoke(app, ["map", "show", "shopify"]).stdout
    Path("freshet.toml").write_text(printed)
    done = CliRunner().invoke(app, ["map", "try", "-"], json.dumps(ORDER))
    assert done.exit_code == 0, done.output
    with pytest.raises(ConfigError, match="did you mean 'shopify'"):
        CliRunner().invoke(app, ["map", "show", "shopifi"], catch_exceptions=False)
