"""What a forecast record says: digits, ids, statuses and the levels that are published."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.worker.publish import (
    Numbers,
    forecast_ids,
    forecast_records,
    issued_of,
    significant,
    wire_columns,
)
from freshet.stream.codec import decode, encode
from freshet.stream.errors import InvalidInputError
from freshet.stream.schemas import WIRE_LEVELS, Adjustments, Compute, Forecast
from freshet.stream.units import HOUR_MS
from tests.online.worker.records import origin, records


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
    issued = issued_of(made, (1, 4))
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
        cold_B=np.array([False, True]),
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
