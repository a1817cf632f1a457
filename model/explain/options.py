"""Steps and promotions as people type them, read against a horizon."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np

from freshet.model.explain.plan import PlannedPromotion
from freshet.stream.arrays import Ints
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS


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
    """ "START:END:DISCOUNT": steps from 1 or dates (UTC), both ends included.

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
