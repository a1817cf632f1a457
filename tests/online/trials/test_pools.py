"""Labels end where their part ends, and contexts at their cutoff: a poisoned bucket shows it."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest
import torch

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.text import NUM_STATIC
from freshet.online.trials import pools as pools_module
from freshet.online.trials.pools import Pool, Pools, build_pools, concatenated, split_history
from freshet.stream.config import LearnSettings
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import HOUR_MS
from tests.online.learn.learning import CONTEXT, ITEMS, START_MS, STEPS, PastInMemory, pool_at

SETTINGS = LearnSettings(recent_buckets=48, holdout_buckets=12)
POISON = 1e6

# 126 final hours: 24 of a shortest context, 20 older cutoffs and the 16 steps of the last one's
# label, 48 recent, 6 for validation, 12 held out.
NUM_BUCKETS = 126
REPLAY, RECENT, VALIDATION, HOLDOUT = 24, 60, 108, 114


def hours(times_ms: object) -> list[int]:
    return [int(time_ms - START_MS) // HOUR_MS for time_ms in np.unique(times_ms)]


def built(poisoned: int | None = None, seed: int = 0) -> Pools:
    """The pools of a past that has one bucket of every item poisoned."""
    past = PastInMemory(NUM_BUCKETS)
    level_I = past.mean_units()
    # Which windows are drawn is not to depend on the poison.
    past.mean_units = lambda: level_I  # type: ignore[method-assign]
    if poisoned is not None:
        past.units_IN[:, poisoned] = POISON
    return build_pools(past, split_history(past, SETTINGS, None), (), seed)


def parts(pools: Pools) -> dict[str, Pool]:
    assert pools.replay is not None and pools.anchors is not None
    return {
        "replay": pools.replay,
        "anchors": pools.anchors,
        "recent": pools.recent,
        "validation": pools.validation,
    }


def test_a_split_of_history_has_these_borders() -> None:
    split = split_history(PastInMemory(NUM_BUCKETS), SETTINGS, None)
    assert hours(astuple(split)[1:]) == [REPLAY, RECENT, VALIDATION, HOLDOUT, NUM_BUCKETS]
    assert split.holdout_buckets == 12


def test_the_onset_moves_the_start_of_the_recent_part_and_nothing_else() -> None:
    past = PastInMemory(NUM_BUCKETS)
    split = split_history(past, SETTINGS, START_MS + 80 * HOUR_MS)
    assert hours(astuple(split)[1:]) == [REPLAY, 80, VALIDATION, HOLDOUT, NUM_BUCKETS]


@pytest.mark.parametrize(
    ("bucket", "labels", "contexts"),
    [
        (REPLAY - 1, set(), {"replay", "anchors", "recent"}),
        (REPLAY, {"replay"}, {"replay", "anchors", "recent"}),
        (27, {"replay"}, {"replay", "anchors", "recent"}),
        (28, {"replay", "anchors"}, {"replay", "anchors", "recent"}),
        # The last of the older cutoffs are 42 (replay) and 43 (anchors); the first context of
        # validation begins at 44.
        (41, {"replay", "anchors"}, {"replay", "anchors", "recent"}),
        (42, {"replay", "anchors"}, {"anchors", "recent"}),
        (43, {"replay", "anchors"}, {"recent"}),
        (57, {"replay", "anchors"}, {"recent", "validation"}),
        (58, {"anchors"}, {"recent", "validation"}),
        (RECENT - 1, set(), {"recent", "validation"}),
        (RECENT, {"recent"}, {"recent", "validation"}),
        # The last recent cutoff is 105.
        (104, {"recent"}, {"recent", "validation"}),
        (105, {"recent"}, {"validation"}),
        (VALIDATION - 1, {"recent"}, {"validation"}),
        (VALIDATION, {"validation"}, {"validation"}),
        (HOLDOUT - 2, {"validation"}, {"validation"}),
        (HOLDOUT - 1, {"validation"}, set()),
        (HOLDOUT, set(), set()),
        (NUM_BUCKETS - 1, set(), set()),
    ],
)
def test_a_poisoned_bucket_is_seen_by_its_own_part_alone(
    bucket: int, labels: set[str], contexts: set[str]
) -> None:
    found = parts(built(poisoned=bucket))
    assert {name for name, pool in found.items() if (pool.actual_NH == POISON).any()} == labels
    seen = {name for name, pool in found.items() if (pool.batch.target_BT == POISON).any()}
    assert seen == contexts


def test_the_parts_have_these_cutoffs_and_every_item_at_each() -> None:
    found = {name: hours(pool.cutoffs_N) for name, pool in parts(built()).items()}
    assert found == {
        # 16 of the 20 older cutoffs, and all that are left.
        "replay": [24, 25, 26, 27, 29, 30, 31, 32, 34, 35, 36, 37, 39, 40, 41, 42],
        "anchors": [28, 33, 38, 43],
        "recent": list(range(60, 108, 3)),
        "validation": list(range(108, 114)),
    }
    for pool in parts(built()).values():
        assert np.bincount(pool.rows_N).tolist() == [len(np.unique(pool.cutoffs_N))] * ITEMS
    assert built().num_training_windows == (16 + 16) * ITEMS


def test_every_label_is_the_number_of_its_own_item_and_step() -> None:
    past = PastInMemory(NUM_BUCKETS)
    for pool in parts(built()).values():
        for row, cutoff_ms, actual_H in zip(
            pool.rows_N, pool.cutoffs_N, pool.actual_NH, strict=True
        ):
            first = (cutoff_ms - START_MS) // HOUR_MS
            known = actual_H[torch.isfinite(actual_H)].tolist()
            assert known
            assert known == past.units_IN[row, first : first + len(known)].tolist()


def test_half_of_the_recent_windows_are_of_the_segments_that_drift(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def recorded(*args: object, affected: np.ndarray, **named: object) -> object:
        asked.append(affected.tolist())
        return select(*args, affected=affected, **named)  # type: ignore[arg-type]

    select = pools_module.select_recent
    monkeypatch.setattr(pools_module, "select_recent", recorded)
    past = PastInMemory(NUM_BUCKETS)
    build_pools(past, split_history(past, SETTINGS, None), ["s1", "s3"], 0)
    # Items go round the four segments.
    assert asked == [[1, 3, 5, 7, 9, 11]]


def batch_of(first: float, rows: int) -> Batch:
    """A batch all of whose numbers differ, from `first` on."""

    def numbers(*shape: int) -> torch.Tensor:
        return first + torch.arange(float(np.prod(shape))).reshape(shape)

    return Batch(
        target_BT=numbers(rows, 3),
        past_BTP=10_000.0 + numbers(rows, 3, len(PAST_SLOTS)),
        known_BSK=20_000.0 + numbers(rows, 5, len(KNOWN_SLOTS)),
        static_BF=30_000.0 + numbers(rows, NUM_STATIC),
        start_ms_B=numbers(rows).long(),
        resolution_ms=7,
    )


def test_batches_are_joined_row_by_row_in_every_part() -> None:
    first, second = batch_of(0.0, 2), batch_of(5_000.0, 1)
    joined = concatenated([first, second])
    assert len(joined.target_BT) == 3
    assert (joined.resolution_ms, joined.group_B) == (7, None)
    for row, (batch, place) in enumerate([(first, 0), (first, 1), (second, 0)]):
        for name in ("target_BT", "past_BTP", "known_BSK", "static_BF", "start_ms_B"):
            assert torch.equal(getattr(joined, name)[row], getattr(batch, name)[place])


class Crowd(PastInMemory):
    """A thousand items, more than fit into a pool."""

    def __init__(self) -> None:
        super().__init__(NUM_BUCKETS)
        self.units_IN = np.tile(self.units_IN, (84, 1))

    def segments(self) -> list[str]:
        return ["s"] * len(self.units_IN)


def test_another_seed_draws_other_items_of_many() -> None:
    past = Crowd()
    split = split_history(past, SETTINGS, None)
    once, again, other = (build_pools(past, split, (), seed) for seed in (1, 1, 2))
    assert once.recent.rows_N.tolist() == again.recent.rows_N.tolist()
    assert once.recent.rows_N.tolist() != other.recent.rows_N.tolist()
    assert once.validation.rows_N.tolist() != other.validation.rows_N.tolist()
    assert len(once.validation) == 256


def test_history_that_is_one_bucket_too_short_is_refused() -> None:
    """Training needs 12 recent buckets, 6 of validation and 12 held out."""
    with pytest.raises(InvalidInputError, match=r"^29 buckets are final; .* need 30$"):
        split_history(PastInMemory(29), SETTINGS, None)
    split = split_history(PastInMemory(30), SETTINGS, None)
    assert hours([split.train_end_ms, split.holdout_start_ms, split.final_ms]) == [12, 18, 30]


@pytest.mark.parametrize("missing", ["final_ms", "first_ms", "segments"])
def test_without_final_windows_or_items_there_is_nothing_to_learn_from(missing: str) -> None:
    past = PastInMemory(NUM_BUCKETS)
    setattr(past, missing, lambda: [] if missing == "segments" else None)
    with pytest.raises(InvalidInputError, match="no final windows"):
        split_history(past, SETTINGS, None)


@pytest.mark.parametrize(("asked", "start"), [(1, 96), (12, 96), (20, 88)])
def test_the_recent_part_is_as_long_as_asked_and_at_least_half_a_day(
    asked: int, start: int
) -> None:
    settings = SETTINGS.model_copy(update={"recent_buckets": asked})
    split = split_history(PastInMemory(NUM_BUCKETS), settings, None)
    assert hours([split.recent_start_ms, split.train_end_ms]) == [start, VALIDATION]


def test_a_past_without_older_windows_has_neither_replay_nor_anchors() -> None:
    past = PastInMemory(60)
    pools = build_pools(past, split_history(past, SETTINGS, None), (), 0)
    assert (pools.replay, pools.anchors) == (None, None)
    assert pools.num_training_windows == len(pools.recent) > 0


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


def test_labels_have_the_size_in_which_networks_see_amounts() -> None:
    past = PastInMemory(NUM_BUCKETS)
    kilos = PastInMemory(NUM_BUCKETS)

    def scaled(rows: np.ndarray, cutoff_ms: int) -> Batch:
        batch = past.batch(rows, cutoff_ms)
        factor_B = torch.full((len(batch),), 50.0)
        return replace(batch, target_BT=50.0 * batch.target_BT, factor_B=factor_B)

    kilos.batch = scaled  # type: ignore[method-assign]
    plain, amounts = (
        build_pools(each, split_history(each, SETTINGS, None), (), 3).recent
        for each in (past, kilos)
    )
    assert amounts.batch.factor_B is None
    torch.testing.assert_close(amounts.actual_NH, 50.0 * plain.actual_NH, equal_nan=True)
