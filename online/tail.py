"""`freshet forecasts tail`: print forecasts as they come."""

from __future__ import annotations

import sys

from freshet.online.demo.story import when
from freshet.stream.codec import decode
from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.kafka import TableReader
from freshet.stream.schemas import Forecast


def tail(
    settings: Settings,
    *,
    item_id: str | None = None,
    most: int | None = None,
    as_json: bool = False,
) -> None:
    """Print every forecast in the topic and then the new ones, until `most` were printed or
    Ctrl-C.
    """
    printed = 0
    with TableReader(settings, [settings.kafka.topics.forecasts]) as reader:
        while most is None or printed < most:
            for record in reader.poll(max_wait_ms=500):
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
    """One forecast in one line: the median of the next hours between its 10 % and 90 %
    quantiles.
    """
    at = [forecast.quantile_levels.index(level) for level in (0.1, 0.5, 0.9)]
    steps = [" ".join(f"{row[index]:g}" for index in at) for row in forecast.quantiles[:3]]
    head = (
        f"{when(forecast.cutoff_ms)}  {forecast.item_id:<28} {forecast.weights_version:<8} "
        f"{forecast.status:<10}"
    )
    return head + " | ".join(steps) + " ..."
