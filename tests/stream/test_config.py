"""Settings: defaults, file, environment, secret files, and errors that name the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from freshet.stream.config import env_name, known_settings, load, shown
from freshet.stream.errors import ConfigError
from freshet.stream.event_settings import Rule


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "freshet.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, '[kafka]\nbootstrap_servers = "file:1"\ngroup_prefix = "shop"\n')
    loaded = load(path, {"FRESHET_KAFKA__BOOTSTRAP_SERVERS": "env:1"})
    assert loaded.settings.kafka.bootstrap_servers == "env:1"
    assert loaded.settings.kafka.group_prefix == "shop"
    assert loaded.sources == {
        "kafka.bootstrap_servers": "FRESHET_KAFKA__BOOTSTRAP_SERVERS",
        "kafka.group_prefix": str(path),
    }


def test_a_secret_can_come_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    loaded = load(None, {"FRESHET_KAFKA__SASL_PASSWORD_FILE": str(secret)})
    assert loaded.settings.kafka.sasl_password.get_secret_value() == "hunter2"
    assert "hunter2" not in str(shown(loaded.settings, loaded.sources))


def test_lists_and_tables_are_json_in_the_environment() -> None:
    settings = load(
        None,
        {"FRESHET_EVENTS__SERIES_BY": '["sku"]', "FRESHET_EVENTS__ORDERS_FIELDS": '{"sku": "a.b"}'},
    ).settings
    assert settings.events.series_by == ("sku",)
    assert settings.events.orders_fields == {"sku": "a.b"}


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"FRESHET_KAFKA__BOOTSTRP_SERVERS": "x"}, "did you mean FRESHET_KAFKA__BOOTSTRAP_SERVERS"),
        ({"FRESHET_WORKER__THREADS": "many"}, "FRESHET_WORKER__THREADS: worker.threads"),
        ({"FRESHET_EVENTS__SERIES_BY": "sku"}, "must be JSON"),
        ({"FRESHET_REDIS__URL_FILE": "/no/such/file"}, "cannot be read"),
        ({"FRESHET_WORKER__RESOLUTION_MS": "7"}, "not one of windows.resolutions"),
    ],
)
def test_a_wrong_environment_says_which_variable_and_what_to_do(
    environ: dict[str, str], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        load(None, environ)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[kafka]\nbootstrap_server = 'x'\n", "did you mean kafka.bootstrap_servers"),
        ("[kafak]\nx = 1\n", "unknown setting kafak"),
        ("[event.orders]\nmode = 'state'\n", r"did you mean events\?"),
        ("kafka = 3\n", r"write \[kafka\]"),
        ("[kafka\n", "cannot be read"),
        ("[ingest]\nbatch_max_records = 0\n", "ingest.batch_max_records"),
    ],
)
def test_a_wrong_file_says_which_key_and_what_to_do(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(toml(tmp_path, text), {})


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "none.toml", {})


def test_every_setting_has_its_own_environment_name() -> None:
    names = [env_name(setting.name) for setting in known_settings()]
    assert len(set(names)) == len(names) > 80


def test_what_other_commands_read_from_the_environment_is_no_unknown_setting() -> None:
    assert load(None, {"FRESHET_DATA": "data", "FRESHET_FAILPOINT": "before_apply:1"}) == load(
        None, {}
    )


# What is served -----------------------------------------------------------------------------------


def test_minutes_of_flash_sales_hours_and_days_are_served_and_hours_are_the_main_ones() -> None:
    settings = load(None, {}).settings
    table = [(one.resolution_ms, one.prediction_length) for one in settings.served]
    assert table == [(60_000, 120), (3_600_000, 48), (86_400_000, 35)]
    assert [one.flash_sales_only for one in settings.served] == [True, False, False]
    assert settings.main.resolution_ms == 3_600_000


def test_a_width_named_alone_is_served_alone_with_its_own_steps() -> None:
    environ = {
        "FRESHET_WORKER__RESOLUTION_MS": "60000",
        "FRESHET_WORKER__PREDICTION_LENGTH": "30",
        "FRESHET_WORKER__SCORE_STEPS": "[1, 2]",
        "FRESHET_WORKER__CONTEXT_LENGTH": "96",
    }
    (one,) = load(None, environ).settings.served
    assert (one.resolution_ms, one.prediction_length, one.score_steps) == (60_000, 30, (1, 2))
    assert (one.context_length, one.season_length, one.flash_sales_only) == (96, 168, False)


def test_a_shop_that_folds_fewer_widths_is_served_by_those() -> None:
    environ = {"FRESHET_WINDOWS__RESOLUTIONS": '[{"resolution_ms": 3600000, "buckets": 900}]'}
    assert [one.resolution_ms for one in load(None, environ).settings.served] == [3_600_000]


@pytest.mark.parametrize(
    ("worker", "text"),
    [
        ({"RESOLUTIONS": "[]"}, "add one of all items"),
        (
            {
                "RESOLUTIONS": '[{"resolution_ms": 3600000, "prediction_length": 2, '
                '"season_length": 24, "score_steps": [1]}]',
                "SEASON_LENGTH": "24",
            },
            "set one of them",
        ),
        (
            {
                "RESOLUTIONS": '[{"resolution_ms": 3600000, "prediction_length": 2, '
                '"season_length": 24, "score_steps": [1], "flash_sales_only": true}]'
            },
            "add one of all items",
        ),
        (
            {
                "RESOLUTIONS": '[{"resolution_ms": 7200000, "prediction_length": 2, '
                '"season_length": 24, "score_steps": [1]}]'
            },
            "not one of windows.resolutions",
        ),
    ],
)
def test_a_table_of_resolutions_that_cannot_be_served_is_refused(
    worker: dict[str, str], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        load(None, {f"FRESHET_WORKER__{name}": value for name, value in worker.items()})


def test_maps_are_tables_of_rules(tmp_path: Path) -> None:
    path = tmp_path / "freshet.toml"
    path.write_text(
        "[events.orders]\n"
        'keep_when = {status = ["paid", 1, true]}\n'
        "[events.orders.fields]\n"
        'sku = "a.b"\n'
        'quantity = {path = ["n", "m"], sign = {path = "kind", words = {refund = -1, "*" = 1}}}\n'
    )
    events = load(path, {}).settings.events
    assert events.section("orders").keep_when == {"status": ("paid", 1, True)}
    fields = events.fields_of("orders")
    assert fields["sku"] == "a.b"
    quantity = fields["quantity"]
    assert isinstance(quantity, Rule)
    assert quantity.path == ("n", "m")
    assert quantity.sign == Rule(path="kind", words={"refund": -1, "*": 1})
    said = {"FRESHET_EVENTS__ORDERS__SKIP_WHEN": '{"test": true}'}
    assert load(path, said).settings.events.orders.skip_when == {"test": True}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("orders_fields = {sku = 'a'}\norders.fields = {sku = 'a'}", "older spelling"),
        ("orders.fields = {sku = {path = 'a', header = 'b'}}", "a rule has one of path"),
        ("orders.fields = {sku = {number = '1.0'}}", "a rule has one of path"),
        ("orders.fields = {sku = {pth = 'a'}}", "no 'pth'; did you mean 'path'"),
        ("orders.fields = {sku = {path = 'a', zone = 'Berlin'}}", "not a time zone"),
        ("orders.fields = {sku = 5}", "orders.fields.sku"),
        ("time_zone = 'Berlin'", "not a time zone"),
        ("rates = {USD = 0}", "greater than 0"),
    ],
)
def test_maps_that_cannot_be_are_refused(tmp_path: Path, text: str, wrong: str) -> None:
    path = tmp_path / "freshet.toml"
    path.write_text(f"[events]\n{text}\n")
    with pytest.raises(ConfigError, match=wrong):
        load(path, {})
