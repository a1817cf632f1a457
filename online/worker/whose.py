"""A portion of a round: which items are forecast by which weights, and what was made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from freshet.online.forecast.publish import Origin, forecast_items
from freshet.online.weights.loaded import LoadedWeights, Serving
from freshet.online.worker.rounds import Work
from freshet.online.worker.served import Served
from freshet.stream.schemas import Forecast

Group = tuple[LoadedWeights, Sequence[int]]
"""Weights, and the numbers of the items of a round's work that they forecast, in order."""


def by_weights(
    serving: Serving,
    work: Work,
    part: range,
    row_ids: Sequence[str],
    segments_of: Callable[[Sequence[str]], list[str]],
) -> list[Group]:
    """A portion by who serves its items, the default first; all of it where one version serves.

    Args:
        serving: Who serves whom.
        work: The round's.
        part: The portion.
        row_ids: The item of each row of the windows.
        segments_of: The segment of each of some items.
    """
    if serving.other is None:
        return [(serving.default, part)]
    item_ids = [row_ids[n] if n >= 0 else work.cold[-1 - n] for n in work.item_N[part].tolist()]
    served = [serving.of(segment) for segment in segments_of(item_ids)]
    groups = [
        (weights, [place for place, by in zip(part, served, strict=True) if by is weights])
        for weights in serving.weights
    ]
    return [(weights, places) for weights, places in groups if places]


class Made(NamedTuple):
    """A portion of a round: what is served, and what some of it would be without adjustments."""

    served: list[Forecast]
    shadow: list[Forecast]

    def forecast(
        self,
        served: Served,
        origin: Origin,
        weights: LoadedWeights,
        rows: Sequence[int],
        cold: Sequence[str],
    ) -> None:
        """Add a micro-batch that some weights forecast: items with a row, and cold ones without."""
        origin = origin.by(weights)
        self.served.extend(
            forecast_items(
                served.contexts,
                weights,
                origin,
                served.sums,
                rows=rows,
                cold=cold,
                whole_days=served.whole_days,
                beginnings=served.beginnings,
                calibrated=served.calibrated,
            )
        )
        besides = served.besides(rows)
        self.shadow.extend(
            forecast_items(served.contexts, weights, origin, served.sums, rows=besides, cold=[])
        )
