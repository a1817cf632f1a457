"""Each part of the network against its definition; what goes in lies where the key says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from freshet.model import features, phases, profiles
from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.ceiling import ceiling
from freshet.model.features import CLOSED
from freshet.model.network import (
    QUANTILE_LEVELS,
    Attention,
    FreshetConfig,
    FreshetNetwork,
    GroupMixer,
    Inputs,
    rotate,
)
from freshet.model.text import NUM_STATIC, NUM_TEXT
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS, HOUR_MS

ROWS, CONTEXT, HORIZON = 3, 64, 32
FOUR_CENTURIES_MS = 146_097 * DAY_MS  # after which weekdays, months and years repeat


@pytest.fixture
def shop() -> Batch:
    """Hours of three rows with gaps, a closed step on either side of the cutoff, and statics."""
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    target_BT = (random(ROWS, CONTEXT) * 300.0 + 40.0).round()
    target_BT[random(ROWS, CONTEXT) < 0.1] = torch.nan
    target_BT[2, ::3] = 0.0
    target_BT[1, :20] = torch.nan
    known_BSK = random(ROWS, CONTEXT + HORIZON, len(KNOWN_SLOTS)) + 0.5
    known_BSK[..., 1:5] = (known_BSK[..., 1:5] > 1.2).float()
    known_BSK[random(*known_BSK.shape) < 0.2] = torch.nan
    known_BSK[:, :, 7] = torch.nan
    known_BSK[..., CLOSED] = 0.0
    known_BSK[:, [CONTEXT - 4, CONTEXT + 5], CLOSED] = 1.0
    past_BTP = (random(ROWS, CONTEXT, len(PAST_SLOTS)) * 90.0).round()
    past_BTP[random(*past_BTP.shape) < 0.2] = torch.nan
    static_BF = random(ROWS, NUM_STATIC)
    static_BF[1, NUM_TEXT + 1] = torch.nan
    return Batch(
        target_BT=target_BT,
        past_BTP=past_BTP,
        known_BSK=known_BSK,
        static_BF=static_BF,
        start_ms_B=torch.tensor([0, 5 * HOUR_MS, 400 * DAY_MS]),
        resolution_ms=HOUR_MS,
    )


def inputs_of(network: FreshetNetwork, batch: Batch) -> Inputs:
    return network._inputs(*batch.arguments()[:-1])


def run(network: FreshetNetwork, batch: Batch) -> Tensor:
    with torch.no_grad():
        return network(*batch.arguments()).z_BHQ


# Inputs -------------------------------------------------------------------------------------------


def test_every_input_lies_in_its_channel(tiny_network: FreshetNetwork, shop: Batch) -> None:
    found = inputs_of(tiny_network, shop)
    closed_BT = shop.known_BSK[:, :CONTEXT, CLOSED] == 1.0
    scaled = features.scale_target(shop.target_BT, closed_BT)
    known_BSK, mask_BSK = features.known_channels(shop.known_BSK, scaled)
    runs_BSX = features.run_channels(known_BSK)
    own = profiles.profiles(scaled, known_BSK, shop.start_ms_B, HOUR_MS)
    past_BTP, past_mask_BTP = features.log_standardise(shop.past_BTP)
    context = [
        scaled.z_BT[..., None],
        scaled.observed_BT[..., None],
        own.expected_BS[:, :CONTEXT, None],
        own.surprise_BT[..., None],
        runs_BSX[:, :CONTEXT],
        known_BSK[:, :CONTEXT],
        past_BTP,
        past_mask_BTP,
    ]
    torch.testing.assert_close(found.context_BTC, torch.cat(context, -1))
    far_BH1 = torch.arange(HORIZON)[None, :, None].expand(ROWS, -1, 1) / 32
    steps = range(CONTEXT, CONTEXT + HORIZON)
    ahead = [
        far_BH1,
        phases.phase_channels(shop.start_ms_B, HOUR_MS, steps, own.period_B),
        own.channels_BHC,
        runs_BSX[:, CONTEXT:],
        known_BSK[:, CONTEXT:],
        mask_BSK[:, CONTEXT:],
    ]
    torch.testing.assert_close(found.horizon_BHC, torch.cat(ahead, -1))
    assert torch.equal(found.expected_BH, own.expected_BS[:, CONTEXT:])
    assert torch.equal(found.noise_B, own.noise_B)
    assert torch.equal(found.observed_BT, scaled.observed_BT)
    assert torch.equal(found.ceiling_BH, ceiling(scaled, known_BSK, own.noise_B))
    assert found.closed_BH.nonzero()[:, 1].tolist() == [5] * ROWS


def test_the_facts_of_a_row_are_those_by_hand(tiny_network: FreshetNetwork, shop: Batch) -> None:
    found = inputs_of(tiny_network, shop)
    static_BX = found.static_BX
    num_numbers = NUM_STATIC - NUM_TEXT
    assert torch.equal(static_BX[:, :NUM_STATIC], shop.static_BF.nan_to_num(0.0))
    known = [[1.0] * num_numbers for _ in range(ROWS)]
    known[1][1] = 0.0
    assert static_BX[:, NUM_STATIC : NUM_STATIC + num_numbers].tolist() == known
    first = NUM_STATIC + num_numbers
    for row in range(ROWS):
        sold = [
            value
            for step, value in enumerate(shop.target_BT[row].tolist())
            if not math.isnan(value) and step != CONTEXT - 4
        ]
        unit = sum(sold) / len(sold) / 4
        arcs = [math.asinh(value / unit) for value in sold]
        loc = sum(arcs) / len(arcs)
        scale = (sum(abs(arc - loc) for arc in arcs) + 2.0) / (len(arcs) + 2.0)
        zeros = sold.count(0.0) / len(sold)
        facts = [loc, math.log(scale), math.log(unit) / 3, zeros, math.log(1 / 24) / 3]
        assert static_BX[row, first : first + 5].tolist() == pytest.approx(facts, abs=1e-5)
    filled = static_BX[:, -len(KNOWN_SLOTS) :].tolist()
    assert filled == [[float(slot != 7) for slot in range(len(KNOWN_SLOTS))]] * ROWS


def test_a_slot_counts_as_closed_from_more_than_a_half_on(
    tiny_network: FreshetNetwork, shop: Batch
) -> None:
    known_BSK = shop.known_BSK.clone()
    known_BSK[0, CONTEXT:, CLOSED] = torch.linspace(0.0, 1.0, HORIZON)
    known_BSK[1, CONTEXT:, CLOSED] = 0.5
    closed_BH = inputs_of(tiny_network, replace(shop, known_BSK=known_BSK)).closed_BH
    assert closed_BH.sum(1).tolist() == [16, 0, 1]


# Invariants ---------------------------------------------------------------------------------------


def test_dates_four_centuries_later_change_nothing_and_other_days_do(
    tiny_network: FreshetNetwork, shop: Batch
) -> None:
    plain = run(tiny_network, shop)
    later, other = (
        run(tiny_network, replace(shop, start_ms_B=shop.start_ms_B + shift_ms))
        for shift_ms in (FOUR_CENTURIES_MS, 3 * DAY_MS)
    )
    torch.testing.assert_close(later, plain, rtol=1e-4, atol=1e-4)
    assert (other - plain).abs().max() > 1e-3


def test_eight_times_the_sales_have_eight_times_the_quantiles_but_for_the_fact_that_tells_size(
    tiny_network: FreshetNetwork, shop: Batch
) -> None:
    size = 2 * NUM_STATIC - NUM_TEXT + 2
    with torch.no_grad():
        embed = tiny_network.static_embed
        for layer in (embed.up, embed.short_cut):
            layer.weight[:, size] = 0.0
        units, larger = (
            tiny_network(*replace(shop, target_BT=times * shop.target_BT).arguments()).units()
            for times in (1.0, 8.0)
        )
    assert units.max() > 1.0
    torch.testing.assert_close(larger, 8.0 * units, rtol=1e-3, atol=1.0)


def test_rows_in_another_order_have_the_same_forecasts_also_in_groups(
    tiny_network: FreshetNetwork, shop: Batch
) -> None:
    grouped = replace(shop, group_B=torch.tensor([5, 9, 5]))
    order = torch.tensor([2, 0, 1])
    for batch in (shop, grouped):
        turned = run(tiny_network, batch.rows(order))
        torch.testing.assert_close(turned, run(tiny_network, batch)[order], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(run(tiny_network, grouped)[0], run(tiny_network, shop)[0])


@pytest.mark.parametrize("name", ["past_BTP", "known_BSK", "static_BF"])
def test_what_is_missing_is_told_from_nothing(
    tiny_network: FreshetNetwork, shop: Batch, name: str
) -> None:
    missing = replace(shop, **{name: torch.full_like(getattr(shop, name), torch.nan)})
    none = replace(shop, **{name: torch.zeros_like(getattr(shop, name))})
    assert torch.isfinite(run(tiny_network, missing)).all()
    assert (run(tiny_network, missing) - run(tiny_network, none)).abs().max() > 1e-3


def test_a_shorter_horizon_scales_and_sees_the_same_context(
    tiny_network: FreshetNetwork, shop: Batch
) -> None:
    short = replace(shop, known_BSK=shop.known_BSK[:, : CONTEXT + 16])
    found, whole = inputs_of(tiny_network, short), inputs_of(tiny_network, shop)
    assert torch.equal(found.scaling.loc_B, whole.scaling.loc_B)
    assert torch.equal(found.observed_BT, whole.observed_BT)
    assert torch.equal(found.context_BTC[..., :2], whole.context_BTC[..., :2])


# From the expectation to quantiles ----------------------------------------------------------------


def test_a_head_that_says_nothing_leaves_the_expectation_and_a_constant_is_in_units_of_noise(
    tiny_network: FreshetNetwork, shop: Batch
) -> None:
    says_Q = torch.linspace(-2.0, 3.0, 21)
    with torch.no_grad():
        last = tiny_network.head.mlp
        for weight in (last.down.weight, last.short_cut.weight):
            weight.zero_()
        last.short_cut.bias.copy_(says_Q)
    found = inputs_of(tiny_network, shop)
    output = tiny_network(*shop.arguments())
    assert torch.equal(output.expected_BH, found.expected_BH)
    expected_BHQ = found.expected_BH[..., None] + found.noise_B[:, None, None] * says_Q
    unit_B, loc_B, scale_B = output.scaling
    expected_BHQ[:, 5] = (-loc_B / scale_B)[:, None]  # closed
    torch.testing.assert_close(output.z_BHQ, expected_BHQ)
    units_BHQ = (
        unit_B[:, None, None]
        * torch.sinh(expected_BHQ * scale_B[:, None, None] + loc_B[:, None, None])
    ).clamp(min=0.0)
    torch.testing.assert_close(output.units(), units_BHQ, rtol=1e-4, atol=0.1)
    assert not output.units()[:, 5].any()


def test_tokens_stand_in_order_and_those_before_the_first_sale_are_not_looked_at(
    tiny_network: FreshetNetwork, shop: Batch
) -> None:
    inputs = inputs_of(tiny_network, shop)
    with torch.no_grad():
        hidden_BLD, keep = tiny_network._tokens(inputs)
        context_BND = tiny_network.context_embed(inputs.context_BTC.reshape(ROWS, 4, -1))
        horizon_BND = tiny_network.horizon_embed(inputs.horizon_BHC.reshape(ROWS, 2, -1))
        static_BD = tiny_network.static_embed(inputs.static_BX)
    kind = tiny_network.kind.detach()
    torch.testing.assert_close(hidden_BLD[:, :4], context_BND + kind[0])
    torch.testing.assert_close(hidden_BLD[:, 4], static_BD)
    torch.testing.assert_close(hidden_BLD[:, 5], kind[1].expand(ROWS, -1))
    torch.testing.assert_close(hidden_BLD[:, 6:], horizon_BND + kind[2])
    # The second row begins with step 20, in its second patch.
    assert keep[:, 0, 0].tolist() == [[True] * 8, [False, *[True] * 7], [True] * 8]
    empty = replace(shop, target_BT=torch.full_like(shop.target_BT, torch.nan))
    _, keep = tiny_network._tokens(inputs_of(tiny_network, empty))
    assert keep[:, 0, 0].tolist() == [[False] * 4 + [True] * 4] * ROWS


# Layers -------------------------------------------------------------------------------------------


def naive_attention(
    layer: Attention, hidden_LD: Tensor, seen_LL: np.ndarray, turns: Tensor
) -> Tensor:
    """One head and token at a time; queries and keys turned by `turns` [L, D / heads / 2]."""
    L, D = hidden_LD.shape
    size = D // layer.num_heads
    rows = layer.qkv.weight.detach().reshape(3, layer.num_heads, size, D)
    out = torch.zeros(L, D)

    def normed(vector: Tensor, weight: Tensor) -> Tensor:
        return vector / (vector.square().mean() + 1e-6).sqrt() * weight.detach()

    def turned(vector: Tensor, token: int) -> Tensor:
        pairs = torch.complex(vector[: size // 2], vector[size // 2 :])
        spun = pairs * torch.polar(torch.ones_like(turns[token]), turns[token])
        return torch.cat([spun.real, spun.imag])

    for head in range(layer.num_heads):
        query, key, value = ([rows[part, head] @ h for h in hidden_LD] for part in range(3))
        query = [turned(normed(v, layer.query_norm.weight), i) for i, v in enumerate(query)]
        key = [turned(normed(v, layer.key_norm.weight), i) for i, v in enumerate(key)]
        for token in range(L):
            scores = [math.exp(float(query[token] @ k) / math.sqrt(size)) for k in key]
            scores = [s * bool(seen) for s, seen in zip(scores, seen_LL[token], strict=True)]
            mixed = sum(s / sum(scores) * v for s, v in zip(scores, value, strict=True))
            out[token, head * size : (head + 1) * size] = mixed
    return out @ layer.out.weight.detach().T


@pytest.mark.parametrize("gradients", [True, False])
def test_attention_is_a_softmax_of_turned_and_normed_products(
    tiny_network: FreshetNetwork, gradients: bool
) -> None:
    layer = tiny_network.layers[0].attention
    hidden_BLD = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([[True] * 5, [False, False, True, True, True]])
    # Two heads of 16 turn in eight frequencies, from one radian a token to a thousandth's root.
    turns = torch.arange(5.0)[:, None] * 1000.0 ** (-torch.arange(8.0) / 8)
    with torch.set_grad_enabled(gradients):
        rotary = tiny_network._rotary(hidden_BLD)
        found = layer(hidden_BLD, keep[:, None, None], rotary)
        last = layer(hidden_BLD, keep[:, None, None], rotary, last=2)
        still = layer(hidden_BLD, None, None)
    for row in range(2):
        seen_LL = keep[row].expand(5, 5).numpy()
        expected = naive_attention(layer, hidden_BLD[row], seen_LL, turns)
        torch.testing.assert_close(found[row].detach(), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(last[row].detach(), expected[-2:], rtol=1e-4, atol=1e-5)
        whole = naive_attention(layer, hidden_BLD[row], np.ones((5, 5)), torch.zeros(5, 8))
        torch.testing.assert_close(still[row].detach(), whole, rtol=1e-4, atol=1e-5)


def test_a_layer_adds_attention_and_then_a_squared_relu_of_what_it_normed(
    tiny_network: FreshetNetwork,
) -> None:
    layer = tiny_network.layers[1]
    hidden = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
    keep, rotary = torch.ones(2, 1, 1, 5, dtype=torch.bool), tiny_network._rotary(hidden)
    with torch.no_grad():
        between = hidden + layer.attention(layer.attention_norm(hidden), keep, rotary)
        wide = (layer.mlp_norm(between) @ layer.up.weight.T).clamp(min=0.0) ** 2
        expected = between + wide @ layer.down.weight.T
        torch.testing.assert_close(layer(hidden, keep, rotary), expected)


def test_related_rows_mix_token_by_token(tiny_config: FreshetConfig) -> None:
    torch.manual_seed(0)
    mixer = GroupMixer(tiny_config)
    torch.nn.init.normal_(mixer.attention.out.weight, std=0.3)
    hidden_BLD = torch.randn(3, 4, 32)
    found = mixer(hidden_BLD, torch.tensor([1, 2, 1])).detach()
    seen = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    for token in range(4):
        rows = mixer.norm(hidden_BLD[:, token]).detach()
        mixed = naive_attention(mixer.attention, rows, seen, torch.zeros(3, 8))
        torch.testing.assert_close(
            found[:, token], hidden_BLD[:, token] + mixed, rtol=1e-4, atol=1e-5
        )


def test_the_head_gives_each_step_its_share_of_the_token_and_its_own_covariates(
    tiny_network: FreshetNetwork,
) -> None:
    head = tiny_network.head
    generator = torch.Generator().manual_seed(3)
    hidden_BND = torch.randn(2, 2, 32, generator=generator)
    known_BHC = torch.randn(2, 32, head.step.in_features, generator=generator)
    with torch.no_grad():
        found = head(hidden_BND, known_BHC)
        for row, step in ((0, 0), (1, 15), (1, 16), (0, 31)):
            token = hidden_BND[row, step // 16]
            place = slice(8 * (step % 16), 8 * (step % 16) + 8)
            share = head.spread.weight[place] @ token + head.spread.bias[place]
            mixed = share + head.step.weight @ known_BHC[row, step] + head.step.bias
            both = torch.cat([share, mixed * mixed.sigmoid()])
            up = head.mlp.up.weight @ both + head.mlp.up.bias
            straight = head.mlp.short_cut.weight @ both + head.mlp.short_cut.bias
            expected = head.mlp.down.weight @ (up * up.sigmoid()) + straight
            torch.testing.assert_close(found[row, step], expected, rtol=1e-4, atol=1e-5)


def test_a_rotation_keeps_lengths_and_a_fresh_layer_changes_nothing(
    tiny_config: FreshetConfig,
) -> None:
    x = torch.tensor([[3.0, 0.0, 4.0, 1.0]])
    quarter = (torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    assert rotate(x, *quarter).tolist() == [[-4.0, 0.0, 3.0, 1.0]]
    torch.manual_seed(0)
    network = FreshetNetwork(tiny_config)
    hidden = torch.randn(1, 4, 32)
    keep = torch.ones(1, 1, 1, 4, dtype=torch.bool)
    assert torch.equal(network.layers[0](hidden, keep, network._rotary(hidden)), hidden)
    assert float(network.kind.detach().std()) == pytest.approx(0.02, rel=0.3)
    wide = network.context_embed.up
    assert float(wide.weight.detach().std()) == pytest.approx(wide.in_features**-0.5, rel=0.05)
    assert not wide.bias.any() and (network.final_norm.weight == 1.0).all()
    assert network.dtype == torch.float32


@pytest.mark.parametrize(
    "wrong", [{"width": 36, "num_heads": 4}, {"context_length": 100}, {"prediction_length": 8}]
)
def test_sizes_that_make_no_network_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match="make no network"):
        FreshetConfig(**wrong)
    config = FreshetConfig(width=40, num_heads=4, context_length=96, prediction_length=16)
    assert (config.width, config.num_heads, config.context_length) == (40, 4, 96)
    assert (config.patch_length, config.num_layers, config.step_width) == (16, 3, 48)
    assert config.quantile_levels == list(QUANTILE_LEVELS)
    assert QUANTILE_LEVELS[::5] == (0.01, 0.25, 0.5, 0.75, 0.99)
