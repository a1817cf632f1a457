"""The network: patches of target and covariates, an encoder, 21 quantiles of all steps in one pass.

A batch is scaled, compared with what its own past makes expected, and cut into patches of 16 steps.
Context patches, one token of static features, a separator and horizon patches go through an encoder
that looks both ways. A head turns each horizon patch, and what is known of its steps, into
quantiles of what the expectation leaves over, in units of the noise it leaves.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, K known slots, P past slots,
F static features, X facts, C channels of one step, N patches, L tokens, D width, Q quantile levels.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig

from freshet.model import beyond, features, phases, profiles
from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, QUANTILE_LEVELS
from freshet.model.ceiling import ceiling
from freshet.model.expectation import short_season
from freshet.model.text import NUM_STATIC, NUM_TEXT
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS

NUM_KNOWN = len(KNOWN_SLOTS)
NUM_PAST = len(PAST_SLOTS)
# Of a row: what the scaling took away, the profiles' facts, and which known slots the shop fills.
NUM_SCALE_FACTS = 5
NUM_ROW_FACTS = NUM_SCALE_FACTS + profiles.NUM_FACTS + NUM_KNOWN
# Of a step ahead, all of it known in advance: how far ahead, phases, profiles, place in a run,
# known slots with their masks.
NUM_STEP_CHANNELS = (
    1
    + phases.NUM_PHASE_CHANNELS
    + profiles.NUM_PROFILE_CHANNELS
    + features.NUM_RUN_CHANNELS
    + 2 * NUM_KNOWN
)
# Of a context step: target with its mask, expectation and surprise; place in a run, known slots,
# past slots with their masks.
NUM_CONTEXT_CHANNELS = 4 + features.NUM_RUN_CHANNELS + NUM_KNOWN + 2 * NUM_PAST
# Rotary frequencies fall from 1 to this one's inverse: with at most 40 tokens, slower rotations
# (the usual 10,000) would never turn.
ROTARY_BASE = 1000.0
MASKED = -1e4  # what is added to a score that must not count; finite, so that no softmax is NaN


class FreshetConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Sizes and limits of a FreshetNetwork."""

    model_type = "freshet"

    def __init__(
        self,
        *,
        width: int = 128,
        num_layers: int = 3,
        num_heads: int = 4,
        mlp_ratio: int = 3,
        patch_length: int = 16,
        context_length: int = 512,
        prediction_length: int = 64,
        num_static: int = NUM_STATIC,
        step_width: int = 48,
        dropout: float = 0.0,
        quantile_levels: tuple[float, ...] = QUANTILE_LEVELS,
        max_group_rows: int = 32,
        **kwargs: Any,
    ) -> None:
        ragged = context_length % patch_length or prediction_length % patch_length
        if width % (2 * num_heads) or ragged:
            raise InvalidInputError(
                f"width {width}, {num_heads} heads, patches of {patch_length}, context "
                f"{context_length} and horizon {prediction_length} make no network",
                hint="width must be a multiple of twice the heads, context and horizon "
                "multiples of the patch",
            )
        self.width = width
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.patch_length = patch_length
        self.context_length = context_length
        self.prediction_length = prediction_length
        self.num_static = num_static
        self.step_width = step_width
        self.dropout = dropout
        self.quantile_levels = list(quantile_levels)
        self.max_group_rows = max_group_rows
        super().__init__(**kwargs)


class FreshetOutput(NamedTuple):
    """What one pass gives.

    Attributes:
        z_BHQ: quantiles on the network's scale, not yet sorted.
        scaling: each row's way back to units.
        expected_BH: what the profiles expected, on the network's scale.
        ceiling_BH: the most that `units` says, on the network's scale.
    """

    z_BHQ: Tensor
    scaling: features.Scaling
    expected_BH: Tensor
    ceiling_BH: Tensor

    def units(self) -> Tensor:
        """Sorted quantiles in units, never below zero nor above the ceiling: [B, H, Q]."""
        z_BHQ = torch.minimum(self.z_BHQ, self.ceiling_BH[..., None])
        return features.to_units(z_BHQ, self.scaling)


class Inputs(NamedTuple):
    """What the network computes from, made of a batch by arithmetic that has no parameters."""

    context_BTC: Tensor
    horizon_BHC: Tensor
    static_BX: Tensor
    observed_BT: Tensor
    expected_BH: Tensor
    noise_B: Tensor
    ceiling_BH: Tensor
    closed_BH: Tensor
    scaling: features.Scaling


class Norm(nn.RMSNorm):
    """Root mean square norm that follows the number format of its input, also under autocast."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same shape with mean square one, times the learnt weight."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class SilentLinear(nn.Linear):
    """A linear layer that starts at zero: each layer of the encoder begins as the identity."""


class ResidualMLP(nn.Module):
    """Two layers beside a linear short cut."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.Linear(inputs, hidden)
        self.down = nn.Linear(hidden, outputs, bias=False)
        self.short_cut = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        return cast(Tensor, self.down(F.silu(self.up(x))) + self.short_cut(x))


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys; RoPE when angles are given."""

    def __init__(self, config: FreshetConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        head = config.width // config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = SilentLinear(config.width, config.width, bias=False)
        self.query_norm = Norm(head)
        self.key_norm = Norm(head)

    def forward(
        self,
        hidden_BLD: Tensor,
        keep: Tensor | None,
        rotary: tuple[Tensor, Tensor] | None,
        *,
        last: int | None = None,
    ) -> Tensor:
        """Mix the tokens of dimension 1; `keep` is a boolean mask over (queries, keys).

        Only what the `last` tokens become is computed and returned; all of them by default.
        """
        B, L, D = hidden_BLD.shape
        heads = self.qkv(hidden_BLD).view(B, L, 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # [B, heads, L, D / heads] each
        # Normalised, so that no score can grow without bound (Henry et al. 2020).
        query = self.query_norm(query)
        key = self.key_norm(key)
        if rotary is not None:
            query = rotate(query, *rotary)
            key = rotate(key, *rotary)
        if last is not None:
            query = query[:, :, -last:]
            keep = keep if keep is None or keep.shape[2] == 1 else keep[:, :, -last:]
        bias = None
        if keep is not None:
            bias = torch.where(keep, 0.0, MASKED).to(query.dtype).expand(B, 1, query.shape[2], L)
        mixed = _attend(query, key, value, bias)
        return cast(Tensor, self.out(mixed.transpose(1, 2).reshape(B, -1, D)))


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax attention over the last two dimensions, `bias` being added to its scores."""
    if not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    # Written out: at 38 tokens the CPU's fused kernel takes four times as long backwards (half of a
    # whole step).
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    mixed: Tensor = scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
    return mixed


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding of the last dimension (Su et al. 2021)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)


class Layer(nn.Module):
    """One pre-norm encoder layer."""

    def __init__(self, config: FreshetConfig) -> None:
        super().__init__()
        self.attention_norm = Norm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = Norm(config.width)
        wide = config.mlp_ratio * config.width
        self.up = nn.Linear(config.width, wide, bias=False)
        self.down = SilentLinear(wide, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        hidden_BLD: Tensor,
        keep: Tensor,
        rotary: tuple[Tensor, Tensor],
        *,
        last: int | None = None,
    ) -> Tensor:
        """Attention, then the MLP, each added to the stream: of the `last` tokens, or of all."""
        mixed_BLD = self.attention(self.attention_norm(hidden_BLD), keep, rotary, last=last)
        hidden_BLD = hidden_BLD[:, -mixed_BLD.shape[1] :] + self.dropout(mixed_BLD)
        # Squared ReLU (So et al. 2021): two matrices, where a gated MLP takes three.
        wide = F.relu(self.up(self.mlp_norm(hidden_BLD))).square()
        return cast(Tensor, hidden_BLD + self.dropout(self.down(wide)))


class GroupMixer(nn.Module):
    """Attention over related rows at the same token position; starts as the identity."""

    def __init__(self, config: FreshetConfig) -> None:
        super().__init__()
        self.norm = Norm(config.width)
        self.attention = Attention(config)

    def forward(self, hidden_BLD: Tensor, group_B: Tensor) -> Tensor:
        """Rows with the same group number see each other, token by token."""
        keep_BB = group_B[:, None] == group_B[None, :]
        mixed_LBD = self.attention(self.norm(hidden_BLD).transpose(0, 1), keep_BB, None)
        return hidden_BLD + cast(Tensor, mixed_LBD).transpose(0, 1)


class StepHead(nn.Module):
    """From a horizon token and what is known about each of its steps to quantiles.

    The token says what its patch has in common, and gives each of its 16 places a few numbers; the
    step's own covariates come in once more here, since sixteen sets of them do not fit through one
    token. All places share the same small MLP.
    """

    def __init__(self, config: FreshetConfig) -> None:
        super().__init__()
        width = config.step_width
        self.patch_length = config.patch_length
        self.spread = nn.Linear(config.width, config.patch_length * width)
        self.step = nn.Linear(NUM_STEP_CHANNELS, width)
        self.mlp = ResidualMLP(2 * width, 4 * width, len(config.quantile_levels))

    def forward(self, hidden_BND: Tensor, known_BHC: Tensor) -> Tensor:
        """[B, N, D] and [B, H, C] to [B, H, Q]."""
        B, H, _ = known_BHC.shape
        token_BHW = self.spread(hidden_BND).reshape(B, H, -1)
        step_BHW = F.silu(token_BHW + self.step(known_BHC))
        return cast(Tensor, self.mlp(torch.cat([token_BHW, step_BHW], -1)))


class FreshetNetwork(nn.Module):
    """Contexts of many series in, 21 quantiles for every horizon step out, in one pass."""

    def __init__(self, config: FreshetConfig) -> None:
        super().__init__()
        self.config = config
        self.build(config)
        # Shapes alone need no numbers: drawing them would load torch's compiler, a second of work.
        if not self.kind.is_meta:
            self.apply(self._init_weights)

    def build(self, config: FreshetConfig) -> None:
        """Make the layers, in the order in which their weights are stored."""
        width = config.width
        patch = config.patch_length
        self.context_embed = ResidualMLP(patch * NUM_CONTEXT_CHANNELS, width, width)
        self.horizon_embed = ResidualMLP(patch * NUM_STEP_CHANNELS, width, width)
        num_static = config.num_static + (config.num_static - NUM_TEXT) + NUM_ROW_FACTS
        self.static_embed = ResidualMLP(num_static, width, width)
        self.kind = nn.Parameter(torch.zeros(3, width))  # context, separator, horizon
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.group_mixer = GroupMixer(config)
        self.final_norm = Norm(width)
        self.head = StepHead(config)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights."""
        return self.kind.dtype

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            # Whatever writes into the residual stream starts silent, so that each layer begins as
            # the identity.
            silent = isinstance(module, SilentLinear)
            nn.init.normal_(module.weight, std=0.0 if silent else module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, FreshetNetwork):
            nn.init.normal_(module.kind, std=0.02)

    def forward(
        self,
        target_BT: Tensor,
        past_BTP: Tensor,
        known_BSK: Tensor,
        static_BF: Tensor,
        start_ms_B: Tensor,
        resolution_ms: int,
        group_B: Tensor | None = None,
    ) -> FreshetOutput:
        """Return unsorted quantiles on the network's scale; `FreshetOutput.units` finishes them."""
        # Scaling and profiles are sums over hundreds of steps: never in bfloat16.
        with torch.autocast(target_BT.device.type, enabled=False):
            inputs = self._inputs(
                target_BT, past_BTP, known_BSK, static_BF, start_ms_B, resolution_ms
            )
        hidden_BND = self._encode(inputs)
        if group_B is not None:
            hidden_BND = self.group_mixer(hidden_BND, group_B)
        left_BHQ = self.head(self.final_norm(hidden_BND), inputs.horizon_BHC).float()
        if left_BHQ.shape[1] > self.config.prediction_length:
            left_BHQ = self._widened(left_BHQ, inputs.closed_BH, resolution_ms)
        # The network says what the expectation leaves over, in units of the noise it usually
        # leaves: it need not carry a level to one per cent to be sharp on calm series.
        z_BHQ = inputs.expected_BH[..., None] + inputs.noise_B[:, None, None] * left_BHQ
        # Where nothing can be sold, every quantile is the z of zero units.
        nothing_B = -inputs.scaling.loc_B / inputs.scaling.scale_B
        z_BHQ = torch.where(inputs.closed_BH[..., None], nothing_B[:, None, None], z_BHQ)
        return FreshetOutput(z_BHQ, inputs.scaling, inputs.expected_BH, inputs.ceiling_BH)

    def _inputs(
        self,
        target_BT: Tensor,
        past_BTP: Tensor,
        known_BSK: Tensor,
        static_BF: Tensor,
        start_ms_B: Tensor,
        resolution_ms: int,
    ) -> Inputs:
        """Everything the network looks at, in the weights' dtype, and how to come back to units."""
        (B, T), S = target_BT.shape, known_BSK.shape[1]
        closed_BS = known_BSK[..., features.CLOSED] > 0.5
        scaled = features.scale_target(target_BT, closed_BS[:, :T])
        known_BSK, mask_BSK = features.known_channels(known_BSK, scaled)
        runs_BSX = features.run_channels(known_BSK)
        own = profiles.profiles(scaled, known_BSK, start_ms_B, resolution_ms)

        # Behind the cutoff: what came, whether it was seen, and what it was next to what was
        # expected. Channels are stacked as rows, which a CPU does faster, and turned at the end.
        past_BTX, past_mask_BTX = features.log_standardise(past_BTP)
        seen = [scaled.z_BT, scaled.observed_BT, own.expected_BS[:, :T], own.surprise_BT]
        beside = [runs_BSX[:, :T], known_BSK[:, :T], past_BTX, past_mask_BTX]
        context_BCT = torch.cat([torch.stack(seen, 1), *(x_BTX.mT for x_BTX in beside)], 1)

        # Ahead of it: how far, the calendar, what the profiles say, and what is known in advance.
        reach = self.config.prediction_length
        told_H = beyond.stand_ins(S - T, reach, self.config.patch_length).to(target_BT.device)
        far_BH1 = (told_H[:, None] / reach).expand(B, -1, 1)
        phases_BHX = phases.phase_channels(start_ms_B, resolution_ms, range(T, S), own.period_B)
        ahead = [runs_BSX[:, T:], known_BSK[:, T:], mask_BSK[:, T:]]
        horizon_BHC = torch.cat([far_BH1, phases_BHX, own.channels_BHC, *ahead], -1)

        # Of the whole row. Whether a slot is filled at all, not how often: that share told the
        # network how much padding there was.
        filled_BK = mask_BSK.sum(1).clamp(max=1.0)
        facts = [_scale_facts(scaled, resolution_ms), own.facts_BX, filled_BK]
        static_BX = torch.cat([_statics(static_BF), *facts], -1)
        return Inputs(
            context_BTC=context_BCT.mT.to(self.dtype),
            horizon_BHC=horizon_BHC.to(self.dtype),
            static_BX=static_BX.to(self.dtype),
            observed_BT=scaled.observed_BT,
            expected_BH=own.expected_BS[:, T:],
            noise_B=own.noise_B,
            ceiling_BH=ceiling(scaled, known_BSK, own.noise_B),
            closed_BH=closed_BS[:, T:],
            scaling=scaled.scaling,
        )

    def _encode(self, inputs: Inputs) -> Tensor:
        """What the horizon's tokens become in the encoder: [B, N, D]."""
        hidden_BLD, keep = self._tokens(inputs)
        num_horizon = inputs.horizon_BHC.shape[1] // self.config.patch_length
        rotary = self._rotary(hidden_BLD, self._num_beyond(num_horizon))
        *layers, last_layer = self.layers
        for layer in layers:
            hidden_BLD = layer(hidden_BLD, keep, rotary)
        # Nobody looks at the other tokens after the last layer, so it leaves them out.
        return cast(Tensor, last_layer(hidden_BLD, keep, rotary, last=num_horizon))

    def _tokens(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Context patches, static, separator, horizon patches: [B, L, D].

        Returns:
            The tokens, and which of them may be looked at, by all: [B, 1, 1, L], or by each:
            [B, 1, L, L].
        """
        B, patch = len(inputs.static_BX), self.config.patch_length
        context_BNX = inputs.context_BTC.reshape(B, -1, patch * NUM_CONTEXT_CHANNELS)
        horizon_BNX = inputs.horizon_BHC.reshape(B, -1, patch * NUM_STEP_CHANNELS)
        context_BND = self.context_embed(context_BNX) + self.kind[0]
        static_B1D = self.static_embed(inputs.static_BX)[:, None]
        separator_B1D = self.kind[1].expand(B, 1, -1)
        horizon_BND = self.horizon_embed(horizon_BNX) + self.kind[2]
        hidden_BLD = torch.cat([context_BND, static_B1D, separator_B1D, horizon_BND], 1)
        # Patches before the first observation are not looked at: padding on the left changes
        # nothing.
        begun_BN = inputs.observed_BT.view(B, -1, patch).amax(-1).cummax(1).values > 0
        num_others = hidden_BLD.shape[1] - begun_BN.shape[1]
        keep_BL = F.pad(begun_BN, (0, num_others), value=True)
        keep_B1XL = keep_BL[:, None, None, :]
        num_tokens, num_beyond = keep_BL.shape[1], self._num_beyond(horizon_BND.shape[1])
        if num_beyond:
            heard_LL = beyond.listeners(num_tokens, num_tokens - num_beyond)
            keep_B1XL = keep_B1XL & heard_LL.to(keep_BL.device)
        return hidden_BLD, keep_B1XL

    def _widened(self, left_BHQ: Tensor, closed_BH: Tensor, resolution_ms: int) -> Tensor:
        reach, patch = self.config.prediction_length, self.config.patch_length
        fan = beyond.Fan(reach, patch, short_season(resolution_ms))
        return beyond.widened(left_BHQ, closed_BH, self.config.quantile_levels, fan)

    def _num_beyond(self, num_patches: int) -> int:
        """How many patches of a horizon lie further ahead than the network was trained for."""
        return max(num_patches - self.config.prediction_length // self.config.patch_length, 0)

    def _rotary(self, hidden_BLD: Tensor, num_beyond: int = 0) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the angle of each place in the sequence: [L, D / heads / 2] each.

        The last `num_beyond` tokens have the place of the one before them.
        """
        half = self.config.width // self.config.num_heads // 2
        device = hidden_BLD.device
        slowness_X = torch.arange(half, device=device, dtype=torch.float32) / half
        frequency_X = ROTARY_BASE ** (-slowness_X)
        num_tokens = hidden_BLD.shape[1]
        place_L = torch.arange(num_tokens, device=device).clamp(max=num_tokens - num_beyond - 1)
        angle_LX = place_L[:, None] * frequency_X
        return angle_LX.cos().to(hidden_BLD.dtype), angle_LX.sin().to(hidden_BLD.dtype)


def _statics(static_BF: Tensor) -> Tensor:
    """Text and numbers, 0 where unknown, and which numbers are known."""
    filled_BF = torch.nan_to_num(static_BF.float())
    known_BX = torch.isfinite(static_BF[:, NUM_TEXT:]).float()
    return torch.cat([filled_BF, known_BX], -1)


def _scale_facts(scaled: features.Scaled, resolution_ms: int) -> Tensor:
    """What the scaling took away, brought to about one: [B, NUM_SCALE_FACTS].

    Level, spread, unit, share of zeros, and the length of a step in days.
    """
    unit_B, loc_B, scale_B = scaled.scaling
    nothing_B1 = (-loc_B / scale_B)[:, None]
    zero_BT = (scaled.z_BT <= nothing_B1 + 1e-4).float() * scaled.observed_BT
    zero_share_B = zero_BT.sum(1) / scaled.observed_BT.sum(1).clamp(min=1.0)
    length_B = torch.full_like(loc_B, resolution_ms / DAY_MS)
    facts = [loc_B, scale_B.log(), unit_B.log() / 3.0, zero_share_B, length_B.log() / 3.0]
    return torch.stack(facts, -1)
