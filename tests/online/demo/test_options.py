"""What a demo may be asked for."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from freshet.online.demo.options import DemoOptions, config_text, dashboard_port
from freshet.stream.config import Settings, load
from freshet.stream.errors import ConfigError
from freshet.stream.units import DAY_MS, HOUR_MS


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"scenario": "storm"}, "one of calm, flash_sale, drift"),
        ({"broker": "rabbit"}, "embedded or kafka"),
        ({"replay": Path("/no/such/file"), "preset": "taobao"}, "no such file"),
        ({"replay": Path(__file__)}, "needs --preset"),
    ],
)
def test_wrong_options_say_what_is_right(wrong: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        DemoOptions(**wrong)  # type: ignore[arg-type]


def test_the_drift_is_planted_at_15_percent_of_a_run() -> None:
    assert DemoOptions(seconds=100, headless=True).drift_after_ms == 15 * HOUR_MS


def test_a_taken_port_that_was_asked_for_is_an_error_and_one_that_was_not_is_avoided() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="taken"):
            dashboard_port(port, Settings())
        settings = Settings().model_copy(
            update={"dashboard": Settings().dashboard.model_copy(update={"port": port})}
        )
        assert dashboard_port(None, settings) != port


@pytest.mark.parametrize("transactions", [True, False])
def test_the_written_config_can_be_read_back(tmp_path: Path, transactions: bool) -> None:
    path = tmp_path / "freshet.toml"
    text = config_text(
        "127.0.0.1:1",
        "redis://127.0.0.1:2/0",
        3,
        tmp_path,
        control_port=4,
        transactions=transactions,
    )
    path.write_text(text)
    settings = load(path, {}).settings
    assert settings.kafka.bootstrap_servers == "127.0.0.1:1"
    assert settings.dashboard.port == 3
    assert settings.worker.exactly_once is transactions
    assert (settings.control.schedule_ms, Settings().control.schedule_ms) == (0, 7 * DAY_MS)
    assert settings.learn.registry == tmp_path / "registry"
    assert settings.control.http_port == 4
    assert settings.dashboard.control_url == "http://127.0.0.1:4"
