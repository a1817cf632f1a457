"""A small LSTM with a quantile head, trained on the window's own past: what a shop tries first.

It reads the newest steps with their covariates, then runs on over the horizon with the target left
out. Dimensions: N series, T context steps, H horizon steps, S = T + H, C steps read, B rows of a
batch, F inputs, Q levels.
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

LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
HIDDEN = 48
LONGEST_READ = 128
STEPS, BATCH, LEARNING_RATE = 300, 64, 5e-3
ROWS_AT_ONCE = 1_024
YEAR_DAYS = 365.25


class Network(nn.Module):
    """Quantiles of the last steps of what it reads."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.cells = nn.LSTM(inputs, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, len(LEVELS))

    def forward(self, inputs_BSF: Tensor, horizon: int) -> Tensor:
        """Sorted quantiles of the scaled target: [B, H, Q]."""
        hidden_BSX, _ = self.cells(inputs_BSF)
        quantiles_BHQ: Tensor = self.head(hidden_BSX[:, -horizon:])
        return quantiles_BHQ.sort(-1).values


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
        known_NSK = np.nan_to_num(window.known_NSK)
        day_NS = window.time_ms_NS / DAY_MS
        phases = [day_NS % 1, day_NS / 7 % 1, day_NS / YEAR_DAYS % 1]
        waves = [wave(2 * np.pi * phase_NS) for phase_NS in phases for wave in (np.sin, np.cos)]
        # Covariates come in any unit, and the newest ones may lie outside of what was seen before.
        middle_K = known_NSK[:, :T].mean((0, 1))
        spread_K = known_NSK[:, :T].std((0, 1))
        scaled_NSK = ((known_NSK - middle_K) / np.where(spread_K > 0, spread_K, 1.0)).clip(-5, 5)
        others_NSF = np.concatenate([scaled_NSK, np.stack([closed_NS, *waves], -1)], -1)
        log_NT = np.where(closed_NS[:, :T], np.nan, np.log1p(window.target_NT))
        # It reads at least as much as it must forecast.
        read = min(T, max(LONGEST_READ - window.horizon, window.horizon))
        return cls(log_NT, others_NSF, closed_NS, read)

    def batch(self, rows_B: Ints, cutoff_B: Ints, horizon: int) -> tuple[Tensor, Floats, Floats]:
        """Inputs [B, C + H, F] around each row's cutoff; loc and scale of the target [B, 1]."""
        steps_BS = cutoff_B[:, None] + np.arange(-self.read, horizon)
        before_BC = steps_BS[:, : self.read]
        log_BC = self.log_NT[rows_B[:, None], before_BC.clip(0)]
        seen_BC = np.where(before_BC >= 0, log_BC, np.nan)
        loc_B1, scale_B1 = _scaling(seen_BC)
        scaled_BC = (seen_BC - loc_B1) / scale_B1
        # What is forecast is hidden, and its distance from the cutoff is told instead.
        target_BS = np.pad(scaled_BC, ((0, 0), (0, horizon)), constant_values=np.nan)
        ahead_S = np.arange(-self.read, horizon).clip(0) / horizon
        ahead_BS = np.broadcast_to(ahead_S, target_BS.shape)
        own_BSF = np.stack([np.nan_to_num(target_BS), np.isfinite(target_BS), ahead_BS], -1)
        others_BSF = self.others_NSF[rows_B[:, None], steps_BS.clip(0)]
        inputs_BSF = torch.tensor(np.concatenate([own_BSF, others_BSF], -1), dtype=torch.float32)
        return inputs_BSF, loc_B1, scale_B1


def _scaling(seen_BC: Floats) -> tuple[Floats, Floats]:
    """Mean and spread of each row's seen values: [B, 1] each."""
    count_B1 = np.maximum(np.isfinite(seen_BC).sum(1, keepdims=True), 1)
    loc_B1 = np.nansum(seen_BC, 1, keepdims=True) / count_B1
    square_B1 = np.nansum((seen_BC - loc_B1) ** 2, 1, keepdims=True) / count_B1
    # A tenth of a log unit keeps a series that never changes from being divided by zero.
    return loc_B1, np.sqrt(square_B1) + 0.1


class Lstm:
    """One network for all series of a window."""

    name = "lstm"
    needs_fit = True

    def __init__(self, steps: int = STEPS, seed: int = 0) -> None:
        self._steps, self._seed = steps, seed
        self._network: Network | None = None

    def fit(self, window: Window) -> None:
        """A few hundred steps of gradient descent on random rows and cutoffs of the past."""
        horizon = min(window.horizon, window.context_length - 1)
        if horizon < 1:
            return
        encoded = Encoded.of(window)
        random = np.random.default_rng(self._seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            network = Network(3 + encoded.others_NSF.shape[2])
        optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._steps)
        for _ in range(self._steps):
            rows_B = random.integers(0, len(window), BATCH)
            cutoff_B = random.integers(1, window.context_length - horizon + 1, BATCH)
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
            return tidy(np.full((len(window), window.horizon, len(levels)), np.nan), window)
        encoded, parts = Encoded.of(window), list[Floats]()
        for start in range(0, len(window), ROWS_AT_ONCE):
            rows_B = np.arange(start, min(start + ROWS_AT_ONCE, len(window)))
            cutoff_B = np.full(len(rows_B), window.context_length)
            inputs_BSF, loc_B1, scale_B1 = encoded.batch(rows_B, cutoff_B, window.horizon)
            with torch.inference_mode():
                z_BHQ = self._network(inputs_BSF, window.horizon).double().numpy()
            z_BHQ = at_normal_levels(z_BHQ, LEVELS, levels)
            log_BHQ = z_BHQ * scale_B1[..., None] + loc_B1[..., None]
            # A network that runs away is stopped at some hundred times the usual sales.
            parts.append(np.expm1(np.minimum(log_BHQ, loc_B1[..., None] + 5.0)))
        quantiles_NHQ = np.concatenate(parts)
        quantiles_NHQ[encoded.closed_NS[:, window.context_length :]] = 0.0
        return tidy(quantiles_NHQ, window)


def make(name: str) -> Lstm:
    """The only one."""
    return Lstm()


def _loss(network: Network, encoded: Encoded, rows_B: Ints, cutoff_B: Ints, horizon: int) -> Tensor:
    """Mean pinball loss over the steps that were seen, on each row's own scale."""
    inputs_BSF, loc_B1, scale_B1 = encoded.batch(rows_B, cutoff_B, horizon)
    log_BH = encoded.log_NT[rows_B[:, None], cutoff_B[:, None] + np.arange(horizon)]
    target_BH = torch.tensor((log_BH - loc_B1) / scale_B1, dtype=torch.float32)
    seen_BH = torch.isfinite(target_BH)
    error_BHQ = target_BH.nan_to_num()[..., None] - network(inputs_BSF, horizon)
    levels_Q = torch.tensor(LEVELS)
    loss_BHQ = torch.maximum(levels_Q * error_BHQ, (levels_Q - 1) * error_BHQ)
    return (loss_BHQ.mean(-1) * seen_BH).sum() / seen_BH.sum().clamp(min=1)
