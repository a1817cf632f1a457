"""Explains the forecast of one series of a table, and compares it with and without a promotion.

Dimensions: N series, T context steps, H horizon steps, S = T + H, K known covariates.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freshet.model.batch import Batch
from freshet.model.effects.slots import NAMES, Dressed, dress
from freshet.model.explain.whatif import PlannedPromotion, WhatIf, compare
from freshet.model.explain.words import Explanation, explain
from freshet.model.forecaster import BatchForecaster
from freshet.model.tables.panel import Panel, Window
from freshet.model.tables.table import TableSettings, read_panel, window_ahead
from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS

if TYPE_CHECKING:
    import pandas as pd

NEVER_PROMOTED = (
    "It has no promotion in its past: what one does is taken from other series and other shops."
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
    note: str = ""

    def sentences(self) -> list[str]:
        """All of it in words."""
        told = self.explanation.sentences()
        if self.what_if is not None:
            told += ["", self.what_if.sentence(), *([self.note] if self.note else [])]
        return told

    def as_dict(self) -> dict[str, Any]:
        """The same for machines."""
        told = None if self.what_if is None else self.what_if.as_dict() | {"note": self.note}
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
    ahead = window_ahead(panel, question.prediction_length, table.columns, question.future)
    window, row = _from_the_end_of_target(ahead, place)
    # Gradients want all their digits, and one item is fast enough anywhere.
    forecaster = BatchForecaster.from_pretrained(weights, dtype="float32")
    dressed = dress(window)
    factor, steps = float(dressed.factor_N[row]), parse_steps(question.steps, window.horizon)
    batch = _batch(dressed, window, row, forecaster)
    found = explain(forecaster, batch, 0, name=question.item, steps=steps, factor=factor)
    if question.promotion is None:
        return Answer(found)
    promotion = parse_promotion(question.promotion, window.time_ms_NS[row, window.context_length :])
    worlds = []
    for on in (True, False):
        changed = planned(window, row, promotion, on=on)
        worlds.append(_batch(dress(changed), changed, row, forecaster))
    tried = compare(forecaster, worlds[0], worlds[1], promotion, factor=factor)
    return Answer(found, tried, "" if _ever_promoted(window, row) else NEVER_PROMOTED)


def _place(panel: Panel, item: str) -> int:
    if item in panel.item_ids:
        return panel.item_ids.index(item)
    near = difflib.get_close_matches(item, panel.item_ids, 3, 0.4) or list(panel.item_ids[:3])
    raise InvalidInputError(
        f"there is no item {item!r} among the {len(panel)} of the table",
        hint=f"there are {', '.join(near)}, ...",
    )


def _from_the_end_of_target(ahead: Window, place: int) -> tuple[Window, int]:
    """The window whose cutoff is behind the series' last target, for all series long enough, and
    the series' row.
    """
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
    )
    return cut, int(np.searchsorted(kept, place))


def _batch(dressed: Dressed, window: Window, row: int, forecaster: BatchForecaster) -> Batch:
    """The row as the network gets it, with as much history as it has and the network uses."""
    length = window.context_length if window.length_N is None else int(window.length_N[row])
    context = max(1, min(length, forecaster.context_length))
    ends = np.array([window.context_length])
    return dressed.batch(np.array([row]), ends, context=context, horizon=window.horizon)[0]


# The plan -----------------------------------------------------------------------------------------


def planned(window: Window, row: int, promotion: PlannedPromotion, *, on: bool) -> Window:
    """The window with a promotion in some steps of one row's horizon, or with plain prices and
    none.

    Every flag that the network reads as a promotion is set, a discount is given as the column gives
    it (0.2 or 20), and a price is the series' usual one less the discount.

    Raises:
        InvalidInputError: no known covariate says anything about promotions or prices.
    """
    known_NSK = window.known_NSK.copy()
    steps = slice(
        window.context_length + promotion.steps.start, window.context_length + promotion.steps.stop
    )
    kinds = _kinds(window)
    if not kinds:
        raise InvalidInputError(
            "no known column is about promotions, discounts or prices, so nothing says what "
            "one does",
            hint="name such a column with --known; its name should say what it is, such as "
            "promo, discount or price",
        )
    for column, kind in kinds:
        values_S = known_NSK[row, :, column]
        if kind == "promotion":
            values_S[steps] = float(on)
        elif kind == "discount":
            percent = np.nanmax(window.known_NSK[..., column], initial=0.0) > 1.0
            values_S[steps] = on * promotion.discount * (100.0 if percent else 1.0)
        else:
            usual = _median(values_S[: window.context_length])
            values_S[steps] = usual * (1.0 - on * promotion.discount)
    return replace(window, known_NSK=known_NSK)


def _kinds(window: Window) -> list[tuple[int, str]]:
    """Known columns about promotions, discounts and prices, as the network's slots take them."""
    found = []
    for column, name in enumerate(window.known_names):
        values = window.known_NSK[..., column]
        seen, flag = values[np.isfinite(values)], "=" not in name
        if re.search(NAMES["discount"], name.lower()):
            found.append((column, "discount"))
        elif re.search(NAMES["price"], name.lower()):
            found.append((column, "price"))
        elif (
            re.search(NAMES["promotion"], name.lower())
            and flag
            and bool(np.isin(seen, (0.0, 1.0)).all())
        ):
            found.append((column, "promotion"))
    return found


def _ever_promoted(window: Window, row: int) -> bool:
    past_TK = window.known_NSK[row, : window.context_length]
    for column, kind in _kinds(window):
        values = past_TK[:, column][np.isfinite(past_TK[:, column])]
        if kind != "price" and bool((values > 0).any()):
            return True
        if kind == "price" and len(values) and bool((values < 0.97 * np.median(values)).any()):
            return True
    return False


def _median(values_T: Floats) -> float:
    seen = values_T[np.isfinite(values_T)]
    return float(np.median(seen)) if len(seen) else float("nan")


# Options ------------------------------------------------------------------------------------------


def parse_steps(text: str | None, horizon: int) -> range:
    """ "START:END" from 1, both included, as steps from 0; None as all of them.

    Raises:
        InvalidInputError: it is not of that form, or not within the horizon.

    >>> parse_steps("2:3", 5), parse_steps(None, 5)
    (range(1, 3), range(0, 5))
    """
    if text is None:
        return range(horizon)
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]) <= horizon:
        raise InvalidInputError(
            f"steps {text!r} of a horizon of {horizon}",
            hint=f"expected START:END, such as 1:{horizon}",
        )
    return range(int(match[1]) - 1, int(match[2]))


def parse_promotion(text: str, time_ms_H: Ints) -> PlannedPromotion:
    """ "START:END:DISCOUNT", where start and end are steps from 1 or dates (UTC) and both are
    included.

    Raises:
        InvalidInputError: it is not of that form, or no step of the horizon lies within.

    >>> days = np.arange(3) * 86_400_000
    >>> parse_promotion("2:3:20%", days) == parse_promotion("1970-01-02:1970-01-03:0.2", days)
    True
    """
    match = re.fullmatch(r"([\d-]+):([\d-]+):(\d*\.?\d+)(%?)", text)
    if not match:
        raise InvalidInputError(
            f"the promotion {text!r} cannot be read",
            hint="expected START:END:DISCOUNT, such as 1:3:0.2 or 2024-05-01:2024-05-07:20%",
        )
    discount = float(match[3]) / (100.0 if match[4] else 1.0)
    if "-" not in match[1] + match[2]:
        return PlannedPromotion(parse_steps(f"{match[1]}:{match[2]}", len(time_ms_H)), discount)
    first_ms, last_ms = (_date_ms(day, text) for day in (match[1], match[2]))
    within = np.flatnonzero((time_ms_H >= first_ms) & (time_ms_H < last_ms + DAY_MS))
    if not len(within):
        ends = [
            datetime.fromtimestamp(int(ms) / 1000, UTC).date().isoformat()
            for ms in time_ms_H[[0, -1]]
        ]
        raise InvalidInputError(
            f"no step lies within the promotion {text!r}",
            hint=f"the horizon is {ends[0]} to {ends[1]}",
        )
    return PlannedPromotion(range(int(within[0]), int(within[-1]) + 1), discount)


def _date_ms(day: str, text: str) -> int:
    try:
        return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        raise InvalidInputError(
            f"{day!r} in the promotion {text!r} is no date", hint="expected YYYY-MM-DD"
        ) from None
