"""River's detectors say on which value a stream drifts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from freshet.online.drift.detectors import RiverDetector, adwin, kswin, page_hinkley


@pytest.mark.parametrize("make", [adwin, kswin, page_hinkley])
def test_each_of_rivers_finds_a_lasting_shift_and_not_the_calm_before_it(
    make: Callable[[], Any],
) -> None:
    rng = np.random.default_rng(0)
    detector = RiverDetector(make())
    calm = [detector.update(float(value)) for value in rng.normal(size=150)]
    shifted = [detector.update(float(value)) for value in rng.normal(2.5, 1.0, size=100)]
    assert not any(calm) and any(shifted)
