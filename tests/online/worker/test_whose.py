"""Items are forecast by the version that serves their segment, in micro-batches of one version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.model.batch import Batch
from freshet.online.weights.loaded import LoadedWeights, Serving
from freshet.online.worker.marks import NONE_YET, Mark
from freshet.online.worker.rounds import places_of, work_left
from freshet.online.worker.whose import by_weights
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.schemas import CatalogEntry
from tests.online.worker.turns import (
    CUTOFF_MS,
    SETTINGS,
    FakeForecaster,
    Turns,
    effects_known,
    owned_of,
    reader_of,
)
from tests.online.worker.windows import FIRST, UNITS, tell


def weights(version: str, forecaster: Any = None) -> LoadedWeights:
    return LoadedWeights(version, f"sha-{version}", forecaster)


V1, V2 = weights("v1"), weights("v2")
TWO = Serving(V1, V2, frozenset({"pets", "toys"}))


def by_last_letter(item_ids: Sequence[str]) -> list[str]:
    return [{"p": "pets", "t": "toys"}.get(item_id[-1], "-") for item_id in item_ids]


@given(
    st.lists(st.from_regex(r"[a-z]{3}[ptg]", fullmatch=True), unique=True, max_size=30),
    st.lists(st.from_regex(r"[A-Z]{3}[ptg]", fullmatch=True), unique=True, max_size=9),
    st.integers(0, 30),
    st.integers(0, 30),
)
def test_each_item_of_a_portion_is_in_the_group_of_who_serves_it_and_in_order(
    with_rows: list[str], cold: list[str], first: int, length: int
) -> None:
    rows = np.arange(len(with_rows), dtype=np.int64)
    marks = {0: Mark(CUTOFF_MS, NONE_YET, 0, 0)}
    work = work_left(rows, places_of(with_rows), cold, marks, 1)
    part = range(min(first, len(work)), min(first + length, len(work)))
    every = [with_rows[n] if n >= 0 else cold[-1 - n] for n in work.item_N.tolist()]
    groups = by_weights(TWO, work, part, with_rows, by_last_letter)
    found = {weights.version: [every[place] for place in places] for weights, places in groups}
    wanted = {
        "v1": [name for name in every[part.start : part.stop] if name[-1] == "g"],
        "v2": [name for name in every[part.start : part.stop] if name[-1] != "g"],
    }
    assert found == {version: names for version, names in wanted.items() if names}


def test_where_one_version_serves_a_portion_is_one_group_and_nobody_asks_for_segments() -> None:
    def asked(item_ids: Sequence[str]) -> list[str]:
        raise AssertionError("it takes time, and tells nothing")

    groups = by_weights(Serving(V1), Any, range(3, 9), [], asked)  # type: ignore[arg-type]
    assert groups == [(V1, range(3, 9))]


class Tells(FakeForecaster):
    """Keeps how many rows it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def forecast(self, batch: Batch) -> Any:
        self.asked.append(len(batch))
        return super().forecast(batch)


def shop_of(*skus: str) -> ShopTables:
    """Those that begin with p are pets; of one nothing is known yet."""
    shop = ShopTables()
    for sku in skus:
        entry = CatalogEntry(sku=sku, title="-", category="pets" if sku[0] == "p" else "toys")
        tell(shop, "catalog", entry)
    return shop


def turns_of(monkeypatch: pytest.MonkeyPatch, micro_batch: int = 2) -> tuple[Turns, Tells, Tells]:
    """Three pets and four others with windows, a cold pet and a cold toy; v4 serves the pets."""
    reader = reader_of()
    for item_id in ("p1|n", "p2|n", "p3|n", "t1|n", "t2|n"):
        for hour in range(30):
            reader.add(item_id, FIRST + hour, UNITS, 1_000)
    shop = shop_of("p1", "p2", "p3", "t1", "t2", "young", "pcold", "tcold")
    owned = owned_of(reader, shop, effects=effects_known())
    worker = SETTINGS.worker.model_copy(update={"micro_batch": micro_batch})
    turns = Turns(monkeypatch, owned, settings=SETTINGS.model_copy(update={"worker": worker}))
    default, other = Tells(), Tells()
    turns.switch.current = Serving(
        weights("v3", default), weights("v4", other), frozenset({"pets"})
    )
    return turns, default, other


def test_a_round_names_the_version_that_made_each_forecast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns, _, other = turns_of(monkeypatch)
    turns.turn()
    made = {one.item_id: (one.weights_version, one.weights_sha256) for one in turns.forecasts()}
    pets, others = ("v4", "sha-v4"), ("v3", "sha-v3")
    assert made == {
        **dict.fromkeys(["p1|n", "p2|n", "p3|n", "pcold|n"], pets),
        **dict.fromkeys(["t1|n", "t2|n", "young|n", "a|n", "tcold|n"], others),
    }, "an item of no category is the default's"
    # Rows alone: cold ones are batches of their own; the look back is the default's.
    assert sum(other.asked) == 4 and max(other.asked) <= 2
    assert [one.weights_version for one in turns.rounds()] == ["v3"]
    waiting = turns.main.pending.due(CUTOFF_MS)
    versions = {item: due.weights_version for due in waiting for item in due.item_ids}
    assert versions == {item: version for item, (version, _) in made.items()}


def test_the_same_items_are_forecast_whatever_serves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, _, _ = turns_of(monkeypatch)
    turns.switch.current = Serving(turns.weights)
    turns.turn()
    alone = {one.item_id: (one.quantiles, one.status) for one in turns.forecasts()}
    turns, _, _ = turns_of(monkeypatch)
    turns.turn()
    assert {one.item_id: (one.quantiles, one.status) for one in turns.forecasts()} == alone
