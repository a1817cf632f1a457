"""Weights that are ready to forecast: loaded, proven, and whom they serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.model.forecaster import BatchForecaster
from freshet.model.weights import golden_batch, verify_weights
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import BASE, Registry
from freshet.stream.errors import FreshetError, WeightsError
from freshet.stream.telemetry import get_logger

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


@dataclass(frozen=True, slots=True)
class Serving:
    """Whose forecasts are made by which weights.

    Immutable, so that a round is served by one of these from its beginning to its end.

    Attributes:
        default: Of everybody who is not served by `other`.
        other: Of the segments; None where one version serves everybody.
        segments: Which.
    """

    default: LoadedWeights
    other: LoadedWeights | None = None
    segments: frozenset[str] = frozenset()

    def of(self, segment: str) -> LoadedWeights:
        """The weights that serve a segment."""
        return self.default if self.other is None or segment not in self.segments else self.other

    @property
    def weights(self) -> tuple[LoadedWeights, ...]:
        """The default, and the others where there are any."""
        return (self.default,) if self.other is None else (self.default, self.other)

    @property
    def fallback(self) -> str:
        """Why these are not the weights that should serve; empty when they are."""
        return self.default.fallback

    @property
    def assignment(self) -> Assignment:
        """Who serves whom."""
        other = "" if self.other is None else self.other.version
        return Assignment(self.default.version, other, tuple(sorted(self.segments)))


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
    load: Load, champion: Callable[[], Assignment], pinned: str, *, device: str, dtype: str
) -> Serving:
    """What serves from the start: the pinned folder, else the registry's champion, else the base.

    A champion that cannot be loaded is replaced by the base, which says so in `fallback`; a pinned
    folder or a base that cannot be loaded stops the worker. Of two versions both are loaded, or
    neither serves.

    Raises:
        WeightsError: There is nothing to serve.
    """
    if pinned:
        name = Path(pinned).name
        return Serving(load_weights(name, Path(pinned), "", device=device, dtype=dtype))
    try:
        found = champion()
        if found != Assignment():
            return _loaded(found, load)
    except FreshetError as error:
        log.error("champion_not_served", reason=str(error), serving=BASE)
        reason = f"the champion cannot be served: {error}"
        return Serving(replace(load(BASE, "", ""), fallback=reason))
    return Serving(load(BASE, "", ""))


def _loaded(assignment: Assignment, load: Load) -> Serving:
    default, *others = (load(version, "", "") for version in assignment.versions)
    return Serving(default, next(iter(others), None), frozenset(assignment.segments))
