"""River's detectors say on which value a stream drifts."""

from __future__ import annotations

import numpy as np
import pytest

from freshet.online.drift.detectors import RIVER, RiverDetector


@pytest.mark.parametrize("name", sorted(RIVER))
def test_each_of_rivers_finds_a_lasting_shift_and_not_the_calm_before_it(name: str) -> None:
    rng = np.random.default_rng(0)
    detector = RiverDetector(RIVER[name]())
    calm = [detector.update(float(value)) for value in rng.normal(size=150)]
    shifted = [detector.update(float(value)) for value in rng.normal(2.5, 1.0, size=100)]
    assert not any(calm) and any(shifted)
