"""Losses say when a forecast is no number, and land at their item and bucket."""

from __future__ import annotations

import copy

import numpy as np
import torch

from freshet.online.learn.evaluation import by_item_and_bucket, evaluate
from freshet.stream.units import HOUR_MS
from tests.online.learn.learning import ITEMS, START_MS, PastInMemory, pool_at, small_network


def test_forecasts_that_are_not_finite_lose_infinity_and_are_seen() -> None:
    network = copy.deepcopy(small_network())
    with torch.no_grad():
        network.final_norm.weight.fill_(float("nan"))
    outcome = evaluate(network, pool_at(PastInMemory(200), range(100, 101), 140))
    assert not outcome.finite
    assert np.isinf(outcome.loss_NH).all()


def test_losses_are_put_to_their_item_and_bucket() -> None:
    past = PastInMemory(200)
    pool = pool_at(past, range(100, 108, 4), end=112)
    values = pool.actual_NH.double().numpy()
    rows, table = by_item_and_bucket(values, pool, START_MS + 100 * HOUR_MS, 12)
    assert rows.tolist() == list(range(ITEMS))
    assert np.array_equal(table, past.units_IN[:, 100:112])
