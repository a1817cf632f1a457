"""What a demo was asked for, checked, and the settings its processes share."""

from __future__ import annotations

import socket
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from freshet.stream.config import Settings, env_name
from freshet.stream.errors import ConfigError
from freshet.stream.source.simulator.plan import DRIFT_SHARE, SCENARIOS, TOUR_SECONDS

LIVE_SPEED = 900.0
HEADLESS_SPEED = 3_600.0
HISTORY_DAYS = 28
REPLAY_HISTORY_DAYS = 56
RETRAIN_TOKEN = "this-is-only-a-demo"
"""With it a visitor of the demo's page asks for training; control listens on this machine alone."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The arguments of `freshet demo`; None means the default for this kind of run."""

    seconds: int | None = None
    headless: bool = False
    summary: Path | None = None
    items: int | None = None
    seed: int = 1
    speed: float | None = None
    scenario: str = "drift"
    replay: Path | None = None
    preset: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    broker: str = "embedded"
    data_dir: Path | None = None
    port: int | None = None

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise ConfigError(
                f"--scenario {self.scenario} is unknown", hint=f"one of {', '.join(SCENARIOS)}"
            )
        if self.broker not in ("embedded", "kafka"):
            raise ConfigError(f"--broker {self.broker} is unknown", hint="embedded or kafka")
        if self.replay is not None and not self.replay.exists():
            raise ConfigError(f"--replay {self.replay}: no such file")
        if self.replay is not None and not self.preset and not self.columns:
            raise ConfigError("--replay needs --preset NAME or --map field=column")

    @property
    def simulated_per_second(self) -> float:
        """Simulated milliseconds per wall millisecond after the back-fill."""
        return self.speed or (HEADLESS_SPEED if self.headless else LIVE_SPEED)

    @property
    def drift_after_ms(self) -> int:
        """Simulated time from the start of live until the planted drift."""
        tour_ms = (self.seconds or TOUR_SECONDS) * 1_000 * self.simulated_per_second
        return int(tour_ms * DRIFT_SHARE)


OWNED = ("kafka.bootstrap_servers", "redis.url", "learn.registry", "dashboard.port")


def claim_environ(environ: MutableMapping[str, str]) -> None:
    """Take out what the demo itself decides, so that its processes never reach another deployment.

    >>> environ = {"FRESHET_REDIS__URL": "redis://production/0", "FRESHET_WORKER__THREADS": "2"}
    >>> claim_environ(environ)
    >>> sorted(environ)
    ['FRESHET_WORKER__THREADS', 'OMP_NUM_THREADS', 'PYTHONUNBUFFERED']
    """
    for name in OWNED:
        environ.pop(env_name(name), None)
        environ.pop(env_name(name) + "_FILE", None)
    environ.setdefault("OMP_NUM_THREADS", "1")
    environ["PYTHONUNBUFFERED"] = "1"


def free_port(preferred: int | None = None) -> int:
    """A port nobody listens on: the preferred one if it is free."""
    for port in [preferred, 0] if preferred else [0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port or 0))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError("no free port on 127.0.0.1")


def dashboard_port(asked: int | None, settings: Settings) -> int:
    """The asked port, which must be free; else the configured one or any free one.

    Raises:
        ConfigError: The asked port is taken.
    """
    if asked is None or asked == 0:
        return free_port(settings.dashboard.port if asked is None else None)
    if free_port(asked) != asked:
        raise ConfigError(f"--port {asked} is taken", hint="choose another, or 0 for any free one")
    return asked


def config_text(
    bootstrap_servers: str,
    redis_url: str,
    port: int,
    data_dir: Path,
    *,
    control_port: int,
    transactions: bool,
) -> str:
    """The settings of all processes of a demo, as TOML that any `freshet` command takes.

    Args:
        bootstrap_servers: Of the broker.
        redis_url: Of the window store.
        port: Of the page.
        data_dir: Where versions of weights go.
        control_port: Where control answers who asks for training.
        transactions: Whether the broker has them; the embedded one shows what is not committed.
    """
    return "\n".join(
        [
            "# Written by `freshet demo`; pass it as --config to look into the running demo.",
            "[kafka]",
            f'bootstrap_servers = "{bootstrap_servers}"',
            "session_timeout_ms = 6000",
            "[redis]",
            f'url = "{redis_url}"',
            "[worker]",
            "threads = 1",
            f"exactly_once = {str(transactions).lower()}",
            "[control]",
            # A week is minutes here, and what trains then is in the way of the drift.
            "schedule_ms = 0",
            f"http_port = {control_port}",
            f'retrain_token = "{RETRAIN_TOKEN}"',
            "[learn]",
            f'registry = "{data_dir / "registry"}"',
            "threads = 1",
            "[dashboard]",
            f"port = {port}",
            f'control_url = "http://127.0.0.1:{control_port}"',
            "[telemetry]",
            'log_format = "text"',
            "",
        ]
    )
