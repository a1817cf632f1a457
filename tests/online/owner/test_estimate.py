"""Of many items a sample is looked at, which is the same whoever looks and grows no further."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from freshet.online.owner import estimate as module
from freshet.online.owner.estimate import Estimator, Sample, Span
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import Settings
from freshet.stream.units import DAY_MS


def names(count: int) -> list[str]:
    return [f"item-{number:05}|n" for number in range(count)]


def test_a_small_shop_is_looked_at_whole_and_in_the_order_of_its_names() -> None:
    sample = Sample(max_items=100)
    sample.fit(100)
    mixed = ["b|n", "c|n", "a|n"]
    assert all(map(sample.holds, names(100))) and sample.rows(mixed).tolist() == [2, 0, 1]


@pytest.mark.parametrize("num_items", [400, 4_000, 40_000])
def test_of_a_large_shop_about_as_many_are_held_and_exactly_as_many_looked_at(
    num_items: int,
) -> None:
    sample = Sample(max_items=200)
    sample.fit(num_items)
    held = [name for name in names(num_items) if sample.holds(name)]
    assert 200 <= len(held) < 260
    rng = np.random.default_rng(0)
    orders = [[held[place] for place in rng.permutation(len(held))] for _ in range(2)]
    chosen = [[item_ids[row] for row in sample.rows(item_ids)] for item_ids in orders]
    assert chosen[0] == chosen[1] == sorted(chosen[0]) and len(chosen[0]) == 200


def test_a_shop_that_grows_keeps_most_of_its_sample() -> None:
    small, large = Sample(max_items=200), Sample(max_items=200)
    small.fit(1_000)
    large.fit(1_100)
    before = {name for name in names(1_000) if small.holds(name)}
    after = {name for name in names(1_100) if large.holds(name)}
    assert len(before & after) > 180


class FakeContexts:
    """A shop whose items are read as far as the sample holds them."""

    items: list[str]
    opened: list[int]

    def __init__(self, reader: Any, *_: Any, **__: Any) -> None:
        self.item_ids = [name for name in FakeContexts.items if reader.owns(name)]
        FakeContexts.opened.append(len(self.item_ids))

    def refresh(self) -> None:
        pass


class FakeReader:
    def __init__(self, *_: Any, owns: Any, **__: Any) -> None:
        self.owns = owns


def test_a_sample_that_came_out_small_is_read_again_and_then_follows_the_shop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "Contexts", FakeContexts)
    monkeypatch.setattr(module, "WindowReader", FakeReader)
    monkeypatch.setattr(module, "Sample", lambda: Sample(200))
    client: Any = None
    estimator = Estimator(client, Settings(), ShopTables())
    (served,) = [one for one in Settings().served if one.resolution_ms == DAY_MS]
    FakeContexts.items, FakeContexts.opened = names(1_000), []
    # Each item is in all of eight partitions, so it is counted eight times.
    estimator._read(served, Span(DAY_MS, 1, 1), 8_000)
    assert len(FakeContexts.opened) == 2 and FakeContexts.opened[1] > 170
    FakeContexts.opened = []
    estimator._read(served, Span(DAY_MS, 1, 1), 8_000)
    FakeContexts.items = names(3_000)
    estimator._read(served, Span(DAY_MS, 1, 1), 24_000)
    estimator._read(served, Span(DAY_MS, 1, 1), 24_000)
    assert len(FakeContexts.opened) == 3 and all(180 < held < 270 for held in FakeContexts.opened)


def test_a_shop_that_is_small_after_all_is_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Contexts", FakeContexts)
    monkeypatch.setattr(module, "WindowReader", FakeReader)
    client: Any = None
    estimator = Estimator(client, Settings(), ShopTables())
    (served,) = [one for one in Settings().served if one.resolution_ms == DAY_MS]
    FakeContexts.items, FakeContexts.opened = names(300), []
    estimator._read(served, Span(DAY_MS, 1, 1), 4 * 2_000)
    assert FakeContexts.opened[-1] == 300
    estimator._read(served, Span(DAY_MS, 1, 1), 4 * 2_000)
    assert FakeContexts.opened[2:] == [300]
