"""Explains the forecast of one series of a table, and compares it with and without a promotion.

Dimensions: N series, T context steps, H horizon steps.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freshet.model.batch import Batch
from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.model.effects.shared import find_shared
from freshet.model.effects.slots import Dressed, dress
from freshet.model.explain.beforehand import beforehand
from freshet.model.explain.meaning import meaning_of
from freshet.model.explain.options import parse_promotion, parse_steps
from freshet.model.explain.plan import ever_promoted, planned_window
from freshet.model.explain.whatif import WhatIf, compare
from freshet.model.explain.words import Explanation, explain
from freshet.model.forecaster import BatchForecaster
from freshet.model.tables.ahead import window_ahead
from freshet.model.tables.panel import Panel, Window
from freshet.model.tables.table import TableSettings, read_panel
from freshet.model.weights import load_weights
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

NEVER_PROMOTED = (
    "It has no promotion in its past: what one does is taken from other series and other shops."
)


ASSOCIATION = (
    "This is an association: it is what a promotion adds where those of the past were set on days "
    "that weekdays, seasons and the other columns tell, and too much where they were set on days "
    "that would have been good anyway."
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a table.

    Attributes:
        item: name of the series.
        prediction_length: H, steps to forecast.
        steps: "START:END" of the horizon to explain, from 1, both included; None for all.
        promotion: "START:END:DISCOUNT" to try; None for none.
        future: known covariates of the steps after the table's end.
    """

    item: str
    prediction_length: int
    steps: str | None = None
    promotion: str | None = None
    future: Path | pd.DataFrame | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The explanation, and the promotion's two worlds where one was asked for."""

    explanation: Explanation
    what_if: WhatIf | None = None
    notes: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """All of it in words."""
        told = self.explanation.sentences()
        if self.what_if is not None:
            told += ["", self.what_if.sentence(), *self.notes]
        return told

    def as_dict(self) -> dict[str, Any]:
        """The same for machines."""
        told = None if self.what_if is None else self.what_if.as_dict() | {"notes": self.notes}
        return self.explanation.as_dict() | {"promotion": told}


def answer(
    source: Path | pd.DataFrame, table: TableSettings, question: Question, weights: Path | None
) -> Answer:
    """Read a table and explain one series' forecast from where its target ends.

    Rows that lie ahead (an empty target at the end of the series) and the table of
    `question.future` say what is known of the horizon.

    Raises:
        InvalidInputError: the table, the item, the steps or the promotion cannot be used.
        WeightsError: there are no weights, or they do not compute what they should.
    """
    panel = read_panel(source, table)
    place = _place(panel, question.item)
    ahead = window_ahead(
        panel, question.prediction_length, table.columns, question.future, table.file
    )
    window, row = _from_the_end_of_target(ahead, place)
    # Gradients want all their digits, and one item is fast enough anywhere.
    verified = load_weights(BASE_WEIGHTS if weights is None else weights)
    forecaster = BatchForecaster(verified.network, dtype="float32", sha256=verified.sha256)
    shared = find_shared(window)
    dressed = dress(window, shared)
    batch = _batch(dressed, window, row, forecaster)
    steps = parse_steps(question.steps, window.horizon)
    factor = float(dressed.factor_N[row])
    seen = slice(window.context_length - batch.context_length, None)
    meaning = meaning_of(window, shared, row, seen)
    found = explain(
        forecaster, batch, 0, name=question.item, steps=steps, factor=factor, meaning=meaning
    )
    if question.promotion is None:
        return Answer(found)
    times_H = window.time_ms_NS[row, window.context_length :]
    promotion = parse_promotion(question.promotion, times_H)
    worlds = []
    for on in (True, False):
        changed = planned_window(window, row, promotion, on=on)
        worlds.append(_batch(dress(changed), changed, row, forecaster))
    tried = compare(forecaster, worlds[0], worlds[1], promotion, factor=factor)
    return Answer(found, tried, tuple(_notes(window, row)))


def _notes(window: Window, row: int) -> Iterator[str]:
    """How far the two worlds may be believed."""
    yield ASSOCIATION
    before = beforehand(window)
    if before.sure:
        yield before.sentence()
    if not ever_promoted(window, row):
        yield NEVER_PROMOTED


def _place(panel: Panel, item: str) -> int:
    if item in panel.item_ids:
        return panel.item_ids.index(item)
    near = difflib.get_close_matches(item, panel.item_ids, 3, 0.4) or list(panel.item_ids[:3])
    raise InvalidInputError(
        f"there is no item {item!r} among the {len(panel)} of the table",
        hint=f"there are {', '.join(near)}, ...",
    )


def _from_the_end_of_target(ahead: Window, place: int) -> tuple[Window, int]:
    """The window cut behind a series' last target, without shorter series, and the series' row."""
    T, H = ahead.context_length, ahead.horizon
    seen = np.flatnonzero(np.isfinite(ahead.target_NT[place]))
    if not len(seen):
        raise InvalidInputError(
            f"item {ahead.item_ids[place]!r} has no target at all",
            hint="its forecast would rest on other items alone",
        )
    back = T - 1 - int(seen[-1])
    length_N = np.full(len(ahead), T) if ahead.length_N is None else ahead.length_N
    kept = np.flatnonzero(length_N > back)
    cut = replace(
        ahead.rows(kept),
        time_ms_NS=ahead.time_ms_NS[kept, : T - back + H],
        target_NT=ahead.target_NT[kept, : T - back],
        known_NSK=ahead.known_NSK[kept, : T - back + H],
        past_NTP=ahead.past_NTP[kept, : T - back],
        length_N=length_N[kept] - back,
        local_ms_NS=None if ahead.local_ms_NS is None else ahead.local_ms_NS[kept, : T - back + H],
    )
    return cut, int(np.searchsorted(kept, place))


def _batch(dressed: Dressed, window: Window, row: int, forecaster: BatchForecaster) -> Batch:
    """The row as the network gets it, with as much history as it has and the network uses."""
    length = window.context_length if window.length_N is None else int(window.length_N[row])
    context = max(1, min(length, forecaster.context_length))
    ends = np.array([window.context_length])
    return dressed.batch(np.array([row]), ends, context=context, horizon=window.horizon)[0]
