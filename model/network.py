"""The network: fused-covariate patches, a bidirectional encoder, 21 quantiles for all steps in one pass.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, K known slots, P past slots,
F static features, C channels of one step, N patches, L tokens, D width, Q quantile levels.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from model import features, profiles
from stream.errors import InvalidInputError

QUANTILE_LEVELS = (0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99)
NUM_KNOWN = 8
NUM_PAST = 8
NUM_TEXT = 256
NUM_SCALE_FACTS = 5
# What a horizon step knows: time index, phases, profiles, known slots with masks.
NUM_STEP_CHANNELS = 1 + features.NUM_PHASE_CHANNELS + profiles.NUM_PROFILE_CHANNELS + 2 * NUM_KNOWN
# What a context step knows beside that: target and mask, past slots with masks.
NUM_PATCH_CHANNELS = NUM_STEP_CHANNELS + 2 + 2 * NUM_PAST


class FreshetConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Sizes and limits of a FreshetNetwork."""

    model_type = "freshet"

    def __init__(
        self,
        *,
        width: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        patch_length: int = 16,
        context_length: int = 512,
        prediction_length: int = 64,
        num_static: int = NUM_TEXT + 2,
        step_width: int = 32,
        dropout: float = 0.0,
        quantile_levels: tuple[float, ...] = QUANTILE_LEVELS,
        max_group_rows: int = 32,
        **kwargs: Any,
    ) -> None:
        if width % (2 * num_heads) or context_length % patch_length or prediction_length % patch_length:
            raise InvalidInputError(
                f"width {width}, {num_heads} heads, patches of {patch_length}, context {context_length} "
                f"and horizon {prediction_length} make no network",
                hint="width must be a multiple of twice the heads, context and horizon multiples of the patch",
            )
        self.width = width
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.patch_length = patch_length
        self.context_length = context_length
        self.prediction_length = prediction_length
        self.num_static = num_static
        self.step_width = step_width
        self.dropout = dropout
        self.quantile_levels = list(quantile_levels)
        self.max_group_rows = max_group_rows
        super().__init__(**kwargs)

    @classmethod
    def edge(cls) -> FreshetConfig:
        """The smallest size: d64 x 3 layers."""
        return cls(width=64, num_layers=3, num_heads=2)

    @classmethod
    def default(cls) -> FreshetConfig:
        """The size whose weights ship: d128 x 4 layers."""
        return cls()

    @classmethod
    def quality(cls) -> FreshetConfig:
        """The largest size: d256 x 6 layers."""
        return cls(width=256, num_layers=6, num_heads=8)


class FreshetOutput(NamedTuple):
    """Quantiles on the network's scale (not yet sorted), with each row's loc and scale."""

    z_BHQ: Tensor
    loc_B: Tensor
    scale_B: Tensor


class Norm(nn.RMSNorm):
    """Root mean square norm that follows the number format of its input, also under autocast."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same shape with mean square one, times the learnt weight."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class SilentLinear(nn.Linear):
    """A linear layer that starts at zero."""


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

    def forward(self, hidden_BLD: Tensor, keep: Tensor | None, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        """Mix the tokens of dimension 1; `keep` is a boolean mask over (queries, keys)."""
        B, L, D = hidden_BLD.shape
        qkv = self.qkv(hidden_BLD).view(B, L, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = self.query_norm(qkv[0]), self.key_norm(qkv[1]), qkv[2]
        if rotary is not None:
            query, key = rotate(query, *rotary), rotate(key, *rotary)
        # Written out: at 38 tokens the CPU's fused kernel takes four times as long backwards (half of a whole step).
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        if keep is not None:
            scores = scores.masked_fill(~keep, -1e4)
        mixed = scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value
        return cast(Tensor, self.out(mixed.transpose(1, 2).reshape(B, L, D)))


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
        self.up = nn.Linear(config.width, 4 * config.width, bias=False)
        self.down = SilentLinear(4 * config.width, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_BLD: Tensor, keep: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Attention, then the squared-ReLU MLP, each added to the stream."""
        mixed_BLD = self.attention(self.attention_norm(hidden_BLD), keep, rotary)
        hidden_BLD = hidden_BLD + self.dropout(mixed_BLD)
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
    """From a horizon token and what is known about each of its steps to quantiles."""

    def __init__(self, config: FreshetConfig) -> None:
        super().__init__()
        self.patch_length = config.patch_length
        self.spread = nn.Linear(config.width, config.patch_length * config.step_width)
        self.step = nn.Linear(NUM_STEP_CHANNELS, config.step_width)
        self.mlp = ResidualMLP(2 * config.step_width, 4 * config.step_width, len(config.quantile_levels))

    def forward(self, hidden_BND: Tensor, known_BHC: Tensor) -> Tensor:
        """[B, N, D] and [B, H, C] to [B, H, Q]."""
        token_BHW = self.spread(hidden_BND).reshape(*known_BHC.shape[:2], -1)
        return cast(Tensor, self.mlp(torch.cat([token_BHW, F.silu(token_BHW + self.step(known_BHC))], -1)))


class FreshetNetwork(PreTrainedModel):  # type: ignore[no-untyped-call]
    """Contexts of many series in, 21 quantiles for every horizon step out, in one pass."""

    config: FreshetConfig
    config_class = FreshetConfig
    base_model_prefix = "freshet"
    main_input_name = "target_BT"

    def __init__(self, config: FreshetConfig) -> None:
        super().__init__(config)
        width = config.width
        self.patch_embed = ResidualMLP(config.patch_length * NUM_PATCH_CHANNELS, 2 * width, width)
        num_static = config.num_static + (config.num_static - NUM_TEXT) + NUM_SCALE_FACTS
        self.static_embed = ResidualMLP(num_static, width, width)
        self.kind = nn.Parameter(torch.zeros(3, width))  # context, separator, horizon
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.group_mixer = GroupMixer(config)
        self.final_norm = Norm(width)
        self.head = StepHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            # Whatever writes into the residual stream starts silent, so that each layer begins as the identity.
            nn.init.normal_(module.weight, std=0.0 if isinstance(module, SilentLinear) else module.in_features**-0.5)
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
        """Return unsorted quantiles on the network's scale; `features.to_units` finishes them."""
        scaled = features.scale_target(target_BT)
        context_BTC, horizon_BHC = self._channels(scaled, past_BTP, known_BSK, start_ms_B, resolution_ms)
        hidden_BLD, keep = self._tokens(scaled, context_BTC, horizon_BHC, static_BF, resolution_ms)
        rotary = self._rotary(hidden_BLD)
        for layer in self.layers:
            hidden_BLD = layer(hidden_BLD, keep, rotary)
        if group_B is not None:
            hidden_BLD = self.group_mixer(hidden_BLD, group_B)
        num_horizon = horizon_BHC.shape[1] // self.config.patch_length
        hidden_BND = self.final_norm(hidden_BLD[:, -num_horizon:])
        known_BHC = horizon_BHC[..., :NUM_STEP_CHANNELS]
        return FreshetOutput(self.head(hidden_BND, known_BHC), scaled.loc_B, scaled.scale_B)

    def _channels(
        self, scaled: features.Scaled, past_BTP: Tensor, known_BSK: Tensor, start_ms_B: Tensor, resolution_ms: int
    ) -> tuple[Tensor, Tensor]:
        """Everything each step knows, in the weights' dtype: context [B, T, C] and horizon [B, H, C]."""
        (B, T), S = scaled.z_BT.shape, known_BSK.shape[1]
        detected_B = features.detect_period(scaled.z_BT, scaled.observed_BT, none=2 * S)
        values_BSK, mask_BSK = features.known_channels(known_BSK)
        index_BS1 = (torch.arange(S, device=known_BSK.device) - T).expand(B, S)[..., None] / self.config.context_length
        known_BSC = torch.cat(
            [
                index_BS1,
                features.phase_channels(start_ms_B, resolution_ms, T, S, detected_B),
                profiles.profile_channels(scaled, values_BSK, detected_B, start_ms_B, resolution_ms),
                values_BSK,
                mask_BSK,
            ],
            -1,
        )
        seen_BTC = torch.stack([scaled.z_BT, scaled.observed_BT], -1)
        seen_BTC = torch.cat([seen_BTC, *features.log_standardise(past_BTP)], -1)
        context_BTC = torch.cat([known_BSC[:, :T], seen_BTC], -1)
        horizon_BHC = F.pad(known_BSC[:, T:], (0, seen_BTC.shape[-1]))
        return context_BTC.to(self.dtype), horizon_BHC.to(self.dtype)

    def _tokens(
        self,
        scaled: features.Scaled,
        context_BTC: Tensor,
        horizon_BHC: Tensor,
        static_BF: Tensor,
        resolution_ms: int,
    ) -> tuple[Tensor, Tensor]:
        """Context patches, static, separator, horizon patches; and which of them may be looked at."""
        B, patch = context_BTC.shape[0], self.config.patch_length
        context_BND = self.patch_embed(context_BTC.reshape(B, -1, patch * NUM_PATCH_CHANNELS)) + self.kind[0]
        horizon_BND = self.patch_embed(horizon_BHC.reshape(B, -1, patch * NUM_PATCH_CHANNELS)) + self.kind[2]
        static_B1D = self.static_embed(self._static(scaled, static_BF, resolution_ms))[:, None]
        separator_B1D = self.kind[1].expand(B, 1, -1)
        hidden_BLD = torch.cat([context_BND, static_B1D, separator_B1D, horizon_BND], 1)
        # Patches before the first observation are not looked at: padding on the left changes nothing.
        begun_BN = scaled.observed_BT.view(B, -1, patch).amax(-1).cummax(1).values > 0
        keep_BL = F.pad(begun_BN, (0, hidden_BLD.shape[1] - begun_BN.shape[1]), value=True)
        return hidden_BLD, keep_BL[:, None, None, :]

    def _static(self, scaled: features.Scaled, static_BF: Tensor, resolution_ms: int) -> Tensor:
        """Text and numbers with masks, and what the scaling took away: level, spread, amount, zeros."""
        observed_B = scaled.observed_BT.sum(1)
        zero_B = (
            (scaled.z_BT <= torch.arcsinh(-scaled.loc_B / scaled.scale_B)[:, None] + 1e-4).float() * scaled.observed_BT
        ).sum(1)
        facts_B5 = torch.stack(
            [
                torch.log1p(scaled.loc_B.clamp(min=0)),
                scaled.scale_B.log(),
                torch.log1p(observed_B) / 3.0,
                zero_B / observed_B.clamp(min=1.0),
                torch.full_like(observed_B, resolution_ms / features.DAY_MS).log() / 3.0,
            ],
            -1,
        )
        mask_BX = torch.isfinite(static_BF[:, NUM_TEXT:]).float()
        return torch.cat([torch.nan_to_num(static_BF.float()), mask_BX, facts_B5], -1).to(self.dtype)

    def _rotary(self, hidden_BLD: Tensor) -> tuple[Tensor, Tensor]:
        half = self.config.width // self.config.num_heads // 2
        device = hidden_BLD.device
        # Base 1,000: with at most 40 tokens, slower rotations would never turn.
        frequency = 1000.0 ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
        angle_LX = torch.arange(hidden_BLD.shape[1], device=device)[:, None] * frequency
        return angle_LX.cos().to(hidden_BLD.dtype), angle_LX.sin().to(hidden_BLD.dtype)


def place(network: FreshetNetwork, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
    """Move a network's weights to a device or a number format, in place."""
    nn.Module.to(network, device=device, dtype=dtype)


AutoConfig.register("freshet", FreshetConfig, exist_ok=True)
AutoModel.register(FreshetConfig, FreshetNetwork, exist_ok=True)
