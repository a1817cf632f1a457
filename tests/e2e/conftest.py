"""A filled broker and Redis, a dashboard process over them, and a browser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from freshet.stream.config import KafkaSettings, RedisSettings, Settings, Topics
from tests.e2e.shop_world import World, fill_redis, fill_topics

CHROMIUM = "/usr/bin/chromium"
BROWSER_ARGUMENTS = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
RUN = """
from freshet.dashboard.app import run
from freshet.stream.config import load
from freshet.stream.telemetry import configure_logging

settings = load().settings
configure_logging(settings.telemetry)
run(settings, on_ready=lambda address: print(address, flush=True))
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--screenshots", default=None, help="folder that keeps the pictures of the page"
    )


@pytest.fixture
def screenshots(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = Path(
        request.config.getoption("--screenshots", default=None) or tmp_path / "screenshots"
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium; its event loop ends with the file, or no other test could run one."""
    binary = (
        CHROMIUM
        if Path(CHROMIUM).exists()
        else shutil.which("chromium") or shutil.which("chromium-browser")
    )
    if binary is None:
        pytest.skip("there is no Chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=binary, args=BROWSER_ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture
def shop_settings(world: World, mock_broker: str, redis_server: str) -> Settings:
    """Settings of a filled broker and a filled Redis, with topics of this test's own."""
    prefix = f"page{time.time_ns()}"
    topics = Topics(**{name: f"{prefix}.{name}" for name in Topics.model_fields})
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=mock_broker, topics=topics),
        redis=RedisSettings(url=redis_server),
    )
    fill_redis(world, settings)
    fill_topics(world, settings)
    return settings


def environment(settings: Settings) -> dict[str, str]:
    """The settings as a process gets them."""
    topics = settings.kafka.topics.model_dump()
    named = {f"FRESHET_KAFKA__TOPICS__{name.upper()}": topic for name, topic in topics.items()}
    return {
        **os.environ,
        **named,
        "FRESHET_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "FRESHET_REDIS__URL": settings.redis.url.get_secret_value(),
        "FRESHET_DASHBOARD__PORT": "0",
    }


@pytest.fixture
def page_url(shop_settings: Settings, tmp_path: Path) -> Iterator[str]:
    """The address of a dashboard process over the filled shop; it must stop cleanly and soon."""
    with (tmp_path / "dashboard.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN],
            env=environment(shop_settings),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://"), (tmp_path / "dashboard.log").read_text()
    yield address
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, (tmp_path / "dashboard.log").read_text()
