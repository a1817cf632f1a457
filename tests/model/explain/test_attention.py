"""Where it looked is what the layers computed, on stretches of the past that are the row's own."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from freshet.model.explain.attention import attention_weights, looked_at
from freshet.model.explain.row import one_row
from freshet.model.forecaster import BatchForecaster
from freshet.stream.errors import InvalidInputError


@pytest.fixture
def forecaster(tiny_network) -> BatchForecaster:
    return BatchForecaster(tiny_network, device="cpu", dtype="float32")


def test_the_weights_are_those_with_which_a_layer_mixes_its_tokens(tiny_network) -> None:
    attention = tiny_network.layers[0].attention
    hidden = torch.randn(
        2, 9, tiny_network.config.width, generator=torch.Generator().manual_seed(0)
    )
    keep = torch.rand(2, 1, 1, 9, generator=torch.Generator().manual_seed(1)) > 0.3
    rotary = tiny_network._rotary(hidden)
    with torch.no_grad():
        weights = attention_weights(attention, hidden, keep, rotary)
        value = (
            attention.qkv(hidden).view(2, 9, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)[2]
        )
        mixed = attention.out((weights @ value).transpose(1, 2).reshape(2, 9, -1))
        torch.testing.assert_close(mixed, attention(hidden, keep, rotary))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, attention.num_heads, 9))


def test_shares_sum_to_one_and_stretches_fill_the_past_up_to_the_cutoff(forecaster, drawn) -> None:
    batch, _ = drawn
    looked = looked_at(forecaster, batch, 0)
    past = [part for part in looked if part.what == "past"]
    assert sum(part.share for part in looked) == pytest.approx(1.0)
    assert all(part.share >= 0 for part in looked)
    assert past[0].first == -batch.context_length and past[-1].last == -1
    assert all(a.last + 1 == b.first for a, b in itertools.pairwise(past))
    assert [part.what for part in looked if part.what != "past"] == ["item", "plan"]
    assert looked == looked_at(forecaster, batch, 0)


def test_a_history_of_any_length_has_its_own_stretches(forecaster, drawn) -> None:
    one = one_row(drawn[0], 0)
    cut = replace(
        one,
        target_BT=one.target_BT[:, -37:],
        past_BTP=one.past_BTP[:, -37:],
        known_BSK=one.known_BSK[:, -69:],
    )
    past = [part for part in looked_at(forecaster, cut, 0) if part.what == "past"]
    assert [(part.first, part.last) for part in past] == [(-37, -33), (-32, -17), (-16, -1)]


def test_stretches_before_the_first_sale_get_no_share(forecaster, drawn) -> None:
    one = one_row(drawn[0], 0)
    target = torch.ones_like(one.target_BT)
    target[:, :-20] = math.nan
    shares = {
        part.first: part.share for part in looked_at(forecaster, replace(one, target_BT=target), 0)
    }
    begun = [first for first in shares if first is not None and first >= -32]
    assert all(shares[first] < 1e-6 for first in shares if first is not None and first < -32)
    assert all(shares[first] > 1e-3 for first in begun)


def test_later_steps_may_look_elsewhere_and_wrong_ones_are_refused(forecaster, drawn) -> None:
    first, last = (
        looked_at(forecaster, drawn[0], 1, steps=steps) for steps in (range(0, 16), range(16, 32))
    )
    assert first != last
    with pytest.raises(InvalidInputError, match="horizon of 32"):
        looked_at(forecaster, drawn[0], 1, steps=range(0, 33))


def test_looking_leaves_no_hooks_behind(forecaster, drawn) -> None:
    before = forecaster.forecast(drawn[0])
    looked_at(forecaster, drawn[0], 0)
    assert torch.equal(forecaster.forecast(drawn[0]), before)
    assert not any(layer.attention._forward_hooks for layer in forecaster.network.layers)
