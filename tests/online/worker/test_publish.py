"""The worker's parts without servers: what a record says, and what the next worker learns from the
topics.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.drift.pending import PendingForecasts
from freshet.online.worker.publish import (
    Numbers,
    Origin,
    forecast_ids,
    forecast_records,
    issued_of,
    significant,
    wire_columns,
)
from freshet.online.worker.recovery import read_alarms, read_forecasts, read_scores
from freshet.stream.codec import decode, encode
from freshet.stream.errors import InvalidInputError
from freshet.stream.schemas import (
    WIRE_LEVELS,
    Adjustments,
    Compute,
    DriftAlert,
    Forecast,
    Score,
    ScoredStep,
)
from freshet.stream.units import HOUR_MS

STEPS = (1, 2, 4)


def origin(**over: object) -> Origin:
    common: dict[str, object] = {
        "resolution_ms": HOUR_MS,
        "cutoff_ms": 10 * HOUR_MS,
        "issued_at_ms": 5,
        "weights_version": "v1",
        "weights_sha256": "ab",
        "offsets": {"orders:0": 7, "clicks:1": 9},
        "series_by": ("sku", "region"),
        "degraded": False,
    }
    return Origin(**(common | over))  # type: ignore[arg-type]


def records(items: list[str], **over: object) -> list[Forecast]:
    rng = np.random.default_rng(len(items))
    quantiles = significant(np.sort(rng.gamma(1, 40, (len(items), 4, 9)), axis=-1))
    return forecast_records(
        items,
        Numbers(quantiles, quantiles[:, :2].cumsum(1), [1, 2]),
        origin(**over),
        cold_B=np.array([item.startswith("cold") for item in items]),
        context_sha256=["c"] * len(items),
        compute=Compute(device="cpu", dtype="float32", batch_shape=[len(items), 8]),
    )


class FakeTail:
    """A topic's newest records; `cut` names partitions of which older ones are gone."""

    def __init__(self, values: list[bytes], cut: tuple[int, ...] = ()) -> None:
        self.values, self.cut = values, set(cut)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return iter([(0, value) for value in self.values])


def score(forecast: Forecast, step: int, item: str | None = None) -> Score:
    scored = ScoredStep(
        forecast_id=forecast.forecast_id,
        weights_version="v1",
        step=step,
        pinball=0.0,
        seasonal_naive_pinball=None,
        pit=0.5,
        residual=0.0,
        covered_80=True,
    )
    return Score(
        item_id=item or forecast.item_id,
        segment="-",
        resolution_ms=HOUR_MS,
        bucket_start_ms=forecast.cutoff_ms + (step - 1) * HOUR_MS,
        scored_at_ms=0,
        actual=1.0,
        steps=[scored],
    )


# Records ------------------------------------------------------------------------------------------


@given(st.floats(1e-9, 1e12))
def test_four_significant_digits_are_kept_and_print_short(value: float) -> None:
    rounded = float(significant(np.array([value]))[0])
    assert abs(rounded - value) <= 0.5001e-3 * value
    assert len(f"{rounded!r}".replace(".", "").split("e")[0].strip("0")) <= 4


def test_a_record_survives_the_wire_and_says_what_it_is() -> None:
    plain, cold, escaped = records(["a|north", "cold|south", "x\\|y|west"])
    assert decode(Forecast, encode(plain)) == plain
    assert (plain.status, cold.status) == ("ok", "cold_start")
    assert (escaped.sku, escaped.region) == ("x|y", "west")
    assert records(["a|north"], degraded=True)[0].status == "degraded"
    assert records(["only"], series_by=("sku",))[0].region == "-"
    assert cold.cumulative is not None and cold.cumulative.steps == [1, 2]
    assert cold.cumulative.quantiles[0] == cold.quantiles[0]


def test_an_id_names_item_cutoff_offsets_weights_and_adjustments_but_not_the_time_of_issue() -> (
    None
):
    (same,) = forecast_ids(["a|n"], origin())
    assert forecast_ids(["b|n", "a|n"], origin(issued_at_ms=99))[1] == same
    assert forecast_ids(["a|n"], origin(offsets={"clicks:1": 9, "orders:0": 7})) == [same]
    others = [
        origin(cutoff_ms=0),
        origin(offsets={"orders:0": 8, "clicks:1": 9}),
        origin(weights_version="v2"),
        origin(weights_sha256="cd"),
        origin(adjustments=Adjustments(level_factor=1.5)),
        origin(resolution_ms=1),
    ]
    ids = [forecast_ids(["a|n"], other)[0] for other in others]
    assert len({same, *ids}) == 1 + len(others) and len(same) == 32


def test_weights_that_lack_a_wire_level_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"0\.25"):
        wire_columns([level for level in WIRE_LEVELS if level != 0.25])


# Recovery -----------------------------------------------------------------------------------------


def recovered(forecasts: list[bytes], scores: FakeTail) -> PendingForecasts:
    pending = PendingForecasts(STEPS, HOUR_MS, 50)
    read_forecasts(
        [(0, value) for value in forecasts], pending, oldest_cutoff_ms=0, owns=lambda _: True
    )
    read_scores(scores, pending, owns=lambda _: True)  # type: ignore[arg-type]
    return pending


def test_what_waited_before_a_restart_waits_after_it_with_the_same_numbers() -> None:
    made = records(["a|n", "b|n"])
    before = PendingForecasts(STEPS, HOUR_MS, 50)
    before.add(issued_of(made, STEPS))
    after = recovered([encode(record) for record in made], FakeTail([]))
    (old,), (new,) = before.due(13 * HOUR_MS), after.due(13 * HOUR_MS)
    assert (old.forecast_ids, old.item_ids, old.step) == (new.forecast_ids, new.item_ids, new.step)
    np.testing.assert_array_equal(old.quantiles_IQ, new.quantiles_IQ)


def test_scored_steps_stay_scored_and_broken_records_are_passed_over() -> None:
    made = records(["a|n", "b|n"])
    scores = FakeTail([b"{", encode(score(made[0], 1))])
    after = recovered([b"\xff", *(encode(record) for record in made)], scores)
    assert [due.item_ids for due in after.due(10 * HOUR_MS)] == [["b|n"]]
    assert [due.item_ids for due in after.due(11 * HOUR_MS)] == [["a|n", "b|n"]]


def test_of_buckets_that_a_cut_log_no_longer_tells_nothing_is_scored_again() -> None:
    made = records(["a|n", "b|n"])
    values = [encode(record) for record in made]
    other = score(made[0], 2, item="z|n")
    assert recovered(values, FakeTail([encode(other)], cut=(0,))).due_buckets(99 * HOUR_MS) == [
        13 * HOUR_MS
    ]
    kept = recovered(values, FakeTail([encode(other)]))
    assert kept.due_buckets(99 * HOUR_MS) == [10 * HOUR_MS, 11 * HOUR_MS, 13 * HOUR_MS]


def test_repeated_scores_count_once_and_items_of_others_are_left() -> None:
    made = records(["a|n", "b|n"])
    tail = FakeTail(
        [encode(score(made[0], 1)), encode(score(made[0], 1)), encode(score(made[1], 1))]
    )
    pending = PendingForecasts(STEPS, HOUR_MS, 50)
    found = read_scores(tail, pending, owns=lambda item: item == "a|n")  # type: ignore[arg-type]
    assert {bucket: [s.item_id for s in scores] for bucket, scores in found.items()} == {
        10 * HOUR_MS: ["a|n"]
    }


def test_an_alarm_holds_until_its_own_id_is_stable() -> None:
    def alert(alert_id: str, state: str, at_ms: int) -> bytes:
        fields = {"segment": "c", "kind": "level", "detector": "cusum", "onset_ms": 0, "size": 1.0}
        texts = {"weights_version": "v1", "description": "", "action": ""}
        made = {"alert_id": alert_id, "state": state, "detected_at_ms": at_ms, **fields, **texts}
        return encode(msgspec.convert(made, DriftAlert))

    values = [alert("a", "stable", 9), alert("a", "drift", 5), alert("b", "drift", 6)]
    assert [found.alert_id for found in read_alarms([(0, value) for value in values])] == ["b"]
