"""How far a champion may go from the shipped weights: what it may lose on shops that are not this.

Each promotion forgets a little of what was known of other shops, and of this one as it was before
or may be later; the shop's own windows do not show it. So fixed windows, drawn from what the
shipped weights were made of, are forecast by both. One that has lost too much there is brought back
towards the shipped weights until it has not: distance is counted in forecasts, not in weights
(Benjamin et al. 2019, "Measuring and regularizing networks in function space"), and weights
in between keep most of both (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.model.synthetic.mixture import sample
from freshet.model.training.train import held_out_loss, interpolate

# Loss on the fixed windows that all promotions together may cost, in shares of the shipped
# weights' loss. Chosen on `bench/schedule.py`, where Rossmann loses twice as much.
MAX_FORGOTTEN = 0.008
# How much of the way is kept, the most first.
KEPT = (1.0, 0.75, 0.5, 0.25, 0.0)
# A champion that was made here has forgotten `most`, and by other processors or releases a little
# more; what has forgotten more than twice that was not.
OURS = 2.0
# No step of pre-training draws these.
FIRST_SEED = 2**41
BATCHES, ROWS = 16, 32  # each of one resolution

Anchor = tuple[Batch, Tensor]


def fixed_anchors(config: FreshetConfig) -> tuple[Anchor, ...]:
    """Contexts and actuals of synthetic shops at several resolutions; the same ones for ever."""
    return _drawn(config.context_length, config.prediction_length)


def lost(network: FreshetNetwork, stopped: Callable[[], None] = lambda: None) -> float:
    """What a network loses on the fixed anchors, each window on its own scale; blocks a second.

    Args:
        network: Wherever it is.
        stopped: Called before every pass; may raise to give up.
    """
    total = 0.0
    for anchor in fixed_anchors(network.config):
        stopped()
        total += held_out_loss(network, *anchor)
    return total


def tethered(
    network: FreshetNetwork,
    champion: FreshetNetwork,
    base: FreshetNetwork,
    *,
    most: float = MAX_FORGOTTEN,
    stopped: Callable[[], None] = lambda: None,
) -> tuple[FreshetNetwork, float]:
    """The network, brought back towards the base as far as it has forgotten more than `most`.

    Where the champion has forgotten far more than that (a person promoted it, and it need not
    descend from the base), towards the champion, until it has forgotten no more than that.

    Returns:
        What may be served, and how much of the way from there it kept: 1 where nothing changed.
    """
    before = lost(base, stopped)
    spent = lost(champion, stopped) / before - 1.0
    start, most = (base, most) if spent <= OURS * most else (champion, spent)
    for kept in KEPT:
        candidate = network if kept == 1.0 else _between(start, network, kept)
        if kept == 0.0 or lost(candidate, stopped) / before - 1.0 <= most:
            return candidate, kept
    raise AssertionError("the last one is where it starts")


def _between(start: FreshetNetwork, network: FreshetNetwork, kept: float) -> FreshetNetwork:
    mixed = interpolate(start, network, kept)
    with torch.no_grad():
        for parameter in mixed.parameters():
            # As it will be read back.
            parameter.copy_(parameter.bfloat16())
    return mixed


@lru_cache(maxsize=2)
def _drawn(context_length: int, prediction_length: int) -> tuple[Anchor, ...]:
    return tuple(
        sample(
            torch.Generator().manual_seed(FIRST_SEED + number),
            ROWS,
            context_length=context_length,
            prediction_length=prediction_length,
        )
        for number in range(BATCHES)
    )
