"""Where the network looked: attention from forecast steps to stretches of the past, no causes.

Dimensions: R heads, L tokens, D width, N patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.explain.row import chosen_steps, one_row
from freshet.model.forecaster import BatchForecaster
from freshet.model.network import Attention, rotate

NUM_BETWEEN = 2  # tokens between context and horizon: the item's own, and a separator


@dataclass(frozen=True, slots=True)
class Looked:
    """How much of the looking back went where; shares sum to one.

    Attributes:
        first: first step of a stretch of the past, counted from the cutoff (-1 is the newest);
            None for the others.
        last: last step, inclusive.
        what: "past", "item" (text, price, level) or "plan" (calendar and known covariates of the
            horizon).
        share: 0 to 1.
    """

    first: int | None
    last: int | None
    what: str
    share: float

    def as_dict(self) -> dict[str, Any]:
        """The same for machines."""
        share = round(self.share, 6)
        return {
            "what": self.what,
            "first_step": self.first,
            "last_step": self.last,
            "share": share,
        }


def looked_at(
    forecaster: BatchForecaster, batch: Batch, row: int, *, steps: range | None = None
) -> tuple[Looked, ...]:
    """Where the forecast of some steps looked, oldest stretch first, then the item and the plan.

    Attention rollout (Abnar and Zuidema 2020): heads are averaged, half of each layer is what a
    token already was, and layers are multiplied. Stretches are the network's patches; the oldest
    may begin before the history does and is then cut to it.

    Raises:
        InvalidInputError: there is no such row, or the steps are not within the horizon.
    """
    one = one_row(batch, row)
    steps = chosen_steps(steps, one.prediction_length)
    rollout_LL = _rollout(_weights(forecaster, one))
    patch, tokens = int(forecaster.network.config.patch_length), len(rollout_LL)
    num_horizon = -(-one.prediction_length // patch)
    num_context = tokens - num_horizon - NUM_BETWEEN
    queries = range(steps.start // patch, (steps.stop - 1) // patch + 1)
    share_L = rollout_LL[[tokens - num_horizon + query for query in queries]].mean(0).tolist()
    past = []
    for place, share in enumerate(share_L[:num_context]):
        first = (place - num_context) * patch
        if first + patch > -one.context_length:
            begin = max(first, -one.context_length)
            past.append(Looked(begin, first + patch - 1, "past", share))
    item, plan = share_L[num_context], sum(share_L[-num_horizon:])
    found = [*past, Looked(None, None, "item", item), Looked(None, None, "plan", plan)]
    total = sum(part.share for part in found)
    return tuple(Looked(part.first, part.last, part.what, part.share / total) for part in found)


def _weights(forecaster: BatchForecaster, one: Batch) -> list[Tensor]:
    """Attention of each layer, averaged over its heads: float32 [L, L] each, on the CPU."""
    found: list[Tensor] = []

    def note(module: torch.nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        weights_1RLL = attention_weights(cast(Attention, module), *arguments)
        found.append(weights_1RLL[0].mean(0).float().cpu())

    layers = [cast(torch.nn.Module, layer.attention) for layer in forecaster.network.layers]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        forecaster.forecast(one)
    finally:
        for handle in handles:
            handle.remove()
    return found


def attention_weights(
    attention: Attention,
    hidden_BLD: Tensor,
    keep: Tensor | None,
    rotary: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """How much each token takes from each other one: [B, R, L, L], rows sum to 1.

    Computed as the layer itself does it, which keeps no weights.
    """
    B, L, _ = hidden_BLD.shape
    qkv = attention.qkv(hidden_BLD).view(B, L, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key = attention.query_norm(qkv[0]), attention.key_norm(qkv[1])
    if rotary is not None:
        query, key = rotate(query, *rotary), rotate(key, *rotary)
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if keep is not None:
        scores = scores.masked_fill(~keep, -1e4)
    return cast(Tensor, scores.softmax(-1, dtype=torch.float32))


def _rollout(weights: list[Tensor]) -> Tensor:
    """Where each token's content comes from after all layers: [L, L], rows sum to 1.

    A layer adds what it takes in to what a token already was; half and half is the usual guess.
    """
    rollout_LL = torch.eye(len(weights[0]))
    for weights_LL in weights:
        rollout_LL = (0.5 * weights_LL + 0.5 * torch.eye(len(weights_LL))) @ rollout_LL
    return rollout_LL
