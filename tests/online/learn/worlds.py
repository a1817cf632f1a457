"""A past, a clock and the three topics, of which learners are made again and again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.network import FreshetNetwork
from freshet.online.learn.announcer import Announcer
from freshet.online.learn.finetune import Challenger
from freshet.online.learn.learner import Learner
from freshet.online.learn.ledger import Ledger
from freshet.online.learn.networks import VersionedNetworks
from freshet.online.trials.guard import Guard
from freshet.online.trials.pools import Pools
from freshet.online.weights.announced import checker
from freshet.online.weights.registry import BASE, Registry
from freshet.stream.config import LearnSettings
from freshet.stream.schemas import DriftAlert, ModelEvent, RetrainRequest
from freshet.stream.units import HOUR_MS
from tests.online.learn.learning import START_MS, STEPS, PastInMemory, network_that_says, said_by

SETTINGS = LearnSettings(
    seed=5,
    recent_buckets=48,
    holdout_buckets=12,
    probation_buckets=12,
    device="cpu",
)
ONSET = 300
# Every item sells 10 an hour before the onset and 30 from it on. Every version forecasts 12 while
# sales are low and the number that it says while they are high; the loss is its distance from that.
LOW, HIGH = 10.0, 30.0
BASE_SAYS, TAUGHT_SAYS = 24.0, 29.0


class Crash(Exception):
    """The process died here."""


class SaidForecaster:
    """Forecasts what its network says, in place of `BatchForecaster`."""

    quantile_levels = (0.1, 0.5, 0.9)

    def __init__(self, network: FreshetNetwork, device: str, dtype: str) -> None:
        self.said = said_by(network)

    def forecast(self, batch: Batch, max_rows: int = 0) -> Tensor:
        high_B = batch.target_BT[:, -1] > 20.0
        told_B = torch.where(high_B, self.said, 12.0)
        return told_B[:, None, None].expand(-1, STEPS, 3)


class World:
    """A past, a clock and the three topics; a learner may be made of them again and again."""

    def __init__(self, folder: Path, base: Path, *, onset: int, known: int) -> None:
        self.past = PastInMemory(600)
        self.past.units_IN[:, :onset] = LOW
        self.past.units_IN[:, onset:] = HIGH
        self.past.known_buckets = known
        self.registry = Registry(folder / "registry")
        self.base = base
        self.requests: list[RetrainRequest] = []
        self.alerts: list[DriftAlert] = []
        self.events: list[ModelEvent] = []
        self.stopped: Callable[[], None] = lambda: None
        # What the next training arrives at, and what was trained from what.
        self.taught = TAUGHT_SAYS
        self.trained: list[tuple[FreshetNetwork, Pools, LearnSettings]] = []
        # The other resolutions that are served.
        self.guards: list[Guard] = []
        # Hours that become final while it trains: the first day of a trial is over then.
        self.training_takes = 12
        self.learner = self.restarted()

    def restarted(self) -> Learner:
        """A new process that reads the topics from their start."""
        ledger = Ledger(checker(self.registry))
        for request in self.requests:
            ledger.take_request(request)
        for event in self.events:
            ledger.take_event(event)
        for alert in self.alerts:
            ledger.take_drift(alert)
        self.learner = Learner(
            SETTINGS,
            self.past,
            VersionedNetworks(self.registry, SETTINGS.device, self.base),
            Announcer(self.events.append, lambda: self.now_ms, ledger),
            guards=lambda: self.guards,
            stopped=lambda: self.stopped(),
        )
        return self.learner

    def make_challenger(
        self,
        champion: FreshetNetwork,
        pools: Pools,
        *,
        settings: LearnSettings,
        base: FreshetNetwork,
        stopped: Callable[[], None],
    ) -> Challenger:
        """Training, which arrives where this world wants it to."""
        stopped()
        assert said_by(base) == BASE_SAYS, "whatever the champion is"
        self.trained.append((champion, pools, settings))
        self.pass_hours(self.training_takes)
        return Challenger(
            network=network_that_says(self.taught),
            factor=0.5,
            validation={0.5: 1.0},
            train_losses=(3.0, 2.0, 1.0),
            seconds=1.2345,
        )

    @property
    def now_ms(self) -> int:
        return START_MS + self.past.known_buckets * HOUR_MS

    def ask(
        self, request_id: str = "r1", reason: Any = "drift", hour: int | None = None, **over: Any
    ) -> None:
        at_ms = self.now_ms if hour is None else START_MS + hour * HOUR_MS
        request = RetrainRequest(
            request_id=request_id, requested_at_ms=at_ms, reason=reason, **over
        )
        self.requests.append(request)
        self.learner.ledger.take_request(request)

    def alert(self, onset: int) -> None:
        alert = DriftAlert(
            alert_id="a1",
            segment="s1",
            state="drift",
            kind="timing",
            detector="cusum",
            detected_at_ms=self.now_ms,
            onset_ms=START_MS + onset * HOUR_MS,
            size=1.0,
            weights_version=BASE,
            description="",
            action="",
        )
        self.alerts.append(alert)
        self.learner.ledger.take_drift(alert)

    def pass_hours(self, hours: int) -> None:
        self.past.known_buckets += hours

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def served(self) -> float:
        """What the version says that the registry serves."""
        return said_by(self.learner.networks.load(str(self.registry.champion())))
