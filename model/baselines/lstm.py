"""A small LSTM with a quantile head, trained on the window's own past: what a shop tries first.

It reads the newest steps with their covariates, then runs on over the horizon with the target left
out. Dimensions: N series, T context steps, H horizon steps, S = T + H, C steps read, B rows of a
batch, F inputs, D levels of its own, Q levels asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from freshet.model.baselines.adapters import at_normal_levels
from freshet.model.baselines.tidy import tidy
from freshet.model.effects.closed import closed_steps
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.units import DAY_MS

# Deciles, and what lies at the edges of bands of 90 and 98 %.
LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
HIDDEN = 48
LONGEST_READ = 128
STEPS = 300
BATCH = 64
LEARNING_RATE = 5e-3
FARTHEST = 5.0  # log units above a row's middle at which a forecast has run away
ROWS_AT_ONCE = 1_024
YEAR_DAYS = 365.25


class Network(nn.Module):
    """Quantiles of the last steps of what it reads."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.cells = nn.LSTM(inputs, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, len(LEVELS))

    def forward(self, inputs_BSF: Tensor, horizon: int) -> Tensor:
        """Sorted quantiles of the scaled target: [B, H, D]."""
        hidden_BSX, _ = self.cells(inputs_BSF)
        quantiles_BHD: Tensor = self.head(hidden_BSX[:, -horizon:])
        return quantiles_BHD.sort(-1).values


@dataclass(frozen=True, slots=True)
class Encoded:
    """A window as the network sees it, before a cutoff is chosen."""

    log_NT: Floats
    others_NSF: Floats
    closed_NS: Bools
    read: int

    @classmethod
    def of(cls, window: Window) -> Encoded:
        """Logarithms of the target without closed steps; covariates and calendar of every step."""
        T = window.context_length
        closed_NS = closed_steps(window)
        # Covariates come in any unit, and the newest ones may lie outside of what was seen before.
        known_NSK = np.nan_to_num(window.known_NSK)
        past_NTK = known_NSK[:, :T]
        middle_K = past_NTK.mean((0, 1))
        spread_K = past_NTK.std((0, 1))
        spread_K = np.where(spread_K > 0, spread_K, 1.0)
        scaled_NSK = (known_NSK - middle_K) / spread_K
        scaled_NSK = scaled_NSK.clip(-5, 5)
        waves = _waves(window)
        own_NSF = np.stack([closed_NS, *waves], -1)
        others_NSF = np.concatenate([scaled_NSK, own_NSF], -1)
        # A closed step says nothing of demand.
        log_NT = np.log1p(window.target_NT)
        log_NT = np.where(closed_NS[:, :T], np.nan, log_NT)
        # It reads at least as much as it must forecast.
        wanted = max(LONGEST_READ - window.horizon, window.horizon)
        return cls(log_NT, others_NSF, closed_NS, read=min(T, wanted))

    def batch(self, rows_B: Ints, cutoff_B: Ints, horizon: int) -> tuple[Tensor, Floats, Floats]:
        """Inputs [B, C + H, F] around each row's cutoff; loc and scale of the target [B, 1]."""
        from_cutoff_S = np.arange(-self.read, horizon)
        steps_BS = cutoff_B[:, None] + from_cutoff_S
        rows_B1 = rows_B[:, None]
        before_BC = steps_BS[:, : self.read]
        log_BC = self.log_NT[rows_B1, before_BC.clip(0)]
        seen_BC = np.where(before_BC >= 0, log_BC, np.nan)
        loc_B1, scale_B1 = _scaling(seen_BC)
        scaled_BC = (seen_BC - loc_B1) / scale_B1
        # What is forecast is hidden, and its distance from the cutoff is told instead.
        hidden_BH = np.full((len(rows_B), horizon), np.nan)
        target_BS = np.concatenate([scaled_BC, hidden_BH], 1)
        ahead_S = from_cutoff_S.clip(0) / horizon
        ahead_BS = np.broadcast_to(ahead_S, target_BS.shape)
        # A gap is 0, the row's middle, and a flag of its own tells it from a value of 0.
        filled_BS = np.nan_to_num(target_BS)
        seen_BS = np.isfinite(target_BS)
        own_BSF = np.stack([filled_BS, seen_BS, ahead_BS], -1)
        others_BSF = self.others_NSF[rows_B1, steps_BS.clip(0)]
        both_BSF = np.concatenate([own_BSF, others_BSF], -1)
        inputs_BSF = torch.tensor(both_BSF, dtype=torch.float32)
        return inputs_BSF, loc_B1, scale_B1


def _waves(window: Window) -> list[Floats]:
    """Sine and cosine of the time of day, of the week and of the year: [N, S] each.

    Two numbers a phase, since one jumps where a cycle ends.
    """
    day_NS = window.time_ms_NS / DAY_MS
    waves = []
    for phase_NS in (day_NS % 1, day_NS / 7 % 1, day_NS / YEAR_DAYS % 1):
        angle_NS = 2 * np.pi * phase_NS
        waves.append(np.sin(angle_NS))
        waves.append(np.cos(angle_NS))
    return waves


def _scaling(seen_BC: Floats) -> tuple[Floats, Floats]:
    """Mean and spread of each row's seen values: [B, 1] each."""
    count_B1 = np.isfinite(seen_BC).sum(1, keepdims=True)
    count_B1 = np.maximum(count_B1, 1)
    loc_B1 = np.nansum(seen_BC, 1, keepdims=True) / count_B1
    deviation_BC = seen_BC - loc_B1
    square_B1 = np.nansum(deviation_BC**2, 1, keepdims=True) / count_B1
    # A tenth of a log unit keeps a series that never changes from being divided by zero.
    return loc_B1, np.sqrt(square_B1) + 0.1


class Lstm:
    """One network for all series of a window."""

    name = "lstm"
    needs_fit = True

    def __init__(self, steps: int = STEPS, seed: int = 0) -> None:
        self._steps = steps
        self._seed = seed
        self._network: Network | None = None

    def fit(self, window: Window) -> None:
        """A few hundred steps of gradient descent on random rows and cutoffs of the past."""
        horizon = min(window.horizon, window.context_length - 1)
        if horizon < 1:
            return
        encoded = Encoded.of(window)
        random = np.random.default_rng(self._seed)
        # The weights start the same every time, and nobody else's random numbers change for it.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            network = Network(3 + encoded.others_NSF.shape[2])
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._steps)
        last_cutoff = window.context_length - horizon
        for _ in range(self._steps):
            rows_B = random.integers(0, len(window), BATCH)
            cutoff_B = random.integers(1, last_cutoff + 1, BATCH)
            loss = _loss(network, encoded, rows_B, cutoff_B, horizon)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        self._network = network

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q], 0 on closed steps; each series' mean where it could not learn."""
        if self._network is None:
            shape = (len(window), window.horizon, len(levels))
            unknown_NHQ = np.full(shape, np.nan)
            return tidy(unknown_NHQ, window)
        encoded = Encoded.of(window)
        parts = []
        for start in range(0, len(window), ROWS_AT_ONCE):
            end = min(start + ROWS_AT_ONCE, len(window))
            rows_B = np.arange(start, end)
            cutoff_B = np.full(len(rows_B), window.context_length)
            inputs_BSF, loc_B1, scale_B1 = encoded.batch(rows_B, cutoff_B, window.horizon)
            with torch.inference_mode():
                own_BHD = self._network(inputs_BSF, window.horizon)
            z_BHQ = at_normal_levels(own_BHD.double().numpy(), LEVELS, levels)
            log_BHQ = z_BHQ * scale_B1[..., None] + loc_B1[..., None]
            # A network that runs away is stopped at some hundred times the usual sales.
            most_B11 = loc_B1[..., None] + FARTHEST
            parts.append(np.expm1(np.minimum(log_BHQ, most_B11)))
        quantiles_NHQ = np.concatenate(parts)
        closed_NH = encoded.closed_NS[:, window.context_length :]
        quantiles_NHQ[closed_NH] = 0.0
        return tidy(quantiles_NHQ, window)


def make(name: str) -> Lstm:
    """The only one."""
    return Lstm()


def _loss(
    network: Network,
    encoded: Encoded,
    rows_B: Ints,
    cutoff_B: Ints,
    horizon: int,
) -> Tensor:
    """Mean pinball loss over the steps that were seen, on each row's own scale."""
    inputs_BSF, loc_B1, scale_B1 = encoded.batch(rows_B, cutoff_B, horizon)
    steps_BH = cutoff_B[:, None] + np.arange(horizon)
    log_BH = encoded.log_NT[rows_B[:, None], steps_BH]
    scaled_BH = (log_BH - loc_B1) / scale_B1
    target_BH = torch.tensor(scaled_BH, dtype=torch.float32)
    seen_BH = torch.isfinite(target_BH)
    target_BH1 = target_BH.nan_to_num()[..., None]
    error_BHD = target_BH1 - network(inputs_BSF, horizon)
    # Too low costs the level, too high its complement: the least of it lies at the quantile.
    levels_D = torch.tensor(LEVELS)
    too_low_BHD = levels_D * error_BHD
    too_high_BHD = (levels_D - 1) * error_BHD
    loss_BHD = torch.maximum(too_low_BHD, too_high_BHD)
    loss_BH = loss_BHD.mean(-1) * seen_BH
    return loss_BH.sum() / seen_BH.sum().clamp(min=1)
