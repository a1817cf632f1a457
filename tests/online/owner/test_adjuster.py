"""How segments in alarm are decided about: what is tried, chosen and forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import torch

from freshet.model.batch import Batch
from freshet.model.network import QUANTILE_LEVELS
from freshet.online.adjust.beginning import Beginning
from freshet.online.adjust.record import beginning_of, with_beginnings
from freshet.online.forecast.context import Contexts
from freshet.online.forecast.provenance import context_sha256
from freshet.online.owner import adjuster as module
from freshet.online.owner.adjuster import SAMPLE, Adjuster, sampled
from freshet.online.weights.loaded import LoadedWeights, Serving
from freshet.stream.schemas import (
    AdjustmentDecision,
    Adjustments,
    DriftAlert,
    SegmentAdjustment,
)
from freshet.stream.units import HOUR_MS
from tests.online.worker.windows import FIRST, UNITS, FakeReader, contexts_of

HOURS, ONSET = 60, 48
ITEMS = ("a|n", "b|n", "c|s")


def alert(segment: str, kind: str = "level", state: str = "drift", hour: int = ONSET) -> DriftAlert:
    fields = {"alert_id": f"{segment}{kind}", "segment": segment, "kind": kind, "state": state}
    fields |= {"detector": "cusum", "weights_version": "v", "description": "", "action": ""}
    at = {"detected_at_ms": 0, "onset_ms": (FIRST + hour) * HOUR_MS, "size": 1.0}
    return msgspec.convert(fields | at, DriftAlert)


def segments(item_ids: Sequence[str]) -> list[str]:
    """`a|n` is of segment `n`."""
    return [item_id.split("|")[1] for item_id in item_ids]


def windows() -> Contexts:
    """100 units an hour of each item; from the onset on 300 of those in `n`."""
    reader = FakeReader(num_buckets=100, reached=FIRST + HOURS, clicked=FIRST + HOURS)
    for item_id in ITEMS:
        for hour in range(HOURS):
            moved = hour >= ONSET and item_id.endswith("n")
            reader.add(item_id, FIRST + hour, UNITS, 300_000 if moved else 100_000)
    return contexts_of(reader, context_length=48)


class LastWeekForecaster:
    """Says what the context sold one day before each step, nearly surely; counts its rows."""

    quantile_levels = tuple(QUANTILE_LEVELS)

    def __init__(self) -> None:
        self.rows = 0

    def forecast(self, batch: Batch) -> torch.Tensor:
        self.rows += len(batch)
        H = batch.prediction_length
        day_ago_BH = torch.nan_to_num(batch.target_BT[:, -24 : -24 + H], nan=0.0)
        spread_Q = torch.linspace(0.99, 1.01, len(QUANTILE_LEVELS))
        return day_ago_BH[..., None] * spread_Q


class Decider(Adjuster):
    """An adjuster that keeps its last decision."""

    def __init__(self) -> None:
        super().__init__(segments)
        self.decision: AdjustmentDecision | None = None
        self.serving: dict[str, tuple[str, Beginning | None]] = {}
        self.sample: set[str] = set()

    def decide(self, *args: Any, **named: Any) -> AdjustmentDecision:
        self.decision = super().decide(*args, **named)
        told = self.decision.segments
        self.serving = {one.segment: (one.how, beginning(one)) for one in told}
        self.sample = {item_id for one in told for item_id in one.sample}
        return self.decision


def beginning(one: SegmentAdjustment) -> Beginning | None:
    return None if one.begins_at_ms is None else Beginning(one.begins_at_ms, tuple(one.moved))


def weights(version: str, forecaster: Any) -> LoadedWeights:
    return LoadedWeights(version, "", forecaster)


def serving(version: str, forecaster: Any) -> Serving:
    return Serving(weights(version, forecaster))


def decided(hour: int, made: Adjuster, contexts: Contexts | None = None) -> LastWeekForecaster:
    forecaster = LastWeekForecaster()
    made.decide(contexts or windows(), serving("v", forecaster), (FIRST + hour) * HOUR_MS)
    return forecaster


def test_a_segment_in_alarm_is_served_by_what_would_have_been_best_and_others_as_they_were() -> (
    None
):
    made = Decider()
    made.take(alert("n"))
    decided(ONSET + 6, made)
    name, beginning = made.serving["n"]
    # Six hours of 600 where 200 were expected, of days that are flat: as in `test_beginning`.
    onset_ms = (FIRST + ONSET) * HOUR_MS
    assert (name, beginning) == ("shifted", Beginning(onset_ms, (0.478,) * 24))
    assert made.sample == {"a|n", "b|n"} == made.items(ITEMS)
    assert made.decision is not None and made.decision.resolution_ms == HOUR_MS
    assert made.decision.as_of_ms == (FIRST + ONSET + 6) * HOUR_MS
    (told,) = made.decision.segments
    # Tried at hours 1 to 4 since the onset, on the buckets of 1 to 4.
    assert told.buckets == 4 and set(told.losses) == {"as_it_is", "hidden", "profile", "shifted"}
    assert told.losses["shifted"] == min(told.losses.values())


def test_before_two_buckets_are_final_since_the_onset_nothing_is_served_differently() -> None:
    made = Decider()
    made.take(alert("n"))
    # The bucket before the cutoff is not final, and one since the onset is what is learnt from.
    decided(ONSET + 3, made)
    assert made.serving == {"n": ("as_it_is", None)}
    assert made.decision is not None and made.decision.segments[0].buckets == 1
    decided(ONSET + 4, made)
    assert made.serving["n"][0] == "shifted"


def test_what_was_tried_is_not_tried_again_and_a_new_worker_finds_the_same() -> None:
    made, contexts = Decider(), windows()
    made.take(alert("n"))
    first = decided(ONSET + 5, made, contexts)
    # Two items at the onset; then four candidates each at the three cutoffs that are tried.
    assert first.rows == 2 + 3 * 4 * 2
    assert decided(ONSET + 6, made, contexts).rows == 4 * 2
    again = Decider()
    again.take(alert("n"))
    decided(ONSET + 6, again)
    assert again.serving == made.serving


def test_other_weights_or_another_onset_are_tried_anew() -> None:
    made, contexts, forecaster = Decider(), windows(), LastWeekForecaster()
    made.take(alert("n"))
    made.decide(contexts, serving("v", forecaster), (FIRST + ONSET + 6) * HOUR_MS)
    once = forecaster.rows
    made.decide(contexts, serving("w", forecaster), (FIRST + ONSET + 6) * HOUR_MS)
    assert forecaster.rows == 2 * once
    made.take(alert("n", "timing", hour=ONSET - 1))
    made.decide(contexts, serving("w", forecaster), (FIRST + ONSET + 6) * HOUR_MS)
    assert forecaster.rows > 2 * once


def test_a_segment_is_tried_by_the_version_that_serves_it() -> None:
    made, contexts = Decider(), windows()
    default, other = LastWeekForecaster(), LastWeekForecaster()
    both = Serving(weights("v", default), weights("w", other), frozenset({"n"}))
    made.take(alert("n"))
    made.decide(contexts, both, (FIRST + ONSET + 6) * HOUR_MS)
    assert default.rows == 0 < other.rows
    assert made.decision is not None and made.decision.weights_version == "v"
    alone = Serving(weights("w", other))
    rows = other.rows
    made.decide(contexts, alone, (FIRST + ONSET + 6) * HOUR_MS)
    assert other.rows == rows, "the same version serves it still"


def test_when_its_last_alarm_ends_a_segment_is_as_it_was() -> None:
    made = Decider()
    made.take(alert("n"))
    made.take(alert("n", "timing"))
    made.take(alert("n", state="stable"))
    decided(ONSET + 6, made)
    assert made.serving["n"][0] == "shifted", "one of its alarms holds on"
    made.take(alert("n", "timing", state="stable"))
    decided(ONSET + 7, made)
    assert made.serving == {} and made.sample == set() and made.idle


def test_a_feed_that_stopped_is_not_forecast_away() -> None:
    made = Decider()
    made.take(alert("n", "data"))
    assert decided(ONSET + 6, made).rows == 0 and made.serving == {}


def test_an_alarm_of_the_whole_shop_is_that_of_segments_without_one() -> None:
    made = Decider()
    made.take(alert("all"))
    decided(ONSET + 6, made)
    assert set(made.serving) == {"all"} and made.sample == set(ITEMS)
    made.take(alert("n"))
    decided(ONSET + 6, made)
    assert set(made.serving) == {"all", "n"} and made.sample == set(ITEMS)
    assert made.serving["n"][0] == "shifted"


def test_after_a_restart_the_newest_decision_says_who_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Decider()
    made.take(alert("n"))
    decided(ONSET + 6, made)
    assert made.decision is not None
    asked: list[str] = []
    monkeypatch.setattr(module, "choose", lambda trials, serving: asked.append(serving) or serving)
    again = Decider()
    assert again.idle
    again.resume(made.decision)
    assert not again.idle, "what is served differently has to end"
    again.take(alert("n"))
    decided(ONSET + 7, again)
    assert asked == ["shifted"]


def test_a_decision_is_as_of_the_cutoff_that_has_come_when_trials_are_over() -> None:
    made, contexts, forecaster = Decider(), windows(), LastWeekForecaster()
    made.take(alert("n"))
    hour_ms = [(FIRST + ONSET + hour) * HOUR_MS for hour in (6, 9)]
    decision = made.decide(
        contexts, serving("v", forecaster), hour_ms[0], newest_ms=lambda: hour_ms[1]
    )
    (told,) = decision.segments
    # Tried as of hour 6, and by what was sold in nine hours: 600 each where 200 were expected.
    assert decision.as_of_ms == hour_ms[1] and told.buckets == 4
    assert told.moved == [0.48] * 24


def test_what_is_between_forecasts_may_end_the_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    made, calls = Decider(), []

    def alive() -> None:
        calls.append(1)
        raise KeyError

    made.take(alert("n"))
    with pytest.raises(KeyError):
        made.decide(
            windows(), serving("v", LastWeekForecaster()), (FIRST + ONSET + 6) * HOUR_MS, alive
        )
    assert calls == [1] and made.serving == {}


def test_of_many_segments_those_of_the_oldest_alarms_are_served_differently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_SEGMENTS", 1)
    made = Decider()
    made.take(alert("n"))
    made.take(alert("s", hour=ONSET - 1))
    decided(ONSET + 6, made)
    # The other one is not served by the alarm of the whole shop either.
    assert made.serving["n"] == ("as_it_is", None) and made.sample == {"c|s"}
    assert [one.segment for one in made.decision.segments] == ["s", "n"]  # type: ignore[union-attr]


def test_the_sample_of_a_segment_depends_on_its_items_alone() -> None:
    item_ids = [f"{number}|n" for number in range(3 * SAMPLE)]
    rows = sampled(range(len(item_ids)), item_ids)
    assert len(rows) == SAMPLE and list(rows) == sorted(rows)
    turned = item_ids[::-1]
    others = sampled(range(len(turned)), turned)
    assert {item_ids[row] for row in rows} == {turned[row] for row in others}


def test_an_adjusted_context_is_dressed_again_from_what_its_record_says() -> None:
    contexts, cutoff_ms = windows(), (FIRST + ONSET + 6) * HOUR_MS
    made = Decider()
    made.take(alert("n"))
    decided(ONSET + 6, made, contexts)
    begins = made.serving["n"][1]
    served = contexts.batch([0, 1, 2], cutoff_ms, [begins, begins, None])
    ((_, said), *_) = with_beginnings({}, [begins], "sha").items()
    told = msgspec.json.decode(msgspec.json.encode(said), type=Adjustments)
    begins = beginning_of(told)
    again = windows().batch([0, 1, 2], cutoff_ms, [begins, begins, None])
    plain = context_sha256(contexts.batch([0, 1, 2], cutoff_ms))
    found = context_sha256(served)
    assert found == context_sha256(again) and told.decision_sha256 == "sha"
    assert found[2] == plain[2] and found[0] != plain[0] and found[1] != plain[1]
