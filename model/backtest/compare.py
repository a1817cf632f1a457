"""A rolling-origin comparison: every model forecasts every window, then what came is the judge.

A worker gets the panel, cuts its window and gives quantiles back; only the parent process looks at
what came. Dimensions: N series, H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from freshet.model import baselines
from freshet.model.backtest.averaged import Averaged
from freshet.model.backtest.cache import Cache
from freshet.model.backtest.hierarchy import COHERENT, ByLevel, Coherent, panel_with_groups
from freshet.model.backtest.score import Scores, score
from freshet.model.backtest.workers import FineTune, Job, Make, WindowForecast, forecasts, plan
from freshet.model.predict.cluster import Cluster
from freshet.model.predict.groups import Hierarchy
from freshet.model.tables.panel import Panel, Rolling
from freshet.model.tables.table import TableSettings, read_panel
from freshet.stream.errors import InvalidInputError

LEVELS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))


@dataclass(frozen=True, slots=True)
class BacktestSettings:
    """What is compared, and how.

    Attributes:
        rolling: where the cutoffs lie.
        models: names of baselines, "freshet", or "freshet:FOLDER" for other weights; "A+B" is the
            mean of two.
        fine_tune: "each": all models learn at every cutoff; "once": at the first only; "none": so
            do the baselines, while freshet's network is used as it is.
        jobs: processes that work at once.
        engine: whose machines work, as `Cluster` takes it; None: this one's processes.
        levels: quantile levels, the median among them.
    """

    rolling: Rolling
    models: tuple[str, ...]
    fine_tune: FineTune = "none"
    jobs: int = 1
    levels: tuple[float, ...] = LEVELS
    engine: Any = None


@dataclass(frozen=True, slots=True)
class WindowResult:
    """A forecast and its scores; no scores where the model failed."""

    forecast: WindowForecast
    scores: Scores | None


@dataclass(slots=True)
class Results:
    """All forecasts of a comparison, by model in the order asked for, oldest window first."""

    panel: Panel
    settings: BacktestSettings
    of_model: dict[str, list[WindowResult]] = field(default_factory=dict)
    resumed: int = 0

    @property
    def failed(self) -> list[str]:
        """Names of models that failed in a window."""
        return [
            name for name, rows in self.of_model.items() if any(row.forecast.error for row in rows)
        ]


def names() -> tuple[str, ...]:
    """Every model that a comparison knows by name."""
    return ("freshet", *baselines.NAMES)


def with_weights(names: tuple[str, ...], weights: Path | None) -> tuple[str, ...]:
    """The names of models, where "freshet" without a folder takes these weights.

    >>> with_weights(("freshet", "freshet+ets", "freshet:b"), Path("a"))
    ('freshet:a', 'freshet:a+ets', 'freshet:b')
    """
    if weights is None:
        return names
    parts = [name.split("+") for name in names]
    told = {kind: f"{kind}:{weights}" for kind in ("freshet", f"{COHERENT}freshet")}
    return tuple("+".join(told.get(one, one) for one in some) for some in parts)


def make(name: str, fine_tune: FineTune) -> baselines.Model:
    """The model of a name, or the mean of those joined by "+".

    Raises:
        InvalidInputError: there is none of that name.
    """
    if "+" in name:
        return Averaged([make(part, fine_tune) for part in name.split("+")])
    kind, _, place = name.partition(":")
    if kind == "freshet":
        from freshet.model.training import tuned

        return tuned.make(Path(place) if place else None, fine_tune)
    if name not in names() and kind not in baselines.ADAPTERS:
        raise InvalidInputError(
            f"there is no model {name!r}",
            hint=f"choose from {', '.join(names())}, or freshet:FOLDER",
        )
    return baselines.make(name)


def make_by_level(name: str, fine_tune: FineTune, *, hierarchy: Hierarchy) -> baselines.Model:
    """The model of a name for a panel with groups: "coherent:NAME" makes its forecasts add up.

    Raises:
        InvalidInputError: as `make`.
    """
    if name.startswith(COHERENT):
        return Coherent(partial(make, name.removeprefix(COHERENT), fine_tune), hierarchy)
    return ByLevel(partial(make, name, fine_tune), hierarchy)


class Contest(NamedTuple):
    """What is compared on a file: its series, the models unless some are named, and their maker."""

    panel: Panel
    models: tuple[str, ...]
    make: Make


def contest_of(source: Path, table: TableSettings, levels: Sequence[str] = ()) -> Contest:
    """A comparison on a file; with levels, groups are series of it too.

    Raises:
        InvalidInputError: the table or its levels cannot be used.
    """
    if not levels:
        return Contest(read_panel(source, table), names(), make)
    panel, hierarchy = panel_with_groups(source, table, levels)
    models = (f"{COHERENT}freshet", *names())
    return Contest(panel, models, partial(make_by_level, hierarchy=hierarchy))


def backtest(
    panel: Panel,
    settings: BacktestSettings,
    *,
    make: Make,
    cache_in: Path | None = None,
    on_done: Callable[[WindowForecast], None] = lambda forecast: None,
) -> Results:
    """Every model's forecasts of every window with their scores.

    A model that fails is reported in its results and stops no other. With a folder `cache_in`,
    finished forecasts are kept there and are not made again. `on_done` hears of each new forecast.

    Raises:
        InvalidInputError: a model's name is unknown, no series is long enough for a window, or
            there is no such engine.
    """
    cluster = None if settings.engine is None else Cluster(settings.engine)
    rolling = settings.rolling
    rolling.window(panel, 0)
    job = Job(panel, rolling, settings.levels, settings.fine_tune, make)
    cache = Cache(cache_in, job) if cache_in else None
    kept = cache.load(settings.models, rolling.num_windows) if cache else []
    tasks = plan(job, settings.models, {(forecast.model, forecast.index) for forecast in kept})
    found = list(kept)
    for forecast in forecasts(job, tasks, settings.jobs, cluster):
        if cache and not forecast.error:
            cache.save(forecast)
        found.append(forecast)
        on_done(forecast)
    return Results(panel, settings, _scored(panel, settings, found), resumed=len(kept))


def _scored(
    panel: Panel, settings: BacktestSettings, found: list[WindowForecast]
) -> dict[str, list[WindowResult]]:
    """All forecasts with their scores; a window at a time, since its arrays are large."""
    rolling = settings.rolling
    of_model: dict[str, list[WindowResult]] = {name: [] for name in settings.models}
    for index in range(rolling.num_windows):
        window, actual_NH = rolling.window(panel, index), rolling.actual(panel, index)
        for forecast in found:
            if forecast.index == index:
                scores = None
                if forecast.quantiles_NHQ is not None:
                    scores = score(window, actual_NH, forecast.quantiles_NHQ, settings.levels)
                of_model[forecast.model].append(WindowResult(forecast, scores))
    return of_model
