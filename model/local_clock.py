"""Steps by the shop's own clock, brought to even steps before anything looks at them.

Seasons follow clocks: shops open at nine in summer and in winter, though the two lie an hour apart
in UTC. So each step goes where the clock's even steps have its time. The hour that a clock leaves
out is a missing step; of an hour that it shows twice the later one is kept.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, E even steps of the horizon.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from freshet.model.batch import Batch

NOWHERE = -1


class Even(NamedTuple):
    """A batch whose steps are even, and where the asked steps are among those of its horizon.

    Attributes:
        batch: without `local_ms_BS`; its `start_ms_B` is what the clock shows.
        place_BH: int64 which even step of the horizon each asked one is; None: they are the same.
    """

    batch: Batch
    place_BH: Tensor | None


def even(batch: Batch) -> Even:
    """Put each step where even steps of the shop's clock have its time; without a clock, as it is.

    The context keeps its length and ends at the cutoff. The horizon is as long as the clock needs:
    a step longer where an hour is left out. Past and known covariates of a step without one are
    missing, but what is known in advance goes on from the step before.
    """
    if batch.local_ms_BS is None:
        return Even(batch, None)
    T = batch.context_length
    step_S = torch.arange(batch.local_ms_BS.shape[1], device=batch.local_ms_BS.device)
    cutoff_ms_B1 = batch.local_ms_BS[:, T : T + 1]
    start_ms_B = cutoff_ms_B1[:, 0] - T * batch.resolution_ms
    on_clock = replace(batch, start_ms_B=start_ms_B, local_ms_BS=None)
    # Steps from the cutoff by the clock, to the nearest: six hours may be five or seven of them.
    since_BS = batch.local_ms_BS - cutoff_ms_B1 + batch.resolution_ms // 2
    place_BS = since_BS.div(batch.resolution_ms, rounding_mode="floor") + T
    if bool((place_BS == step_S).all()):
        return Even(on_clock, None)

    # Nothing of the context may lie behind the cutoff, nothing ahead of it before.
    before_BT, ahead_BH = place_BS[:, :T], place_BS[:, T:].clamp(min=T)
    before_BT = torch.where(before_BT < T, before_BT, NOWHERE)
    steps = max(int(ahead_BH.max()) + 1, T + 1)
    source_BS = _sources(torch.cat([before_BT, ahead_BH], 1), steps)
    exact_BT = source_BS[:, :T] != NOWHERE
    # Of missing steps the one before them tells what is known in advance.
    last_BS = source_BS.cummax(1).values
    return Even(
        replace(
            on_clock,
            target_BT=_taken(batch.target_BT[..., None], source_BS[:, :T], exact_BT)[..., 0],
            past_BTP=_taken(batch.past_BTP, source_BS[:, :T], exact_BT),
            known_BSK=_taken(batch.known_BSK, last_BS, last_BS != NOWHERE),
        ),
        ahead_BH - T,
    )


def _sources(place_BS: Tensor, steps: int) -> Tensor:
    """The last step that lies at each of the even ones, NOWHERE where none does: [B, steps]."""
    step_BS = torch.arange(place_BS.shape[1], device=place_BS.device).expand_as(place_BS)
    # One place more, for what lies nowhere.
    place_BS = torch.where(place_BS < 0, steps, place_BS)
    found_BS = place_BS.new_full((len(place_BS), steps + 1), NOWHERE)
    return found_BS.scatter_reduce(1, place_BS, step_BS, "amax")[:, :steps]


def _taken(values_BSX: Tensor, source_BS: Tensor, there_BS: Tensor) -> Tensor:
    """The values of these steps, NaN where there is none."""
    index_BSX = source_BS.clamp(min=0)[..., None].expand(-1, -1, values_BSX.shape[2])
    return torch.where(there_BS[..., None], values_BSX.gather(1, index_BSX), torch.nan)
