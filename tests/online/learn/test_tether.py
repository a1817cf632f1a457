"""A champion goes only so far from the shipped weights, counted in what it forecasts elsewhere."""

from __future__ import annotations

import pytest
import torch

from freshet.model.network import FreshetNetwork
from freshet.online.learn import tether
from freshet.online.learn.tether import fixed_anchors, lost, tethered
from tests.online.learn.learning import small_network


def filled(value: float) -> FreshetNetwork:
    """A network all of whose numbers are one."""
    network = small_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)
    return network


def number_of(network: FreshetNetwork) -> float:
    found = {one for parameter in network.parameters() for one in parameter.unique().tolist()}
    (value,) = found
    return float(value)


@pytest.fixture
def by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a network loses is what its numbers are."""
    monkeypatch.setattr(tether, "lost", lambda network, stopped: number_of(network))


@pytest.mark.parametrize(
    ("challenger", "number", "kept"),
    [(1.5, 1.5, 1.0), (2.0, 2.0, 1.0), (2.25, 1.9375, 0.75), (3.0, 2.0, 0.5), (5.0, 2.0, 0.25)],
)
def test_what_has_forgotten_too_much_is_brought_back_towards_the_shipped_weights(
    by_number: None, challenger: float, number: float, kept: float
) -> None:
    found = tethered(filled(challenger), filled(1.5), filled(1.0), most=1.0)
    assert (number_of(found[0]), found[1]) == (number, kept)


def test_a_champion_that_is_a_little_over_the_border_keeps_nobody_from_learning(
    by_number: None,
) -> None:
    """Its distance was counted by another processor, or another release."""
    found = tethered(filled(3.0), filled(2.5), filled(1.0), most=1.0)
    assert (number_of(found[0]), found[1]) == (2.0, 0.5)


def test_what_loses_too_much_wherever_it_is_cut_is_the_shipped_weights(by_number: None) -> None:
    found = tethered(filled(65.0), filled(1.5), filled(1.0), most=1.0)
    assert (number_of(found[0]), found[1]) == (1.0, 0.0)


@pytest.mark.parametrize(("challenger", "number", "kept"), [(8.0, 4.0, 0.0), (3.0, 3.0, 1.0)])
def test_where_the_champion_has_forgotten_more_it_may_forget_no_more_than_that(
    by_number: None, challenger: float, number: float, kept: float
) -> None:
    """A person promoted it; what lies between it and the shipped weights may be no network."""
    found = tethered(filled(challenger), filled(4.0), filled(1.0), most=1.0)
    assert (number_of(found[0]), found[1]) == (number, kept)


def test_what_it_kept_is_rounded_as_it_will_be_stored(by_number: None) -> None:
    found, kept = tethered(filled(1.0 + 2.0**-6), filled(1.0), filled(1.0), most=2.0**-7)
    assert (kept, number_of(found)) == (0.5, 1.0 + 2.0**-7)
    found, kept = tethered(filled(1.0 + 3 * 2.0**-8), filled(1.0), filled(1.0), most=2.0**-7)
    assert kept == 0.75 and number_of(found) == 1.0 + 2.0**-7, "1 + 9/1024 has too many bits"


def test_the_fixed_windows_are_the_same_for_ever_and_of_several_resolutions() -> None:
    config = small_network().config
    once = fixed_anchors(config)
    tether._drawn.cache_clear()
    again = fixed_anchors(config)
    for (batch, actual), (other, theirs) in zip(once, again, strict=True):
        assert torch.allclose(batch.target_BT, other.target_BT, equal_nan=True)
        assert torch.allclose(actual, theirs, equal_nan=True)
    resolutions = {batch.resolution_ms for batch, _ in once}
    assert {3_600_000, 86_400_000, 604_800_000} <= resolutions


def test_it_ends_between_two_passes_when_it_is_asked_to() -> None:
    class Enough(Exception):
        pass

    calls = []

    def stopped() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Enough

    network = small_network()
    with pytest.raises(Enough):
        tethered(network, network, network, stopped=stopped)


def test_a_spoilt_network_loses_more_and_one_that_is_the_same_no_more() -> None:
    base, same, spoilt = small_network(), small_network(), small_network()
    with torch.no_grad():
        for parameter in spoilt.head.parameters():
            parameter.add_(3.0)
    assert lost(base) == lost(same) < 0.9 * lost(spoilt)
