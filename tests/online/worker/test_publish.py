"""What a forecast record says: digits, ids, statuses and the levels that are published."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.worker.publish import forecast_ids, significant, wire_columns
from freshet.stream.codec import decode, encode
from freshet.stream.errors import InvalidInputError
from freshet.stream.schemas import WIRE_LEVELS, Adjustments, Forecast
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
