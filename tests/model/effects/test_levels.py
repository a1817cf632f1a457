"""Levels: by kind of step, newest first, and only flags that matter split the kinds."""

from __future__ import annotations

import numpy as np

from freshet.model.effects.levels import cells, usual


def test_a_flag_that_moves_sales_splits_the_kinds_and_a_rare_or_idle_one_does_not() -> None:
    random = np.random.default_rng(0)
    slot_NS = np.tile(np.arange(7), (5, 40))
    flags_NSF = random.random((5, 280, 3)) < np.array([0.4, 0.5, 0.01])
    values_NT = (
        slot_NS * 0.1
        + flags_NSF @ np.array([0.5, 0.0, 3.0])
        + 0.1 * random.normal(size=slot_NS.shape)
    )
    cell_NS, chosen = cells(values_NT, slot_NS, flags_NSF)
    assert chosen == [0]
    assert (cell_NS == slot_NS + 7 * flags_NSF[..., 0]).all()


def test_recent_steps_count_and_a_kind_not_seen_lately_follows_the_series() -> None:
    cell_NS = np.array([[0, 1] * 20 + [0] * 20 + [0, 1]])
    values_NT = np.where(cell_NS[:, :60] == 1, 3.0, 1.0) + np.where(np.arange(60) >= 40, 1.0, 0.0)
    level_NS = usual(values_NT, cell_NS, recent=20)
    assert abs(level_NS[0, 60] - 2.0) < 0.05
    assert (
        abs(level_NS[0, 61] - 3.5) < 0.05
    )  # 3 of old, moved by the half that all of kind 0 stands above its mean


def test_series_without_values_are_at_zero_and_unseen_kinds_at_the_mean() -> None:
    level_NS = usual(
        np.array([[np.nan, np.nan], [1.0, 3.0]]), np.array([[0, 1, 2], [0, 1, 2]]), recent=1
    )
    assert level_NS[0].tolist() == [0.0, 0.0, 0.0]
    assert np.isfinite(level_NS).all()


def test_the_last_steps_stand_beside_one_of_the_whole_history_moved_by_the_change() -> None:
    values_NT = np.array([[1.0, 3.0, 1.0, 3.0, 2.0, np.nan, 2.0, 7.0]])
    cell_NS = np.array([[0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 2]])
    # The whole history: cell 0 has 6 / 4, cell 1 has 13 / 3, both together 19 / 7.
    whole = usual(values_NT, cell_NS)
    np.testing.assert_allclose(whole[0, 8:], [1.5, 13 / 3, 19 / 7])
    # The last three: 2 of cell 0 and 7 of cell 1 lie .5 and 8 / 3 above, the change is their mean.
    change = (0.5 + 8 / 3) / 2
    expected = [(2 + 1.5 + change) / 2, (7 + 13 / 3 + change) / 2, 19 / 7 + change]
    np.testing.assert_allclose(usual(values_NT, cell_NS, recent=3)[0, 8:], expected)
    np.testing.assert_allclose(usual(values_NT, cell_NS, recent=8), whole)


def test_a_single_value_is_the_mean_of_its_kind_and_of_its_series() -> None:
    values_NT = np.array([[4.0, 1.0, 2.0], [np.nan, 6.0, np.nan]])
    cell_NS = np.array([[0, 1, 1, 0, 1, 2]] * 2)
    found_NS = usual(values_NT, cell_NS)
    np.testing.assert_allclose(found_NS[:, 3:], [[4.0, 1.5, 7.0 / 3.0], [6.0, 6.0, 6.0]])
    # The last step lies .5 above its kind, 2 beside 1.5 + .5; the others are moved by as much.
    np.testing.assert_allclose(usual(values_NT, cell_NS, recent=1)[0, 3:], [4.5, 2.0, 7 / 3 + 0.5])


def test_what_never_varies_is_split_by_no_flag() -> None:
    flags_NSF = np.tile(np.arange(40)[:, None] % 2 == 0, (2, 1, 1))
    cell_NS, chosen = cells(np.full((2, 40), 3.0), np.zeros((2, 40), int), flags_NSF)
    assert chosen == [] and not cell_NS.any()
    assert cells(np.full((2, 40), np.nan), np.zeros((2, 40), int), flags_NSF)[1] == []


def test_flags_of_the_days_ahead_split_nothing() -> None:
    random = np.random.default_rng(1)
    values_NT = random.normal(size=(3, 200))
    flags_NSF = np.zeros((3, 260, 1), bool)
    flags_NSF[:, 200:] = True
    assert cells(values_NT, np.zeros((3, 260), int), flags_NSF)[1] == []
    # Up on five of a hundred steps it splits, on four it does not; the same of those it is down on.
    for up, chosen in ((4, []), (5, [0]), (95, [0]), (96, [])):
        flags_NSF = (np.arange(100) < up)[None, :, None]
        found = cells(3.0 * flags_NSF[..., 0], np.zeros((1, 100), int), flags_NSF)
        assert found[1] == chosen, up


def test_the_flag_that_explains_more_splits_first_and_a_third_one_not_at_all() -> None:
    step_S = np.arange(240)
    # Independent of each other, up on half, on a third and on a quarter of the steps.
    flags_SF = np.stack([step_S // 6 % 2 == 0, step_S % 3 == 0, step_S % 24 // 12 == 0], -1)
    slot_NS = np.zeros((1, 240), int)
    random = np.random.default_rng(5)
    noise_NT = 0.01 * random.normal(size=(1, 200))
    values_NT = (flags_SF[:200] @ np.array([0.5, 1.0, 0.3]))[None] + noise_NT
    cell_NS, chosen = cells(values_NT, slot_NS, flags_SF[None])
    assert chosen == [1, 0]
    assert (cell_NS[0] == flags_SF[:, 1] + 2 * flags_SF[:, 0]).all()


def test_a_flag_must_explain_two_hundredths_of_what_slots_leave() -> None:
    flags_NSF = (np.arange(400) % 4 == 0)[None, :, None]
    plain_T = np.where(np.arange(400) // 4 % 2 == 0, 1.0, -1.0)
    for share, chosen in ((0.021, [0]), (0.019, [])):
        # A quarter up: variance between is 3 / 16 of the gap's square, beside one of noise.
        gap = np.sqrt(share / (1 - share) * 16 / 3)
        values_NT = 3.0 * (plain_T + gap * flags_NSF[0, :, 0])[None]
        assert cells(values_NT, np.zeros((1, 400), int), flags_NSF)[1] == chosen, share
