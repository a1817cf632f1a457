"""One forecast explained in words that a merchant reads, with the numbers behind them.

Dimensions: T context steps, H horizon steps, Q quantile levels of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from freshet.model.batch import Batch
from freshet.model.explain.attention import Looked, looked_at
from freshet.model.explain.gradients import Gradients, integrated_gradients
from freshet.model.explain.groups import SLOTS_ALONE, Meaning, step_name
from freshet.model.explain.row import chosen_steps, one_row
from freshet.model.explain.shapley import Contribution, Shapley, shapley
from freshet.model.forecaster import BatchForecaster
from freshet.model.quantiles.cumulative import Paths
from freshet.model.quantiles.dependence import WITHOUT_HISTORY, default_dependence
from freshet.model.quantiles.marginal import whole_rows
from freshet.stream.arrays import Floats
from freshet.stream.units import DAY_MS

RANGE = (0.1, 0.5, 0.9)
NOTICEABLE = 0.01  # of the forecast: what moves it by less is not worth a sentence
NOT_A_CAUSE = (
    "What each adds is its exact Shapley value, the average over every order in which the network "
    "could have been told. It says what the forecast rests on, not what makes people buy."
)
LOOKED_NOT_A_CAUSE = "That is attention, not a cause."


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is known about why one forecast is what it is.

    Attributes:
        name: of the item.
        start_ms: start of the first context step.
        cutoff_ms: end of the context.
        resolution_ms: length of a step.
        target_T: units sold, NaN where missing.
        levels: Q probabilities.
        quantiles_HQ: the forecast in units.
        total: units over the chosen steps at the levels of RANGE, as quantiles of their sum.
        shapley: what each group of inputs adds.
        gradients: what each past bucket adds.
        looked: where the network looked.
    """

    name: str
    start_ms: int
    cutoff_ms: int
    resolution_ms: int
    target_T: Floats
    levels: tuple[float, ...]
    quantiles_HQ: Floats
    total: tuple[float, float, float]
    shapley: Shapley
    gradients: Gradients
    looked: tuple[Looked, ...]

    def sentences(self) -> list[str]:
        """As a merchant reads it: what is forecast, what adds how much, where it looked."""
        return [
            headline(self),
            "Of an item about which it knows nothing it would expect "
            f"{units(self.shapley.empty_L[0])}.",
            *(contribution_sentence(found, self.shapley) for found in noticeable(self.shapley)),
            *quiet_sentence(self.shapley),
            NOT_A_CAUSE,
            looked_sentence(self.looked, self.cutoff_ms, self.resolution_ms),
        ]

    def as_dict(self) -> dict[str, Any]:
        """The same for machines: plain numbers, lists and names."""
        parts = self.shapley
        return {
            "item_id": self.name,
            "cutoff_ms": self.cutoff_ms,
            "resolution_ms": self.resolution_ms,
            "steps": [parts.steps.start + 1, parts.steps.stop],
            "quantile_levels": list(self.levels),
            "quantiles": self.quantiles_HQ.round(6).tolist(),
            "total": dict(zip(("p10", "p50", "p90"), self.total, strict=True)),
            "levels": list(parts.levels),
            "full": parts.full_L.tolist(),
            "empty": parts.empty_L.tolist(),
            "contributions": [found.as_dict() for found in parts.contributions],
            "history": [
                None if np.isnan(added) else round(float(added), 6)
                for added in self.gradients.target_T
            ],
            "history_gap": self.gradients.gap,
            "looked": [part.as_dict() for part in self.looked],
            "text": self.sentences(),
        }


def explain(
    forecaster: BatchForecaster,
    batch: Batch,
    row: int,
    *,
    name: str = "",
    steps: range | None = None,
    factor: float = 1.0,
    meaning: Meaning = SLOTS_ALONE,
) -> Explanation:
    """Explain the forecast of one row of a batch; the same row always gives the same explanation.

    Args:
        forecaster: made the forecast.
        batch: holds the row.
        row: which one.
        name: of the item, for the words.
        steps: of the horizon, from 0; default all.
        factor: units of the batch that make one unit of the reader.
        meaning: what the row's slots hold, where a table tells.

    Raises:
        InvalidInputError: there is no such row, or the steps are not within the horizon.
    """
    one = one_row(batch, row)
    steps = chosen_steps(steps, one.prediction_length)
    levels = forecaster.quantile_levels
    quantiles_1HQ = forecaster.forecast(one).cpu() / factor
    start_ms = int(one.start_ms_B[0])
    return Explanation(
        name=name,
        start_ms=start_ms,
        cutoff_ms=start_ms + one.context_length * one.resolution_ms,
        resolution_ms=one.resolution_ms,
        target_T=one.target_BT[0].double().numpy() / factor,
        levels=levels,
        quantiles_HQ=quantiles_1HQ[0].double().numpy(),
        total=_total(one, quantiles_1HQ[:, steps.start : steps.stop], levels, factor),
        shapley=shapley(forecaster, one, 0, steps=steps, factor=factor, meaning=meaning),
        gradients=integrated_gradients(forecaster, one, 0, steps=steps, factor=factor),
        looked=looked_at(forecaster, one, 0, steps=steps),
    )


def _total(
    one: Batch, quantiles_1HQ: torch.Tensor, levels: tuple[float, ...], factor: float
) -> tuple[float, float, float]:
    """The steps' sum at the levels of RANGE: quantiles of a sum are no sums of quantiles."""
    begun = bool(torch.isfinite(one.target_BT).any())
    dependence = default_dependence(one.resolution_ms) if begun else WITHOUT_HISTORY
    num_steps = quantiles_1HQ.shape[1]
    whole_1 = whole_rows(one.target_BT) & (factor == 1.0)
    paths = Paths(dependence, levels, num_steps, num_paths=4096)
    total_Q = paths.cumulative(quantiles_1HQ, [num_steps], whole_1)[0, 0].double().numpy()
    low, middle, high = (float(np.interp(level, levels, total_Q)) for level in RANGE)
    return low, middle, high


# Words --------------------------------------------------------------------------------------------


def headline(found: Explanation) -> str:
    """What is forecast for the chosen steps, with its range."""
    low, middle, high = found.total
    subject = f"{found.name}: " if found.name else ""
    return (
        f"{subject}about {units(middle)} over {span(found.shapley.steps, found.resolution_ms)} "
        f"(four times in five between {number(low)} and {number(high)})."
    )


def span(steps: range, resolution_ms: int) -> str:
    """Steps of the horizon in words.

    >>> span(range(0, 24), 3_600_000), span(range(2, 3), 86_400_000), span(range(2, 5), 86_400_000)
    ('the next 24 hours', 'day 3', 'days 3 to 5')
    """
    name = step_name(resolution_ms)
    if steps.start == 0:
        return f"the next {name}" if len(steps) == 1 else f"the next {len(steps)} {name}s"
    if len(steps) == 1:
        return f"{name} {steps.stop}"
    return f"{name}s {steps.start + 1} to {steps.stop}"


def noticeable(found: Shapley) -> list[Contribution]:
    """The contributions that are worth a sentence, the largest first."""
    largest = max((abs(part.units_L[0]) for part in found.contributions), default=0.0)
    least = NOTICEABLE * max(found.full_L[0], largest, 1.0)
    return [part for part in found.contributions if abs(part.units_L[0]) >= least]


def contribution_sentence(found: Contribution, whole: Shapley) -> str:
    """What one group adds or takes, in units and against the forecast without it."""
    added, group, full = float(found.units_L[0]), found.group, float(whole.full_L[0])
    share = f" ({100 * added / (full - added):+.0f} %)" if abs(added) < 0.8 * full else ""
    if added >= 0:
        return f"{group.words} {'add' if group.many else 'adds'} {units(added)}{share}."
    return f"{group.words} {'take' if group.many else 'takes'} {units(-added)} away{share}."


def quiet_sentence(found: Shapley) -> list[str]:
    """One sentence for all groups that hardly matter, or none."""
    told = noticeable(found)
    quiet = [part.group.words for part in found.contributions if part not in told]
    if not quiet:
        return []
    words = [quiet[0], *(word[0].lower() + word[1:] for word in quiet[1:])]
    subject = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    single = len(quiet) == 1 and not _many(found, quiet[0])
    return [f"{subject} hardly {'changes' if single else 'change'} it."]


def _many(found: Shapley, words: str) -> bool:
    return next(part.group.many for part in found.contributions if part.group.words == words)


def looked_sentence(looked: tuple[Looked, ...], cutoff_ms: int, resolution_ms: int) -> str:
    """Where the network looked most, as dates."""
    shares = {part.what: part.share for part in looked if part.what != "past"}
    past = sorted(
        (part for part in looked if part.what == "past" and part.share > 0),
        key=lambda part: -part.share,
    )[:2]
    places = [
        f"{stretch(part, cutoff_ms, resolution_ms)} ({100 * part.share:.0f} %)" for part in past
    ]
    places += [
        f"the plan ahead ({100 * shares['plan']:.0f} %)",
        f"the item ({100 * shares['item']:.0f} %)",
    ]
    return (
        f"The network looked most at {', '.join(places[:-1])} and {places[-1]}. "
        f"{LOOKED_NOT_A_CAUSE}"
    )


def stretch(part: Looked, cutoff_ms: int, resolution_ms: int) -> str:
    """A stretch of the past as dates, UTC.

    >>> stretch(Looked(-7, -1, "past", 0.5), 1_700_006_400_000, 86_400_000)
    '8 Nov to 14 Nov'
    """
    assert part.first is not None and part.last is not None
    told = [
        moment(cutoff_ms + step * resolution_ms, resolution_ms) for step in (part.first, part.last)
    ]
    return f"{told[0]} to {told[1]}" if told[0] != told[1] else told[0]


def moment(time_ms: int, resolution_ms: int) -> str:
    """The start of a step as people write it, UTC; for months the nearest, as their lengths differ.

    >>> moment(1_017_570_600_000, 2_629_746_000), moment(1_700_006_400_000, 3_600_000)
    ('Apr 2002', '15 Nov 00:00')
    """
    if step_name(resolution_ms) == "month":
        return f"{datetime.fromtimestamp((time_ms + resolution_ms // 2) / 1000, UTC):%b %Y}"
    when = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{when.day} {when:%b}" + (f" {when:%H:%M}" if resolution_ms < DAY_MS else "")


def units(amount: float) -> str:
    """An amount with its word.

    >>> units(1.0), units(0.98), units(1234.4)
    ('1 unit', '0.98 units', '1,234 units')
    """
    told = number(amount)
    return f"{told} unit" if told == "1" else f"{told} units"


def number(amount: float) -> str:
    """Units as people write them: whole from ten on, one decimal below, two below one.

    >>> number(1234.4), number(9.94), number(0.256), number(0.0)
    ('1,234', '9.9', '0.26', '0')
    """
    if abs(amount) >= 9.95:
        return f"{amount:,.0f}"
    if abs(amount) >= 1:
        return f"{amount:.1f}".removesuffix(".0")
    return f"{amount:.2f}".rstrip("0").rstrip(".")
