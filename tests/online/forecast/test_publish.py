"""What a forecast record says: digits, ids, statuses and the levels that are published."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from freshet.model.batch import Batch
from freshet.online.forecast import publish
from freshet.online.forecast.context import Age
from freshet.online.forecast.provenance import context_sha256
from freshet.online.forecast.publish import (
    Numbers,
    forecast_ids,
    forecast_items,
    forecast_records,
    issued_of,
    significant,
    wire_columns,
)
from freshet.stream.codec import decode, encode
from freshet.stream.errors import InvalidInputError
from freshet.stream.schemas import WIRE_LEVELS, Adjustments, Compute, Cumulative, Forecast
from freshet.stream.units import HOUR_MS
from tests.online.worker.records import origin, records
from tests.online.worker.windows import FIRST, UNITS, FakeReader, contexts_of


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


def test_an_id_names_item_context_cutoff_offsets_weights_and_adjustments_but_no_time_of_issue() -> (
    None
):
    (same,) = forecast_ids(["a|n"], ["c"], origin())
    assert forecast_ids(["b|n", "a|n"], ["d", "c"], origin(issued_at_ms=99))[1] == same
    assert forecast_ids(["a|n"], ["c"], origin(offsets={"clicks:1": 9, "orders:0": 7})) == [same]
    others = [
        origin(cutoff_ms=0),
        origin(offsets={"orders:0": 8, "clicks:1": 9}),
        origin(weights_version="v2"),
        origin(weights_sha256="cd"),
        origin(adjustments=Adjustments(level_factor=1.5)),
        origin(resolution_ms=1),
        origin(effects_sha256="beef"),
    ]
    ids = [forecast_ids(["a|n"], ["c"], other)[0] for other in others]
    ids += forecast_ids(["a|n"], ["other context"], origin())
    assert len({same, *ids}) == 2 + len(others) and len(same) == 32


def test_weights_that_lack_a_wire_level_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"0\.25"):
        wire_columns([level for level in WIRE_LEVELS if level != 0.25])


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (0.00012346, 0.0001235),
        (1.0, 1.0),
        (9.9994, 9.999),
        (9.9996, 10.0),
        (1_234.4, 1_234.0),
        (12_346.0, 12_350.0),
        (99_996.0, 100_000.0),
        (0.0, 0.0),
    ],
)
def test_four_digits_from_the_first_that_is_not_zero(value: float, rounded: float) -> None:
    assert significant(np.array([value])).tolist() == [rounded]


def test_what_waits_to_be_scored_are_the_published_numbers_of_the_scored_steps() -> None:
    made = records(["a|n", "b|n"])
    (issued,) = issued_of(made, (1, 4))
    assert (issued.cutoff_ms, issued.weights_version) == (10 * HOUR_MS, "v1")
    assert issued.quantile_levels == WIRE_LEVELS and issued.item_ids == ["a|n", "b|n"]
    assert issued.forecast_ids == [record.forecast_id for record in made]
    for row, record in enumerate(made):
        expected = np.array([record.quantiles[0], record.quantiles[3]], np.float32)
        np.testing.assert_array_equal(issued.quantiles_IKQ[row], expected)


def test_each_record_says_its_own_numbers_and_what_all_have_in_common() -> None:
    steps = np.arange(2 * 3 * 9, dtype=float).reshape(2, 3, 9)
    sums, rates = 100 + steps[:, :2], steps / 100
    rates[1, 2, 8] = np.nan
    first, second = forecast_records(
        ["a|n", "b|s"],
        Numbers(steps, sums, [1, 3], rates),
        origin(degraded=True),
        age=Age(np.array([False, True]), np.zeros(2, bool), np.zeros(2, bool)),
        context_sha256=["c0", "c1"],
        compute=Compute(device="cpu", dtype="float32", batch_shape=[2, 8]),
    )
    for row, record in enumerate((first, second)):
        assert record.quantiles == steps[row].tolist()
        assert record.cumulative is not None and record.cumulative.quantiles == sums[row].tolist()
        assert record.context_sha256 == f"c{row}" and record.issued_at_ms == 5
        assert record.offsets == {"orders:0": 7, "clicks:1": 9}
    assert (first.status, second.status) == ("degraded", "cold_start")
    assert (second.sku, second.region) == ("b", "s")
    assert first.conversion == rates[0].tolist() and second.conversion is None


def test_a_row_that_was_moved_by_itself_says_that_beside_what_the_round_did() -> None:
    steps = np.ones((2, 3, 9))
    own = {1: Adjustments(sums_from="f00d")}
    plain, moved = forecast_records(
        ["a|n", "b|s"],
        Numbers(steps, steps[:, :2], [1, 3], adjustments=own),
        origin(adjustments=Adjustments(level_factor=1.5)),
        age=Age(np.zeros(2, bool), np.zeros(2, bool), np.zeros(2, bool)),
        context_sha256=["c0", "c1"],
        compute=Compute(device="cpu", dtype="float32", batch_shape=[2, 8]),
    )
    assert plain.adjustments == Adjustments(level_factor=1.5)
    assert moved.adjustments == Adjustments(level_factor=1.5, sums_from="f00d")


def test_an_id_is_the_hash_of_what_the_forecast_came_from() -> None:
    adjusted = origin(adjustments=Adjustments(level_factor=1.5), effects_sha256="beef")
    (found,) = forecast_ids(["a|n"], ["c0ffee"], adjusted)
    text = (
        '[3600000,36000000,[["clicks:1",9],["orders:0",7]],["v1","ab"],'
        '{"level_factor":1.5,"calibration_id":null,"sums_from":null,"mixed_with":null},"beef"]'
    )
    assert found == xxhash.xxh3_128_hexdigest(f"{text}c0ffeea|n".encode())
    # Where a row was moved by itself, what moved it stands in between.
    one = Adjustments(sums_from="f00d")
    _, moved = forecast_ids(["b|n", "a|n"], ["", "c0ffee"], adjusted, {1: one})
    own = '{"level_factor":1.0,"calibration_id":null,"sums_from":"f00d","mixed_with":null}'
    assert moved == xxhash.xxh3_128_hexdigest(f"{text}{own}c0ffeea|n".encode())


# A micro-batch ------------------------------------------------------------------------------------

LEVELS = (0.005, *WIRE_LEVELS, 0.995)
HOURS, HORIZON = 30, 4
CUTOFF_MS = (FIRST + HOURS) * HOUR_MS


class LevelForecaster:
    """Step h of a row that sold n units at level q is n thousands, h hundreds and q units."""

    quantile_levels, device, dtype = LEVELS, torch.device("cpu"), torch.float32

    def forecast(self, batch: Batch) -> torch.Tensor:
        sold_B11 = torch.nansum(batch.target_BT, 1)[:, None, None]
        step_H1 = torch.arange(1, HORIZON + 1)[:, None]
        return 1_000.0 * sold_B11 + 100.0 * step_H1 + torch.arange(len(LEVELS))


class HalfSums:
    """Two sums for each row: half of its first and of its third step."""

    def __init__(self) -> None:
        self.steps = [1, 3]

    def quantiles(
        self,
        target_BT: torch.Tensor,
        steps_BHQ: torch.Tensor,
        levels: tuple[float, ...],
        *,
        steps: list[int],
    ) -> torch.Tensor:
        assert steps == self.steps
        assert levels == LEVELS and len(target_BT) == len(steps_BHQ)
        self.sold = torch.nansum(target_BT, 1).tolist()
        return steps_BHQ[:, [0, 2]] / 2.0


@pytest.mark.parametrize("converted", [False, True])
def test_each_record_of_a_micro_batch_is_made_of_the_context_of_its_own_item(
    monkeypatch: pytest.MonkeyPatch, converted: bool
) -> None:
    reader = FakeReader(num_buckets=64, reached=FIRST + HOURS, clicked=FIRST + HOURS)
    for hour in range(HOURS):
        reader.add("b|s", FIRST + hour, UNITS, 1_000 * (hour == 29) + 2_000 * (hour == 0))
        reader.add("a|n", FIRST + hour, UNITS, 1_000 * (hour == 29) + 4_000 * (hour == 0))
    reader.head = FIRST + HOURS
    contexts = contexts_of(reader, context_length=HOURS)
    rates = lambda forecaster, batch: forecaster.forecast(batch) / 1e5  # noqa: E731
    monkeypatch.setattr(publish, "conversion", rates)
    sums = HalfSums()
    weights: Any = SimpleNamespace(forecaster=LevelForecaster())
    common = origin(
        cutoff_ms=CUTOFF_MS,
        conversion=converted,
        adjustments=Adjustments(level_factor=1.5),
        effects_sha256="ef",
    )
    made = forecast_items(contexts, weights, common, sums, rows=[1, 0], cold=["new|w"])  # type: ignore[arg-type]
    hashes = [
        *context_sha256(contexts.batch([1, 0], CUTOFF_MS)),
        *context_sha256(contexts.cold_batch(["new|w"], CUTOFF_MS)),
    ]
    assert len(set(hashes)) == 3
    ids = forecast_ids(["a|n", "b|s", "new|w"], hashes, common)
    # What each sold: 5 units, 3, and nothing that anybody knows of. Wire level q is the network's
    # column q + 1.
    for row, (record, sold) in enumerate(zip(made, (5, 3, 0), strict=True)):
        step = [[1_000 * sold + 100 * h + q + 1 for q in range(9)] for h in (1, 2, 3, 4)]
        item_id = ("a|n", "b|s", "new|w")[row]
        assert record == Forecast(
            forecast_id=ids[row],
            item_id=item_id,
            sku=item_id.split("|")[0],
            region=item_id.split("|")[1],
            resolution_ms=HOUR_MS,
            cutoff_ms=CUTOFF_MS,
            issued_at_ms=5,
            quantile_levels=list(WIRE_LEVELS),
            quantiles=step,  # type: ignore[arg-type]
            weights_version="v1",
            weights_sha256="ab",
            offsets={"orders:0": 7, "clicks:1": 9},
            context_sha256=hashes[row],
            compute=Compute(
                device="cpu", dtype="float32", batch_shape=[1 if row == 2 else 2, HOURS]
            ),
            status="cold_start" if row == 2 else "ok",
            adjustments=Adjustments(level_factor=1.5),
            cumulative=Cumulative(
                steps=[1, 3],
                quantiles=significant(np.array(step)[[0, 2]] / 2).tolist(),
            ),
            conversion=(np.array(step) / 1e5).tolist() if converted else None,
            effects_sha256="ef",
        )
    assert sums.sold == [0.0], "the cold batch came last"
    assert forecast_items(contexts, weights, common, sums, rows=[], cold=[]) == []  # type: ignore[arg-type]


def test_of_an_item_that_never_sold_nothing_is_said_without_what_siblings_sell() -> None:
    contexts = contexts_of(FakeReader(num_buckets=64, reached=FIRST), context_length=HOURS)
    weights: Any = SimpleNamespace(forecaster=LevelForecaster())
    asked = origin(cutoff_ms=CUTOFF_MS, effects_sha256="")
    (made,) = forecast_items(contexts, weights, asked, HalfSums(), rows=[], cold=["new|w"])  # type: ignore[arg-type]
    assert (made.status, made.quantiles, made.cumulative) == ("warming_up", [], None)
