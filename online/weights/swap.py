"""New weights without a pause: loaded and proven beside the old, then one reference moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from freshet.model.checkpoint import HORIZON_MAX
from freshet.model.devices import pick_device
from freshet.online.weights.announced import (
    Announcements,
    Check,
    Refused,
    assignment_of,
    checker,
    parts_of,
    within,
)
from freshet.online.weights.loaded import Load, LoadedWeights, Serving, first_weights, loader
from freshet.online.weights.registry import open_registry
from freshet.stream.config import Settings
from freshet.stream.errors import ConfigError, FreshetError, WeightsError
from freshet.stream.schemas import ModelEvent, ServingVersion
from freshet.stream.telemetry import get_logger

CHECK_WITHIN_S = 2.0  # a manifest is a small file
LOOK_AGAIN_S = 10.0  # at announcements that were refused: the registry may have been away
MAX_REASON = 2_000

log = get_logger(__name__)


def open_switch(settings: Settings, worker: str) -> WeightsSwitch:
    """The switch of a worker that starts.

    Raises:
        WeightsError: There is nothing to serve.
        ConfigError: Forecasts are asked for that reach further than any weights do, or a device
            that is not there.
    """
    wanted = settings.worker
    furthest = max(settings.served, key=lambda served: served.prediction_length)
    if furthest.prediction_length > HORIZON_MAX:
        raise ConfigError(
            f"forecasts by {furthest.resolution_ms} ms are to reach {furthest.prediction_length} "
            f"steps; the most is {HORIZON_MAX}"
        )
    registry = open_registry(settings.learn)
    # Before any weights are blamed for a device that is not there.
    pick_device(wanted.device)
    load = loader(registry, wanted.device, wanted.dtype)
    serving = first_weights(
        load, registry.champion, wanted.weights, device=wanted.device, dtype=wanted.dtype
    )
    # The first weights have probed which type is fastest on this device; the next need not.
    dtype = str(serving.default.forecaster.dtype).removeprefix("torch.")
    device = str(serving.default.forecaster.device)
    later = loader(registry, device, dtype)
    return WeightsSwitch(serving, later, worker, check=within(checker(registry), CHECK_WITHIN_S))


class WeightsSwitch:
    """Who serves whom, in service and idle; what is missing of it is loaded in the background.

    The loop reads `current` once a round, so that a segment is forecast by one version at a cutoff,
    and calls `settle` between rounds. Only `settle` moves the reference: of two versions both, or
    neither. The old weights stay for an instant way back. What is refused is reported, and is
    otherwise as if it had not been announced.

    Args:
        serving: What serves first.
        load: Loads weights; runs in a thread.
        worker: Name of this worker in the events that it reports.
        check: Raises where an announcement may not be believed.
        now_s: A clock that is never set.
    """

    def __init__(
        self,
        serving: Serving,
        load: Load,
        worker: str,
        *,
        check: Check,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.current = serving
        self._idle: Serving | None = None
        self._load = load
        self._worker = worker
        self._wanted: ModelEvent | None = None
        self._done: SimpleQueue[tuple[ModelEvent, Serving | FreshetError]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._announced = Announcements(check)
        # The announcement by which `current` serves.
        self._served: ModelEvent | None = None
        self._now_s = now_s
        self._looked_s = now_s()

    @property
    def loading(self) -> bool:
        """A version is on its way."""
        return self._thread is not None

    def offer(self, event: ModelEvent) -> None:
        """Take in an announcement; only the newest promotion or rollback that holds counts."""
        if self._announced.take(event):
            self._want(event)

    def begin(self) -> None:
        """Start to load what was offered last, unless something is being loaded."""
        event = self._wanted
        if event is None or self._thread is not None:
            return
        self._wanted = None
        if all(known is not None for known in self._known(event)):
            self._fill(event)
            return
        self._thread = threading.Thread(
            target=self._fill, args=(event,), name="weights", daemon=True
        )
        self._thread.start()

    def settle(self, now_ms: int) -> ModelEvent | None:
        """Between two rounds: serve what was loaded, or say why not; returns what to report."""
        try:
            event, result = self._done.get_nowait()
        except Empty:
            self._look_again()
            self.begin()
            refused = self._announced.next_refusal()
            return None if refused is None else self._refuse(refused, now_ms)
        self._thread = None
        newest = self._announced.newest
        if newest is not None and event.at_ms < newest.at_ms:
            log.info("weights_overtaken", version=event.version)
            self.begin()
            return None
        if isinstance(result, FreshetError):
            if newest is event:
                self._announced.newest = self._served
            report = self._refuse(Refused(event, str(result)), now_ms)
        else:
            self._served = event
            report = self._flip(event, result, now_ms)
        self.begin()
        return report

    def wait(self, timeout_s: float) -> bool:
        """Wait until what was begun is loaded; True unless that took too long."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def _known(self, event: ModelEvent) -> list[LoadedWeights | None]:
        """What an announcement has serve, as far as it is loaded; the default first."""
        held = [*self.current.weights, *(self._idle.weights if self._idle is not None else ())]
        return [next((one for one in held if _fits(one, part)), None) for part in parts_of(event)]

    def _fill(self, event: ModelEvent) -> None:
        try:
            self._done.put((event, self._loaded(event)))
        except FreshetError as error:
            self._done.put((event, error))
        except Exception as error:
            # Whatever a strange file made the libraries raise, the worker goes on with what it has.
            refusal = WeightsError(f"version {event.version} cannot be loaded: {error!r}")
            self._done.put((event, refusal))

    def _loaded(self, event: ModelEvent) -> Serving:
        default, *others = (
            known or self._load(part.version, part.sha256, part.manifest_sha256)
            for known, part in zip(self._known(event), parts_of(event), strict=True)
        )
        segments = frozenset(assignment_of(event).segments)
        return Serving(default, next(iter(others), None), segments)

    def _flip(self, event: ModelEvent, serving: Serving, now_ms: int) -> ModelEvent:
        started = time.perf_counter()
        self.current, self._idle = serving, self.current
        pause_ms = (time.perf_counter() - started) * 1_000
        before, now = self._idle.assignment, serving.assignment
        # Who gives way; where a version is added beside it, nobody does.
        gone = [version for version in before.versions if version not in now.versions]
        parent = next(iter(gone), before.default)
        log.info("weights_swapped", serving=str(now), before=str(before), pause_ms=pause_ms)
        weights = next(one for one in serving.weights if one.version == event.version)
        return ModelEvent(
            kind="swapped",
            version=weights.version,
            at_ms=now_ms,
            sha256=weights.sha256,
            parent=parent,
            worker=self._worker,
            pause_ms=round(pause_ms, 6),
        )

    def _want(self, event: ModelEvent) -> None:
        # While another version is being loaded, the one in service is not what will serve.
        if self._thread is None and _matches(self.current, event):
            self._wanted, self._served = None, event
        else:
            self._wanted = event

    def _look_again(self) -> None:
        """Now and then at what was refused."""
        if self._now_s() < self._looked_s + LOOK_AGAIN_S:
            return
        self._looked_s = self._now_s()
        event = self._announced.reconsider()
        if event is not None:
            self._want(event)

    def _refuse(self, refused: Refused, now_ms: int) -> ModelEvent:
        version = refused.event.version
        serving = self.current.assignment
        log.error(
            "weights_not_swapped", version=version, serving=str(serving), reason=refused.reason
        )
        return ModelEvent(
            kind="swap_failed",
            version=version,
            at_ms=now_ms,
            sha256=refused.event.sha256,
            parent=serving.default,
            worker=self._worker,
            reason=refused.reason[:MAX_REASON],
        )


def _matches(serving: Serving, event: ModelEvent) -> bool:
    if serving.assignment != assignment_of(event):
        return False
    return all(map(_fits, serving.weights, parts_of(event)))


def _fits(weights: LoadedWeights, part: ServingVersion) -> bool:
    same = weights.version == part.version and part.sha256 in ("", weights.sha256)
    return same and not weights.fallback
