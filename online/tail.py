"""`freshet forecasts tail`: print forecasts as they come."""

from __future__ import annotations

import sys

from freshet.stream.clock import when
from freshet.stream.codec import decode
from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.kafka import TableReader
from freshet.stream.schemas import Forecast
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

POLL_MS = 500
SHOWN_LEVELS = (0.1, 0.5, 0.9)
SHOWN_STEPS = 3


def tail(
    settings: Settings,
    *,
    item_id: str | None = None,
    resolution_ms: int | None = None,
    most: int | None = None,
    as_json: bool = False,
) -> None:
    """Print every forecast in the topic and then the new ones, until `most` or Ctrl-C."""
    printed = 0
    with TableReader(settings, [settings.kafka.topics.forecasts]) as reader:
        while most is None or printed < most:
            for record in reader.poll(POLL_MS):
                line = _line(record.value, item_id, resolution_ms, as_json)
                if line and (most is None or printed < most):
                    sys.stdout.write(line + "\n")
                    printed += 1
            sys.stdout.flush()


def _line(
    value: bytes | None, item_id: str | None, resolution_ms: int | None, as_json: bool
) -> str:
    if value is None:
        return ""
    try:
        forecast = decode(Forecast, value)
    except EventError:
        return ""
    if item_id not in (None, forecast.item_id):
        return ""
    if resolution_ms not in (None, forecast.resolution_ms):
        return ""
    return value.decode() if as_json else as_text(forecast)


def as_text(forecast: Forecast) -> str:
    """One forecast in one line: the first steps, each as its 10 %, 50 % and 90 % quantiles."""
    version = f"{forecast.weights_version:<8} {forecast.status:<10}"
    width = f"by {width_in_words(forecast.resolution_ms):<7}"
    head = f"{when(forecast.cutoff_ms)}  {forecast.item_id:<28} {width} {version}"
    if not forecast.quantiles:
        return head.rstrip()
    places = [forecast.quantile_levels.index(level) for level in SHOWN_LEVELS]
    steps = []
    for quantiles in forecast.quantiles[:SHOWN_STEPS]:
        steps.append(" ".join(f"{quantiles[place]:g}" for place in places))
    return f"{head}{' | '.join(steps)} ..."


def width_in_words(resolution_ms: int) -> str:
    """A step's length as people say it.

    >>> [width_in_words(ms) for ms in (60_000, 3_600_000, 86_400_000, 900_000, 7_000)]
    ['minute', 'hour', 'day', '15 min', '7 s']
    """
    names = {MINUTE_MS: "minute", HOUR_MS: "hour", DAY_MS: "day"}
    if resolution_ms in names:
        return names[resolution_ms]
    if resolution_ms % MINUTE_MS:
        return f"{resolution_ms / SECOND_MS:g} s"
    return f"{resolution_ms // MINUTE_MS} min"
