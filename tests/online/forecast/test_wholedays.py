"""Days go before their hours, whose sums are theirs; young items' first days are mixed of both."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import torch

from freshet.model.batch import Batch
from freshet.online.forecast.provenance import context_sha256
from freshet.online.forecast.publish import Numbers
from freshet.online.forecast.sums import StepSums
from freshet.online.forecast.wholedays import (
    DaySums,
    FollowsDays,
    Gap,
    Hours,
    LeadsHours,
    whole_day_ends,
)
from freshet.online.worker import shard
from freshet.online.worker.pace import Pace
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.read.progress import Loading
from freshet.stream.schemas import WIRE_LEVELS, Adjustments, Cumulative, Forecast
from freshet.stream.settings import BY_HOUR
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.online.worker.records import records
from tests.online.worker.turns import LiveReader, Turns, owned_of
from tests.online.worker.windows import UNITS

MIDNIGHT_MS = 20_000 * DAY_MS
MEDIAN = WIRE_LEVELS.index(0.5)
LEVELS_W = np.arange(9.0)

NOBODY: Any = None
"""A forecaster that is not asked."""


def day_record(item_id: str, first: float, both: float, **over: Any) -> Forecast:
    """A forecast by the day whose first days sell so much at the lowest level, one more a level."""
    (made,) = records([item_id], resolution_ms=DAY_MS, cutoff_ms=MIDNIGHT_MS)
    quantiles = [(first + LEVELS_W).tolist()] * 2
    sums = Cumulative(steps=[1, 2], quantiles=[[9.0] * 9, (both + LEVELS_W).tolist()])
    return msgspec.structs.replace(made, **{"quantiles": quantiles, "cumulative": sums, **over})


def said(*made: Forecast) -> DaySums:
    found = DaySums()
    for record in made:
        found.take(record, record.quantiles[0], record.cumulative)
    return found


def hours_of(num_rows: int) -> Numbers:
    """Four units an hour at the lowest level, one more a level."""
    steps = np.array([1, 24, 48])
    sums_BKW = np.broadcast_to(4.0 * steps[:, None] + LEVELS_W, (num_rows, 3, 9))
    steps_BHW = np.broadcast_to(4.0 + LEVELS_W, (num_rows, 48, 9))
    return Numbers(steps_BHW, sums_BKW, steps.tolist())


# What days said -----------------------------------------------------------------------------------


def test_the_first_day_counts_as_itself_and_more_days_as_their_sum() -> None:
    found = said(day_record("a|n", 10, 30)).of("a|n", MIDNIGHT_MS)
    assert found is not None
    assert found.sums_DW.tolist() == [(10 + LEVELS_W).tolist(), (30 + LEVELS_W).tolist()]


def test_the_newest_cutoff_counts_and_of_an_item_the_first_record() -> None:
    first, repeat = day_record("a|n", 10, 30), day_record("a|n", 11, 30, forecast_id="repeat")
    later = day_record("b|n", 12, 30, cutoff_ms=MIDNIGHT_MS + DAY_MS)
    days = said(first, repeat)
    found = days.of("a|n", MIDNIGHT_MS)
    assert found is not None and found.forecast_id == first.forecast_id
    days.take(later, later.quantiles[0], later.cumulative)
    assert days.of("a|n", MIDNIGHT_MS) is None and days.of("a|n", MIDNIGHT_MS + DAY_MS) is None
    days.take(first, first.quantiles[0], first.cumulative)
    assert days.of("a|n", MIDNIGHT_MS) is None and days.of("b|n", MIDNIGHT_MS + DAY_MS)


@pytest.mark.parametrize("over", [{"cumulative": None}, {"quantile_levels": [0.1, 0.5, 0.9]}])
def test_a_record_that_says_no_sums_at_our_levels_is_passed_over(over: dict[str, Any]) -> None:
    assert said(day_record("a|n", 10, 30, **over)).of("a|n", MIDNIGHT_MS) is None


# Where whole days end -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "at_ms", "ends"),
    [
        ("UTC", MIDNIGHT_MS, [24, 48]),
        ("UTC", MIDNIGHT_MS + HOUR_MS, []),
        # Berlin, 2026: clocks go forward on 29 March and back on 25 October.
        ("Europe/Berlin", 1_774_738_800_000, [23, 47]),
        ("Europe/Berlin", 1_774_738_800_000 - DAY_MS, [24, 47]),
        ("Europe/Berlin", 1_792_879_200_000, [25]),
        ("Europe/Berlin", 1_792_879_200_000 - HOUR_MS, []),
        # On Lord Howe they move by half an hour; Apia had no 30 December 2011.
        ("Australia/Lord_Howe", 1_775_307_600_000, []),
        ("Pacific/Apia", 1_325_152_800_000, [24]),
    ],
)
def test_days_of_23_and_25_hours_end_where_they_do(zone: str, at_ms: int, ends: list[int]) -> None:
    assert whole_day_ends(at_ms, Grid(DAY_MS, zone), BY_HOUR, 35) == ends


def test_steps_that_reach_no_whole_day_have_no_ends() -> None:
    days = Grid(DAY_MS)
    short = BY_HOUR.model_copy(update={"prediction_length": 23})
    odd = BY_HOUR.model_copy(update={"resolution_ms": 7 * HOUR_MS})
    minutes = BY_HOUR.model_copy(update={"resolution_ms": MINUTE_MS, "prediction_length": 1440})
    found = [whole_day_ends(MIDNIGHT_MS, days, one, 35) for one in (short, odd, minutes)]
    assert found == [[], [], [1440]]
    assert whole_day_ends(MIDNIGHT_MS, days, BY_HOUR, 1) == [24], "one day is forecast"


# Hours --------------------------------------------------------------------------------------------


def test_sums_over_hours_end_in_the_days_and_say_whose_they_are() -> None:
    first = day_record("a|n", 100, 180)
    follows = FollowsDays(said(first), MIDNIGHT_MS, [24, 48])
    found = follows.agreed(["new|n", "a|n"], cast("Batch", None), hours_of(2), NOBODY)
    assert found.sums_BKW[1, 1:].tolist() == [(100 + LEVELS_W).tolist(), (180 + LEVELS_W).tolist()]
    assert found.adjustments == {1: Adjustments(sums_from=first.forecast_id)}
    # What days say nothing of stays, and so do the hours themselves.
    np.testing.assert_array_equal(found.sums_BKW[0], hours_of(1).sums_BKW[0])
    np.testing.assert_array_equal(found.steps_BHW, hours_of(2).steps_BHW)
    # Medians are 4 more than the lowest: 104 for 100, 184 for 196.
    assert follows.forecast.wape == pytest.approx((4 + 12) / (104 + 184))


def test_without_days_of_this_cutoff_hours_are_untouched() -> None:
    numbers = hours_of(1)
    for days in (DaySums(), said(day_record("a|n", 1, 2, cutoff_ms=MIDNIGHT_MS - DAY_MS))):
        follows = FollowsDays(days, MIDNIGHT_MS, [24, 48])
        assert follows.agreed(["a|n"], cast("Batch", None), numbers, NOBODY) is numbers
        assert follows.gaps() == {}


def test_the_published_gap_is_that_of_the_records() -> None:
    follows = FollowsDays(said(day_record("a|n", 100, 180)), MIDNIGHT_MS, [24, 48])
    (hours,) = records(["a|n"], cutoff_ms=MIDNIGHT_MS)
    sums = Cumulative(steps=[24, 48], quantiles=[[101.0] * 9, [190.0] * 9])
    follows.count([msgspec.structs.replace(hours, cumulative=sums), *records(["b|n"])])
    # 104 and 184 by the day.
    assert follows.gaps() == {"published": pytest.approx((3 + 6) / (104 + 184))}
    assert Gap().items == 0 and np.isnan(Gap().wape)


# Days ---------------------------------------------------------------------------------------------


def batch_of(seen: list[int]) -> Batch:
    """Rows of 30 days of which so many were observed."""
    target = torch.full((len(seen), 30), torch.nan)
    for row, days in enumerate(seen):
        target[row, 30 - days :] = 1.0
    blank = torch.zeros(len(seen), 30, 0)
    return Batch(target, blank, blank, blank[:, 0], torch.zeros(len(seen)), DAY_MS)


def test_first_days_of_young_items_are_mixed_with_their_hours() -> None:
    levels = tuple(WIRE_LEVELS)
    hours_batch = Batch(
        torch.full((1, 30), 0.5),
        torch.zeros(1, 30, 1),
        torch.zeros(1, 78, 1),
        torch.zeros(1, 1),
        torch.zeros(1, dtype=torch.int64),
        HOUR_MS,
    )
    asked: list[Any] = []

    def batch(rows: list[int], cutoff_ms: int) -> Batch:
        asked.append((rows, cutoff_ms))
        return hours_batch

    # Every hour sells 1/3 of a unit for sure: 8 by the first day's end, 16 by the second's.
    certain = SimpleNamespace(
        quantile_levels=levels, forecast=lambda _: torch.full((1, 48, 9), 1 / 3)
    )
    contexts = SimpleNamespace(
        reader=SimpleNamespace(row={"young|n": 7, "old|n": 8, "never|n": 9}.get), batch=batch
    )
    hours: Any = Hours(cast("Any", contexts), StepSums(HOUR_MS, 48), [24, 48])
    days = np.broadcast_to(16.0, (4, 3, 9))
    sums = np.stack([days[:, 0], 2 * days[:, 0], 3 * days[:, 0]], 1)
    leads = LeadsHours(MIDNIGHT_MS, hours)
    item_ids = ["old|n", "young|n", "never|n", "unseen|n"]
    # 12 days count three times as much as hours; 28 alone; none seen, or none by the hour: alone.
    numbers = Numbers(days, sums, [1, 2, 3])
    found = leads.agreed(item_ids, batch_of([28, 12, 0, 12]), numbers, cast("Any", certain))
    assert asked == [([7], MIDNIGHT_MS)]
    assert found.steps_BHW[1, :, 0].tolist() == [14.0, 16.0, 16.0]
    assert found.sums_BKW[1, :, 0].tolist() == [14.0, 28.0, 44.0], "what is missing is carried on"
    for row in (0, 2, 3):
        np.testing.assert_array_equal(found.steps_BHW[row], days[row])
        np.testing.assert_array_equal(found.sums_BKW[row], sums[row])
    assert found.adjustments == {1: Adjustments(mixed_with=context_sha256(hours_batch)[0])}


def test_sums_of_days_begin_with_the_first_day_and_are_never_less() -> None:
    """Of what hardly sells, a sum in whole units may be less than a day's own median of .3."""
    leads = LeadsHours(MIDNIGHT_MS, None)
    numbers = Numbers(np.full((1, 2, 9), 0.3), np.zeros((1, 2, 9)), [1, 2])
    found = leads.agreed(["a|n"], batch_of([28]), numbers, NOBODY)
    assert (found.sums_BKW == 0.3).all() and found.adjustments == {}


# A worker -----------------------------------------------------------------------------------------

DAY = MIDNIGHT_MS // DAY_MS
COMMON = {"context_length": 30, "season_length": 7, "score_steps": (1,)}
BY_HOURS = {**COMMON, "resolution_ms": HOUR_MS, "prediction_length": 48}
BY_DAYS = {**COMMON, "resolution_ms": DAY_MS, "prediction_length": 3}
BOTH = Settings.model_validate({"worker": {"micro_batch": 1, "resolutions": [BY_HOURS, BY_DAYS]}})


def readers() -> dict[int, LiveReader]:
    """Two items, `old` seen for 40 days and `young` for three, at a midnight."""
    made = {}
    for width_ms, head in ((HOUR_MS, DAY * 24), (DAY_MS, DAY)):
        per_day = DAY_MS // width_ms
        made[width_ms] = LiveReader(
            resolution_ms=width_ms,
            num_buckets=150,
            first=head - 40 * per_day,
            reached=head,
            clicked=head,
        )
        for item_id, days in (("old|n", 40), ("young|n", 3)):
            for bucket in range(head - days * per_day, head):
                made[width_ms].add(item_id, bucket, UNITS, 1_000)
        made[width_ms].head = head
    return made


def both_of(monkeypatch: pytest.MonkeyPatch, made: dict[int, LiveReader]) -> Turns:
    turns = Turns(monkeypatch, owned_of(made, settings=BOTH), settings=BOTH)
    turns.now_ms = MIDNIGHT_MS + 5
    for one in turns.owned.served:
        monkeypatch.setattr(one.sums, "learn", lambda *_: False)
    return turns


def medians(made: list[Forecast]) -> dict[str, tuple[list[float], list[float]]]:
    """By item: the first day and both, as days and as hours say."""
    found: dict[str, dict[int, list[float]]] = {}
    for record in made:
        assert record.cumulative is not None
        of_step = dict(zip(record.cumulative.steps, record.cumulative.quantiles, strict=True))
        first = record.quantiles[0] if record.resolution_ms == DAY_MS else of_step[24]
        both = of_step[2 if record.resolution_ms == DAY_MS else 48]
        said = found.setdefault(record.item_id, {})
        said[record.resolution_ms] = [first[MEDIAN], both[MEDIAN]]
    return {item_id: (said[DAY_MS], said[HOUR_MS]) for item_id, said in found.items()}


def test_at_midnight_days_go_first_and_hours_end_in_what_they_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = both_of(monkeypatch, readers())
    asked: list[int] = []
    turns.weights.forecaster.before = lambda batch: asked.append(batch.resolution_ms // HOUR_MS)
    turns.turn()
    made = turns.forecasts()
    assert [record.resolution_ms for record in made] == [DAY_MS] * 2 + [HOUR_MS] * 2
    # The young item's hours are asked for twice: for its days, and for themselves.
    assert sorted(asked) == [1, 1, 1, 24, 24] and asked[0] == 24
    for of_days, of_hours in medians(made).values():
        assert of_days == of_hours
    by_item = {(record.item_id, record.resolution_ms): record for record in made}
    assert by_item["old|n", DAY_MS].adjustments == Adjustments()
    assert by_item["young|n", DAY_MS].adjustments.mixed_with
    for item_id in ("old|n", "young|n"):
        days, hours = by_item[item_id, DAY_MS], by_item[item_id, HOUR_MS]
        assert hours.adjustments == Adjustments(sums_from=days.forecast_id)
    assert turns.measured("day_gap", of="published") == 0.0
    # Every hour and every day sells about 100: as forecast, a day is far from 24 hours.
    assert (turns.measured("day_gap", of="forecast") or 0.0) > 1.0


def test_hours_do_not_break_into_the_days_of_their_midnight_and_later_ones_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = readers()
    turns = both_of(monkeypatch, made)
    hours, _ = turns.owned.served
    monkeypatch.setattr(hours, "rested", lambda: True)
    order: list[tuple[int, int]] = []

    def before(batch: Batch) -> None:
        order.append((batch.resolution_ms // HOUR_MS, int(batch.start_ms_B[0])))
        turns.monotonic_s += 2.0

    turns.weights.forecaster.before = before
    days = turns.owned.days
    assert days is not None
    turns.worker._serve_due(turns.owned, days)
    # Two days, within the second of which the young item's hours are looked at.
    assert sorted(width for width, _ in order) == [1, 24, 24] and len(turns.forecasts()) == 2
    # Now days are due again, and an hour later than their midnight has come meanwhile.
    for reader, ahead in ((made[DAY_MS], 1), (made[HOUR_MS], 25)):
        reader.head += ahead
        reader.reached += ahead
    days.refresh(turns.now_ms)
    turns.worker._serve_due(turns.owned, days)
    cutoffs = [(record.resolution_ms, record.cutoff_ms) for record in turns.forecasts()[2:]]
    late = (HOUR_MS, MIDNIGHT_MS + DAY_MS + HOUR_MS)
    assert cutoffs == [late] * 2 + [(DAY_MS, MIDNIGHT_MS + DAY_MS)] * 2


def test_a_worker_that_takes_over_between_days_and_hours_goes_on_from_what_was_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = both_of(monkeypatch, readers())
    first.commits.before = lambda sent: not first.commits.sent
    first.turn()
    published = first.forecasts()
    assert {record.resolution_ms for record in published} == {DAY_MS}
    first.worker._stop.set()

    # Late events have moved what days would say by now; what they said stands.
    made = readers()
    second = both_of(monkeypatch, made)
    monkeypatch.setattr(
        second.weights.forecaster, "forecast", lambda batch: torch.full((len(batch), 48, 21), 9.0)
    )
    (of_another,) = records(["x|n"], resolution_ms=DAY_MS, cutoff_ms=MIDNIGHT_MS + DAY_MS)
    to_come = msgspec.structs.replace(of_another, item_id="old|n")
    broken = encode(published[0]).replace(b'"cumulative":{"steps"', b'"cumulative":{"step"')

    class Tail(list[tuple[int, bytes]]):
        cut: frozenset[int] = frozenset()

        def __init__(self, _: Settings, topic: str) -> None:
            told = [*published, of_another, to_come] if topic.endswith("forecasts.v1") else []
            values = [broken, *map(encode, told)] if told else []
            super().__init__((0, value) for value in values)

    monkeypatch.setattr(shard, "Tail", Tail)
    second.membership.said = first.membership.said
    second.owned.recover(BOTH, cast("Any", second.membership), latest_ms=MIDNIGHT_MS + HOUR_MS)
    second.turn()
    hours = second.forecasts()
    assert {record.resolution_ms for record in hours} == {HOUR_MS}
    for of_days, of_hours in medians(published + hours).values():
        assert of_days == of_hours
    assert second.measured("day_gap", of="published") == 0.0


def test_days_that_have_not_come_so_far_hold_no_hours_up(monkeypatch: pytest.MonkeyPatch) -> None:
    made = readers()
    made[DAY_MS].head -= 1
    turns = both_of(monkeypatch, made)
    turns.turn()
    at_midnight = [one for one in turns.forecasts() if one.cutoff_ms == MIDNIGHT_MS]
    assert [one.resolution_ms for one in at_midnight] == [HOUR_MS] * 2
    assert all(one.adjustments == Adjustments() for one in at_midnight)
    assert turns.measured("day_gap", of="published") is None


@pytest.mark.parametrize("alone", [BY_HOURS, BY_DAYS])
def test_one_resolution_alone_is_moved_by_nothing(
    monkeypatch: pytest.MonkeyPatch, alone: dict[str, Any]
) -> None:
    settings = Settings.model_validate({"worker": {"resolutions": [alone]}})
    turns = Turns(monkeypatch, owned_of(readers(), settings=settings), settings=settings)
    turns.now_ms = MIDNIGHT_MS + 5
    monkeypatch.setattr(turns.main.sums, "learn", lambda *_: False)
    turns.turn()
    assert len(turns.forecasts()) == 2
    assert all(one.adjustments == Adjustments() for one in turns.forecasts())


@pytest.mark.parametrize("width_ms", [HOUR_MS, DAY_MS])
def test_history_is_said_to_be_loaded_until_no_reader_says_so(
    monkeypatch: pytest.MonkeyPatch, width_ms: int
) -> None:
    by_width = readers()
    by_width[width_ms].of_history = Loading(complete=1, partitions=8)
    turns = both_of(monkeypatch, by_width)
    turns.turn()
    assert turns.health.trouble("history") is not None
    by_width[width_ms].of_history = None
    for one in turns.owned.served:
        one.pace = Pace(one.reader.rules)
    turns.turn()
    assert turns.health.trouble("history") is None
