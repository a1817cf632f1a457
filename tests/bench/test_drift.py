"""The drift bench goes on where it was stopped, and holds rivals as strict as calm needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import drift
from bench.drift_rivers import STEPS, delay, strict_enough
from bench.drift_tables import interval

JOBS: list[drift.Job] = [("made_up", "plain", seed) for seed in range(5)]


def test_a_job_that_is_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[drift.Job] = []

    def done(one: tuple[drift.Job, object]) -> tuple[drift.Job, int]:
        made.append(one[0])
        return one[0], one[0][2]

    monkeypatch.setattr(drift, "RUNS", tmp_path)
    monkeypatch.setattr(drift, "done", done)
    some = drift.watched(JOBS[:2], processes=1, minutes=60.0)
    every = drift.watched(JOBS, processes=1, minutes=60.0)
    strict = [("strict", name, 0) for name in STEPS]
    assert made == [*strict, *JOBS]
    assert list(some) == [*strict, *JOBS[:2]]
    assert [every[job] for job in JOBS] == [0, 1, 2, 3, 4]


def test_a_rival_is_as_strict_as_no_calm_shop_objects_and_no_stricter() -> None:
    # A cumulative sum of what is .25 above the mean: 40 values of 2 after 40 of 0 add up to about
    # 45, which passes heights of 20, 30 and 40, and not 50.
    values_L = np.repeat([0.0, 2.0], 40)
    assert strict_enough("page_hinkley", [values_L[:, None]]) == 50.0
    calm_LM = np.zeros((80, 2))
    assert strict_enough("page_hinkley", [calm_LM]) == STEPS["page_hinkley"][0]


def test_a_rivals_delay_is_counted_from_one_in_the_segment_alone() -> None:
    values_LM = np.zeros((80, 4))
    values_LM[40:, 2] = 5.0  # the spread of the first of two segments
    assert delay("page_hinkley", 20.0, values_LM, 40, 1) is None
    # Each hour adds about 4.75 less what the mean has followed: 20 is passed with the fifth.
    assert delay("page_hinkley", 20.0, values_LM, 40, 0) == 5


def test_a_share_has_wilsons_interval() -> None:
    # 3 of 200 by hand: (.015 + .0096) / 1.0192 give or take .0186.
    assert interval(3, 200) == pytest.approx([0.005, 0.043], abs=0.001)
