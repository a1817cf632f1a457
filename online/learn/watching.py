"""A promoted version on probation: looked at when it is due, then confirmed or taken back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from freshet.model.network import FreshetNetwork
from freshet.online.learn.networks import VersionedNetworks
from freshet.online.learn.probation import Probation, Watch, probation_of
from freshet.online.learn.service import Service
from freshet.online.trials.contest import chosen_items
from freshet.online.trials.evaluation import served_by
from freshet.online.trials.pools import History
from freshet.online.trials.shadow import Shadow
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import BASE
from freshet.stream.config import LearnSettings
from freshet.stream.errors import RegistryError, WeightsError
from freshet.stream.schemas import ModelEvent
from freshet.stream.telemetry import get_logger

log = get_logger(__name__)


@dataclass(slots=True)
class Watching:
    """The probation that goes on, if one does.

    Args:
        settings: How long, and how much worse is too much.
        history: The window store's past.
        networks: Versions of weights as networks.
        service: What serves, and a voice.
        now_ms: The clock.
        stopped: Raises when the process is to end.
    """

    settings: LearnSettings
    history: History
    networks: VersionedNetworks
    service: Service
    now_ms: Callable[[], int]
    stopped: Callable[[], None]
    _watch: Watch | None = field(default=None, init=False)
    _watched: Assignment | None = field(default=None, init=False)

    def look(self, promotion: ModelEvent) -> None:
        """Take the looks that are due; the first that decides confirms or takes back."""
        self.history.refresh()
        probation = probation_of(
            promotion, num_buckets=self.settings.probation_buckets, grid=self.history.grid
        )
        if not probation.due(self.history.final_ms() or 0, self.now_ms()):
            return
        networks = self._networks(promotion)
        watch = self._opened(promotion, probation, *networks) if networks is not None else None
        verdict = watch.proceed(self.now_ms()) if watch is not None else None
        if verdict is None:
            return
        log.info("probation", version=promotion.version, **verdict.report)
        if verdict.decision == "goes":
            self.service.take_back(promotion, verdict)
        else:
            self.service.confirm(promotion, verdict.report, verdict.reason)

    def _networks(self, promotion: ModelEvent) -> tuple[FreshetNetwork, FreshetNetwork] | None:
        """The parent and the version; None where the probation is over for want of one."""
        try:
            after = self.networks.load(promotion.version)
        except (WeightsError, RegistryError) as error:
            reason = f"the version on probation cannot be used: {error}"
            self.service.roll_back(reason, version=promotion.version)
            return None
        try:
            return self.networks.load(promotion.parent or BASE), after
        except (WeightsError, RegistryError) as error:
            # It has passed the gate, and what it should be held against is gone.
            self.service.confirm(promotion, {}, f"there is no parent to compare with: {error}")
            return None

    def _opened(
        self,
        promotion: ModelEvent,
        probation: Probation,
        before: FreshetNetwork,
        after: FreshetNetwork,
    ) -> Watch | None:
        """The watch of a probation; None where nobody is served by the version."""
        current = self.service.current
        if self._watch is not None and (self._watch.probation, self._watched) == (
            probation,
            current,
        ):
            return self._watch
        served = served_by(current, promotion.version)
        items = chosen_items(self.history, (), self.settings.seed, served)
        if not items:
            self.service.confirm(promotion, {}, "no item is served by it")
            return None
        shadow = Shadow(self.history, items, before, after, self.stopped, served)
        self._watch = Watch(probation, shadow, self.settings.probation_margin)
        self._watched = current
        return self._watch
