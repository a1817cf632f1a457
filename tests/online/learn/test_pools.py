"""Labels end where their part ends, and contexts at their cutoff."""

from __future__ import annotations

import numpy as np
import torch

from freshet.stream.units import HOUR_MS
from tests.online.learn.learning import CONTEXT, ITEMS, START_MS, STEPS, PastInMemory, pool_at


def test_labels_end_where_they_must() -> None:
    pool = pool_at(PastInMemory(200), range(100, 120, 5), end=118)
    label_end = (pool.cutoffs_N[:, None] - START_MS) // HOUR_MS + np.arange(STEPS)[None, :]
    assert (np.isfinite(pool.actual_NH.numpy()) == (label_end < 118)).all()


def test_contexts_hold_nothing_after_their_cutoff() -> None:
    past = PastInMemory(200)
    before = pool_at(past, range(100, 101), end=200).batch.target_BT
    past.units_IN[:, 100:] = 1e6
    assert torch.equal(pool_at(past, range(100, 101), end=200).batch.target_BT, before)
    assert before.shape == (ITEMS, CONTEXT)
