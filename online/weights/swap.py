"""New weights without a pause: loaded and proven beside the old, then one reference moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue

import torch

from freshet.model.checkpoint import BASE_WEIGHTS, HORIZON_MAX
from freshet.model.devices import pick_device
from freshet.model.forecaster import BatchForecaster
from freshet.model.weights import golden_batch, verify_weights
from freshet.online.weights.announced import Announcements, Check, Refused, checker, within
from freshet.online.weights.registry import BASE, Registry, open_registry
from freshet.stream.config import Settings
from freshet.stream.errors import ConfigError, FreshetError, WeightsError
from freshet.stream.schemas import ModelEvent
from freshet.stream.telemetry import get_logger

CHECK_WITHIN_S = 2.0  # a manifest is a small file
LOOK_AGAIN_S = 10.0  # at announcements that were refused: the registry may have been away
MAX_REASON = 2_000

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """One set of weights that is ready to forecast.

    Immutable, so whoever holds it cannot see half a swap.

    Attributes:
        version: The name that forecasts carry.
        sha256: Of the weights file.
        forecaster: The network on its device.
        fallback: Why these are not the weights that should serve; empty when they are.
    """

    version: str
    sha256: str
    forecaster: BatchForecaster
    fallback: str = ""


Load = Callable[[str, str, str], LoadedWeights]
"""(version, expected sha256 or empty, that of its manifest or empty) -> proven weights.

Raises WeightsError or RegistryError.
"""


def loader(registry: Registry, device: str, dtype: str) -> Load:
    """Loads versions by name from the registry."""

    def load(version: str, sha256: str, manifest_sha256: str) -> LoadedWeights:
        folder = BASE_WEIGHTS
        if version != BASE:
            registry.verify(version, manifest_sha256)
            folder = registry.path(version)
        return load_weights(version, folder, sha256, device=device, dtype=dtype)

    return load


def load_weights(
    version: str, folder: Path, sha256: str, *, device: str, dtype: str
) -> LoadedWeights:
    """Load weights and prove them.

    Checked are sha256, shapes, finite values, the golden forecast, and a finite one on the device.

    Raises:
        WeightsError: One of these does not hold.
    """
    verified = verify_weights(folder, sha256 or None)
    forecaster = BatchForecaster(
        verified.network, device=device, dtype=dtype, sha256=verified.sha256
    )
    # On the device and in the type in which it will serve; also the warm-up of its kernels.
    quantiles_BHQ = forecaster.forecast(golden_batch(forecaster.network.config))
    if not bool(torch.isfinite(quantiles_BHQ).all()):
        raise WeightsError(
            f"the weights in {folder} forecast values that are not finite as {forecaster.dtype}"
        )
    return LoadedWeights(version, verified.sha256, forecaster)


def first_weights(
    load: Load, champion: Callable[[], str], pinned: str, *, device: str, dtype: str
) -> LoadedWeights:
    """What serves from the start: the pinned folder, else the registry's champion, else the base.

    A champion that cannot be loaded is replaced by the base, which says so in `fallback`; a pinned
    folder or a base that cannot be loaded stops the worker.

    Raises:
        WeightsError: There is nothing to serve.
    """
    if pinned:
        return load_weights(Path(pinned).name, Path(pinned), "", device=device, dtype=dtype)
    try:
        version = champion()
        if version != BASE:
            return load(version, "", "")
    except FreshetError as error:
        log.error("champion_not_served", reason=str(error), serving=BASE)
        return replace(load(BASE, "", ""), fallback=f"the champion cannot be served: {error}")
    return load(BASE, "", "")


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
    weights = first_weights(
        load, registry.champion, wanted.weights, device=wanted.device, dtype=wanted.dtype
    )
    # The first weights have probed which type is fastest on this device; the next need not.
    dtype = str(weights.forecaster.dtype).removeprefix("torch.")
    device = str(weights.forecaster.device)
    later = loader(registry, device, dtype)
    return WeightsSwitch(weights, later, worker, check=within(checker(registry), CHECK_WITHIN_S))


class WeightsSwitch:
    """Two sets of weights: those in service and the idle ones, which are loaded in the background.

    The loop reads `current` once a round, so that a cutoff is forecast by one version, and calls
    `settle` between rounds. Only `settle` moves the reference; the old weights stay for an instant
    way back. What is refused is reported, and is otherwise as if it had not been announced.

    Args:
        weights: What serves first.
        load: Loads weights; runs in a thread.
        worker: Name of this worker in the events that it reports.
        check: Raises where an announcement may not be believed.
        now_s: A clock that is never set.
    """

    def __init__(
        self,
        weights: LoadedWeights,
        load: Load,
        worker: str,
        *,
        check: Check,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.current = weights
        self._idle: LoadedWeights | None = None
        self._load = load
        self._worker = worker
        self._wanted: ModelEvent | None = None
        self._done: SimpleQueue[tuple[ModelEvent, LoadedWeights | FreshetError]] = SimpleQueue()
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
        if self._idle is not None and _matches(self._idle, event):
            self._done.put((event, self._idle))
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
            report = self._flip(result, now_ms)
        self.begin()
        return report

    def wait(self, timeout_s: float) -> bool:
        """Wait until what was begun is loaded; True unless that took too long."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def _fill(self, event: ModelEvent) -> None:
        try:
            self._done.put((event, self._load(event.version, event.sha256, event.manifest_sha256)))
        except FreshetError as error:
            self._done.put((event, error))
        except Exception as error:
            # Whatever a strange file made the libraries raise, the worker goes on with what it has.
            refusal = WeightsError(f"version {event.version} cannot be loaded: {error!r}")
            self._done.put((event, refusal))

    def _flip(self, weights: LoadedWeights, now_ms: int) -> ModelEvent:
        started = time.perf_counter()
        self.current, self._idle = weights, self.current
        pause_ms = (time.perf_counter() - started) * 1_000
        parent = self._idle.version
        log.info("weights_swapped", version=weights.version, before=parent, pause_ms=pause_ms)
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
        serving = self.current.version
        log.error("weights_not_swapped", version=version, serving=serving, reason=refused.reason)
        return ModelEvent(
            kind="swap_failed",
            version=version,
            at_ms=now_ms,
            sha256=refused.event.sha256,
            parent=serving,
            worker=self._worker,
            reason=refused.reason[:MAX_REASON],
        )


def _matches(weights: LoadedWeights, event: ModelEvent) -> bool:
    return (
        weights.version == event.version
        and event.sha256 in ("", weights.sha256)
        and not weights.fallback
    )
