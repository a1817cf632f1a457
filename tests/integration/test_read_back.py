"""What waits for weeks to be scored is read back from a real log, however much lies between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import msgspec

from freshet.online.drift.pending import PendingForecasts
from freshet.online.worker.earlier import Earlier, waiting_cutoffs_ms
from freshet.online.worker.recovery import Tail, read_forecasts
from freshet.stream.codec import encode
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.integration.test_worker import settings_for
from tests.online.worker.records import records

TODAY_MS = 20_600 * DAY_MS
ITEMS = ["a|n", "b|n", "c|n"]


def test_days_wait_for_their_scores_after_a_restart_behind_weeks_of_hours(
    kafka_broker: str, redis_server: str, tmp_path: Path
) -> None:
    settings = settings_for(kafka_broker, redis_server, tmp_path, "read-back")
    ensure_topics(settings, live=False)
    topic = settings.kafka.topics.forecasts
    made = records(ITEMS)
    with Publisher(settings) as publisher:
        for hour in range(-24 * 35, 5):
            cutoff_ms = TODAY_MS + hour * HOUR_MS
            widths = [HOUR_MS] + [DAY_MS] * (hour % 24 == 0)
            for width in widths:
                for one in made:
                    named = {"forecast_id": f"{one.item_id} {width} {hour}", "cutoff_ms": cutoff_ms}
                    one = msgspec.structs.replace(one, resolution_ms=width, **named)
                    at_ms = cutoff_ms + MINUTE_MS
                    publisher.produce(
                        topic, encode(one), key=one.item_id.encode(), timestamp_ms=at_ms
                    )
        publisher.flush()

    steps = {DAY_MS: (1, 4), HOUR_MS: (1, 3)}
    pending = {width: PendingForecasts(steps[width], width, 99) for width in steps}
    # Nothing is final but what ended before today: days of the last four cutoffs are open.
    cutoffs_ms = waiting_cutoffs_ms(pending[DAY_MS], TODAY_MS)
    tail = Tail(settings, topic, 40)
    records_read = [0]

    def counted(values: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        for value in values:
            records_read[0] += 1
            yield value

    read_forecasts(
        counted(chain(tail, Earlier(settings, topic, cutoffs_ms, tail))),
        pending,
        oldest_cutoff_ms={DAY_MS: TODAY_MS - 9 * DAY_MS, HOUR_MS: TODAY_MS - 9 * HOUR_MS},
        owns=lambda _: True,
    )
    assert cutoffs_ms == [TODAY_MS - days * DAY_MS for days in (3, 2, 1, 0)]
    days = pending[DAY_MS]
    assert set(cutoffs_ms) <= set(days.cutoffs)
    for cutoff_ms in cutoffs_ms:
        assert days.items_at(cutoff_ms) == set(ITEMS)
    # The tail, and one hour's forecasts beside those of a day.
    assert records_read[0] <= 40 + 4 * (len(ITEMS) + len(ITEMS))
