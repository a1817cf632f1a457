"""Days on which clocks change, in five zones: what is served of them, by hand and recounted."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, cast
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import redis
import torch

from freshet.model.batch import KNOWN_SLOTS
from freshet.online.drift.pending import Issued
from freshet.online.forecast.context import Age
from freshet.online.forecast.publish import Numbers, Origin, forecast_records
from freshet.online.worker.served import Served, Source
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.codec import decode, encode
from freshet.stream.config import ServedResolution, Settings
from freshet.stream.fold.batches import RawBatch
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.schemas import WIRE_LEVELS, Compute, Forecast
from freshet.stream.slots import NAMED_SLOTS
from freshet.stream.store.layout import Answer
from freshet.stream.store.redis import WindowStore
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.online.worker.turns import FakeMembership

ORDERS = "freshet.orders.v1"


class Change(NamedTuple):
    """A day on which clocks change: when it begins and ends in UTC, worked out by hand."""

    zone: str
    day: date
    begins: datetime
    ends: datetime

    @property
    def begins_ms(self) -> int:
        return ms_of(self.begins)

    @property
    def ends_ms(self) -> int:
        return ms_of(self.ends)


def ms_of(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)  # type: ignore[arg-type,misc]


BERLIN, YORK, HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
CHANGES = [
    Change(BERLIN, date(2026, 3, 29), utc(2026, 3, 28, 23), utc(2026, 3, 29, 22)),  # 23 h
    Change(BERLIN, date(2026, 10, 25), utc(2026, 10, 24, 22), utc(2026, 10, 25, 23)),  # 25 h
    Change(YORK, date(2026, 3, 8), utc(2026, 3, 8, 5), utc(2026, 3, 9, 4)),  # 23 h
    Change(YORK, date(2026, 11, 1), utc(2026, 11, 1, 4), utc(2026, 11, 2, 5)),  # 25 h
    Change(HOWE, date(2026, 4, 5), utc(2026, 4, 4, 13), utc(2026, 4, 5, 13, 30)),  # 24 h 30
    Change(HOWE, date(2026, 10, 4), utc(2026, 10, 3, 13, 30), utc(2026, 10, 4, 13)),  # 23 h 30
]
# Where no midnight is shown, or two are, or the last hour of a day comes again.
AT_MIDNIGHT = [
    Change("Africa/Cairo", date(2026, 4, 24), utc(2026, 4, 23, 22), utc(2026, 4, 24, 21)),
    Change("Africa/Cairo", date(2026, 10, 29), utc(2026, 10, 28, 21), utc(2026, 10, 29, 22)),
    Change("America/Havana", date(2026, 11, 1), utc(2026, 11, 1, 4), utc(2026, 11, 2, 5)),
]


def named(change: Change) -> str:
    return f"{change.zone}-{change.day}"


EACH = pytest.mark.parametrize("change", CHANGES + AT_MIDNIGHT, ids=named)
BY_NIGHT = pytest.mark.parametrize("change", CHANGES, ids=named)


def served_as(resolution_ms: int, prediction_length: int) -> ServedResolution:
    return ServedResolution(
        resolution_ms=resolution_ms,
        prediction_length=prediction_length,
        season_length=7,
        score_steps=(1, 2),
        context_length=5 if resolution_ms == DAY_MS else 40,
    )


DAYS, HOURS = served_as(DAY_MS, 4), served_as(HOUR_MS, 30)


class World:
    """A shop in a zone, whose orders go through the fold into Redis."""

    def __init__(self, redis_url: str, zone: str) -> None:
        widths = [{"resolution_ms": ms, "buckets": 200} for ms in (HOUR_MS, DAY_MS)]
        self.settings = Settings.model_validate(
            {
                "windows": {"resolutions": widths},
                "calendar": {
                    "time_zone": zone,
                    "opening_hours": dict.fromkeys(
                        ("mon", "tue", "wed", "thu", "fri", "sat", "sun"), "01:00-04:00"
                    ),
                },
            }
        )
        self.client = redis.Redis.from_url(redis_url, protocol=2)
        self.shop = ShopTables.of(self.settings)
        self._writer = PartitionWindows.claim(
            WindowStore(self.client, 0), "orders", ORDERS, 0, self.settings
        )
        self._writer.start_at(0)

    def sell(self, sales: list[tuple[str, int, int]]) -> None:
        """Item, time and units of each, in the order of their times."""
        first = self._writer.next_offset
        values = [
            json.dumps(
                {"event_id": f"{first + place}", "event_time": at_ms, "sku": sku, "region": "n"}
                | {"quantity": units, "unit_price": 1}
            ).encode()
            for place, (sku, at_ms, units) in enumerate(sales)
        ]
        end = first + len(sales)
        times = np.array([at_ms for _, at_ms, _ in sales], np.int64)
        batch = RawBatch(values, [None] * len(sales), times, np.arange(first, end), end)
        fold = self._writer.fold(batch)
        assert not fold.dead and not fold.too_late
        assert self._writer.apply(fold) is Answer.APPLIED

    def tell(self, table: str, **fields: Any) -> None:
        value = json.dumps(fields).encode()
        assert self.shop.apply(table, b"k", value, 0), fields  # type: ignore[arg-type]

    def served(self, what: ServedResolution) -> Served:
        def opened(one: ServedResolution, num_buckets: int, owns: Any) -> WindowReader:
            rules = ReadRules.of(self.settings, one.resolution_ms)
            width_ms = one.resolution_ms
            return WindowReader(self.client, 0, width_ms, num_buckets, owns=owns, rules=rules)

        membership = cast("Any", FakeMembership())
        source = Source(opened, self.shop, membership, torch.device("cpu"))
        made = Served(self.settings, what, source)
        made.refresh(0)
        return made


def by_hand(change: Change) -> list[tuple[str, int, int]]:
    """Sales on each side of each midnight around the change, told apart by their units."""
    begins_ms, ends_ms = change.begins_ms, change.ends_ms
    return [
        ("a", begins_ms - DAY_MS, 1),
        ("a", begins_ms - 1, 2),
        ("a", begins_ms, 4),
        ("a", ends_ms - 1, 8),
        ("a", ends_ms, 16),
        ("a", ends_ms + DAY_MS - 1, 32),
        ("a", ends_ms + DAY_MS, 64),
        ("a", ends_ms + 2 * DAY_MS, 128),
    ]


def published(served: Served, cutoff_ms: int) -> Forecast:
    """The record of a forecast of nothing."""
    none_BHW = np.zeros((1, served.served.prediction_length, len(WIRE_LEVELS)))
    origin = Origin(
        resolution_ms=served.resolution_ms,
        cutoff_ms=cutoff_ms,
        issued_at_ms=0,
        weights_version="v1",
        weights_sha256="",
        offsets={},
        series_by=("sku", "region"),
        degraded=False,
        edges_ms=served.edges_ms(cutoff_ms),
    )
    compute = Compute(device="cpu", dtype="float32", batch_shape=[1, 5])
    numbers = Numbers(none_BHW, none_BHW, [])
    (record,) = forecast_records(
        ["a|n"],
        numbers,
        origin,
        age=Age(np.zeros(1, bool), np.zeros(1, bool), np.zeros(1, bool)),
        context_sha256=[""],
        compute=compute,
    )
    return decode(Forecast, encode(record))


@EACH
def test_sales_count_in_their_local_day_and_forecasts_say_when_days_begin(
    redis_server: str, change: Change
) -> None:
    world = World(redis_server, change.zone)
    world.sell(by_hand(change))
    days = world.served(DAYS)
    begins_ms, ends_ms = change.begins_ms, change.ends_ms
    assert days.reader.live_cutoff_ms() == ends_ms + 2 * DAY_MS, "a local midnight"
    row = days.reader.row("a|n")
    assert row is not None
    cutoff_ms = ends_ms + 2 * DAY_MS
    np.testing.assert_array_equal(
        days.contexts.target([row], cutoff_ms, 4), [[1 + 2, 4 + 8, 16 + 32, 64]]
    )
    # From the midnight before: a day of 24 hours, that of the change, two of 24 hours.
    before_ms = begins_ms - DAY_MS
    edges_ms = [before_ms, begins_ms, ends_ms, ends_ms + DAY_MS, ends_ms + 2 * DAY_MS]
    assert days.edges_ms(before_ms) == tuple(edges_ms)
    record = published(days, before_ms)
    assert (record.step_starts_ms, record.ends_at_ms) == (edges_ms[:-1], edges_ms[-1])
    batch = days.contexts.batch([row], begins_ms)
    assert batch.local_ms_BS is not None
    first = datetime.combine(change.day - timedelta(days=5), datetime.min.time(), UTC)
    shown = [ms_of(first + timedelta(days=n)) for n in range(9)]
    if change.zone == "Africa/Cairo" and change.day.month == 4:
        shown[5] += HOUR_MS  # Its midnight is left out.
    assert batch.local_ms_BS[0].tolist() == shown, "each day begins at 0 o'clock"


@EACH
def test_days_and_hours_are_those_of_a_recount_with_zoneinfo(
    redis_server: str, change: Change
) -> None:
    world, rng = World(redis_server, change.zone), random.Random(change.begins_ms)
    first_ms, end_ms = change.begins_ms - 2 * DAY_MS, change.ends_ms + 2 * DAY_MS
    times = sorted(rng.randrange(first_ms, end_ms) for _ in range(300))
    sales = [("a", at_ms, rng.randint(1, 9)) for at_ms in times]
    world.sell([("a", first_ms, 3), *sales, ("a", end_ms, 1)])
    zone, by_day, by_hour = ZoneInfo(change.zone), Counter[date](), Counter[int]()
    for _, at_ms, units in [("a", first_ms, 3), *sales]:
        by_day[datetime.fromtimestamp(at_ms / 1_000, zone).date()] += units
        by_hour[at_ms // HOUR_MS] += units
    days, hours = world.served(DAYS), world.served(HOURS)
    expected = [by_day[change.day + timedelta(days=n)] for n in range(-2, 3)]
    np.testing.assert_array_equal(days.contexts.target([0], end_ms, 5), [expected])
    last = change.ends_ms // HOUR_MS
    expected = [by_hour[last - n] for n in range(27, 0, -1)]
    np.testing.assert_array_equal(hours.contexts.target([0], last * HOUR_MS, 27), [expected])
    # What the clock shows at each hour of the context and of the horizon.
    cutoff_ms = change.begins_ms // HOUR_MS * HOUR_MS
    shown = hours.contexts.batch([0], cutoff_ms).local_ms_BS
    assert shown is not None and shown.shape == (1, 70)
    for step, found_ms in enumerate(shown[0].tolist()):
        at_s = cutoff_ms / 1_000 + (step - 40) * 3_600
        local = datetime.fromtimestamp(at_s, zone).replace(tzinfo=UTC)
        assert found_ms == ms_of(local), step


@EACH
def test_a_day_is_scored_with_what_was_sold_in_it_once_all_of_it_is_final(
    redis_server: str, change: Change
) -> None:
    world = World(redis_server, change.zone)
    world.sell(by_hand(change)[:6])
    windows = world.settings.windows
    late_ms = windows.out_of_order_ms + windows.allowed_lateness_ms
    days = world.served(DAYS)
    quantiles_IKQ = np.full((1, 2, len(WIRE_LEVELS)), 10.0, np.float32)
    for cutoff_ms in (change.begins_ms - DAY_MS, change.begins_ms):
        ids = [f"of {cutoff_ms}"]
        days.pending.add(Issued(cutoff_ms, "v1", WIRE_LEVELS, ["a|n"], ids, quantiles_IKQ))
    scored = days.scorer.score(change.begins_ms, change.ends_ms)
    (score,) = scored.scores
    assert (score.bucket_start_ms, score.resolution_ms) == (change.begins_ms, DAY_MS)
    # The levels lie evenly around a half: twice their mean loss is the distance from 10 to 4 + 8.
    assert score.actual == 12 and [step.pinball for step in score.steps] == pytest.approx([2, 2])
    assert sorted((step.forecast_id, step.step) for step in score.steps) == [
        (f"of {change.begins_ms - DAY_MS}", 2),
        (f"of {change.begins_ms}", 1),
    ]
    # Up to the last millisecond that a late order has, the day is not due.
    for ahead_ms, due in ((-1, False), (0, True)):
        final_ms = change.ends_ms + ahead_ms
        assert (change.begins_ms in days.pending.due_buckets(final_ms)) == due
    assert days.reader.final_ms() == change.ends_ms + DAY_MS - 1 - late_ms


@BY_NIGHT
def test_what_crosses_the_change_covers_its_share_of_the_day(
    redis_server: str, change: Change
) -> None:
    world = World(redis_server, change.zone)
    world.sell(by_hand(change))
    length_ms = change.ends_ms - change.begins_ms
    # From noon to noon; the half that lies behind the change is as long as what is left of 12 h.
    noon_ms = change.ends_ms - 12 * HOUR_MS
    promotion = {"starts_at": change.begins_ms - 12 * HOUR_MS, "ends_at": noon_ms}
    world.tell("promotions", promotion_id="p", sku="a", discount=0.5, **promotion)
    covariate = {"starts_at": noon_ms, "ends_at": change.ends_ms + 6 * HOUR_MS}
    world.tell("covariates", covariate_id="c", name="event", **covariate)
    days = world.served(DAYS)
    known = days.contexts.batch([0], change.begins_ms - DAY_MS).known_BSK[0, -4:]

    def of(slot: str) -> list[float]:
        return [float(value) for value in known[:, KNOWN_SLOTS.index(slot)]]

    half = (length_ms - 12 * HOUR_MS) / length_ms
    assert of("promotion") == pytest.approx([0.5, half, 0, 0])
    assert of("discount") == pytest.approx([0.25, half / 2, 0, 0])
    assert of("event") == pytest.approx([0, 1 - half, 0.25, 0])
    # Open from one to four by the clock, which is changed in between: closed for 21 hours.
    closed = 21 * HOUR_MS / length_ms
    told = days.contexts.windowed([0], change.begins_ms - DAY_MS).known_NSK[0, -4:]
    shares = told[:, NAMED_SLOTS.index("closed")].tolist()
    assert shares == pytest.approx([21 / 24, closed, 21 / 24, 21 / 24])
    # On a day that is open for three hours something can be sold: it is not forecast as nothing.
    assert all(map(math.isnan, of("closed")))
