"""`freshet forecasts tail`: print forecasts as they come."""

from __future__ import annotations

import sys

from freshet.stream.clock import when
from freshet.stream.codec import decode
from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.kafka import TableReader
from freshet.stream.schemas import Forecast

POLL_MS = 500
SHOWN_LEVELS = (0.1, 0.5, 0.9)
SHOWN_STEPS = 3


def tail(
    settings: Settings,
    *,
    item_id: str | None = None,
    most: int | None = None,
    as_json: bool = False,
) -> None:
    """Print every forecast in the topic and then the new ones, until `most` or Ctrl-C."""
    printed = 0
    with TableReader(settings, [settings.kafka.topics.forecasts]) as reader:
        while most is None or printed < most:
            for record in reader.poll(POLL_MS):
                line = _line(record.value, item_id, as_json)
                if line and (most is None or printed < most):
                    sys.stdout.write(line + "\n")
                    printed += 1
            sys.stdout.flush()


def _line(value: bytes | None, item_id: str | None, as_json: bool) -> str:
    if value is None:
        return ""
    try:
        forecast = decode(Forecast, value)
    except EventError:
        return ""
    if item_id not in (None, forecast.item_id):
        return ""
    return value.decode() if as_json else as_text(forecast)


def as_text(forecast: Forecast) -> str:
    """One forecast in one line: the first steps, each as its 10 %, 50 % and 90 % quantiles."""
    places = [forecast.quantile_levels.index(level) for level in SHOWN_LEVELS]
    steps = []
    for quantiles in forecast.quantiles[:SHOWN_STEPS]:
        steps.append(" ".join(f"{quantiles[place]:g}" for place in places))
    version = f"{forecast.weights_version:<8} {forecast.status:<10}"
    head = f"{when(forecast.cutoff_ms)}  {forecast.item_id:<28} {version}"
    return f"{head}{' | '.join(steps)} ..."
