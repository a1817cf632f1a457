"""The door to a trained network: batches in, sorted quantiles in units out.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, Q quantile levels.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from freshet.model.batch import QUANTILE_LEVELS, Batch
from freshet.model.checkpoint import BASE_WEIGHTS, HORIZON_MAX
from freshet.model.devices import pick_device
from freshet.model.levels import at_levels
from freshet.model.local_clock import even
from freshet.model.network import FreshetNetwork, FreshetOutput
from freshet.model.threads import fitting_threads
from freshet.model.weights import golden_batch, verify_weights
from freshet.stream.errors import InvalidInputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# bf16 must win clearly, since it costs two digits: on CPUs without the instructions it is many
# times slower.
BF16_MUST_WIN_BY = 1.2
# What is computed at a time: on a CPU as much as its cache holds, and no less than a whole group.
CPU_ROWS = 32
GPU_ROWS = 512


class BatchForecaster:
    """A network ready to forecast on one device.

    Forecasting neither changes the network nor keeps gradients, and treats rows without a group
    each alone: a batch equals its rows one by one up to rounding.

    Args:
        network: becomes the forecaster's own.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        dtype: "float32", "bfloat16", or "auto": bfloat16 where a probe shows it to be faster.
        sha256: of the weights.
        compiled: whether rows without a group go through torch.compile: 1.5 times as fast on a CPU,
            after a minute or more for each new pair of lengths (and up to eight of them).
    """

    def __init__(
        self,
        network: FreshetNetwork,
        *,
        device: str = "auto",
        dtype: str = "auto",
        sha256: str = "",
        compiled: bool = False,
    ) -> None:
        self.device = torch.device(pick_device(device))
        self.network = network
        self.network.train(mode=False)
        self.network.to(self.device)
        self.dtype = pick_dtype(self.network, dtype)
        self.network.to(dtype=self.dtype)
        self.sha256 = sha256
        self._compiled = torch.compile(self.network, dynamic=False) if compiled else None

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        *,
        compiled: bool = False,
    ) -> Self:
        """Verify and load a directory of weights; without a path the ones that ship with freshet.

        Args:
            path: a directory written by `freshet.model.weights.save_weights`.
            device: as for the class, like `dtype` and `compiled`.

        Raises:
            WeightsError: the weights are missing, corrupt or do not compute what they should.
        """
        verified = verify_weights(BASE_WEIGHTS if path is None else Path(path))
        return cls(
            verified.network, device=device, dtype=dtype, sha256=verified.sha256, compiled=compiled
        )

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        """The probabilities of the last dimension of a forecast, rising."""
        return tuple(self.network.config.quantile_levels)

    @property
    def prediction_length_max(self) -> int:
        """Steps that the network was trained for; `freshet.model.beyond` goes further."""
        return int(self.network.config.prediction_length)

    @property
    def context_length(self) -> int:
        """The most history that is used; older steps are ignored."""
        return int(self.network.config.context_length)

    @torch.no_grad()
    def forecast(self, batch: Batch, *, max_rows: int | None = None) -> Tensor:
        """Return quantiles in units, sorted and >= 0: float32 [B, H, Q] on the forecaster's device.

        Any context length will do: a longer one is cut to the newest steps, others are padded on
        the left. Beyond the steps that the network was trained for the fan goes on widening
        (`freshet.model.beyond`). A row without history gets a forecast from its static features
        alone. At most `max_rows` rows (and whole groups) are computed at a time: by default 32 on a
        CPU, which its cache holds, 512 elsewhere.

        Raises:
            InvalidInputError: shapes do not fit together, or the horizon exceeds HORIZON_MAX.
        """
        asked, place_BH = even(batch.validate())
        batch = self._fit(asked)
        shape = (len(batch), batch.prediction_length, len(self.quantile_levels))
        quantiles_BHQ = torch.empty(shape, device=self.device)
        if max_rows is None:
            max_rows = CPU_ROWS if self.device.type == "cpu" else GPU_ROWS
        with torch.inference_mode(), fitting_threads(len(batch)):
            for index in micro_batches(batch, max_rows, self.network.config.max_group_rows):
                quantiles_BHQ[index.to(self.device)] = self._compute(batch, index, max_rows)
        if place_BH is None:
            quantiles_BHQ = quantiles_BHQ[:, : asked.prediction_length]
        else:
            index_BHQ = place_BH.to(self.device)[..., None].expand(-1, -1, shape[2])
            quantiles_BHQ = quantiles_BHQ.gather(1, index_BHQ)
        quantiles_BHQ = with_siblings(quantiles_BHQ, asked, self.quantile_levels)
        if asked.factor_B is None:
            return quantiles_BHQ
        return quantiles_BHQ / asked.factor_B.to(self.device)[:, None, None]

    def _compute(self, batch: Batch, index: Tensor, max_rows: int) -> Tensor:
        """Quantiles of some rows; what was compiled knows two sizes, one row and `max_rows`."""
        if self._compiled is None or batch.group_B is not None:
            part = batch.rows(index).to(self.device)
            output: FreshetOutput = self.network(*part.arguments())
            return output.units()
        # Filled up with the last row again.
        spare = index[-1:].repeat(max_rows - len(index) if len(index) > 1 else 0)
        part = batch.rows(torch.cat([index, spare])).to(self.device)
        padded_output: FreshetOutput = self._compiled(*part.arguments())
        return padded_output.units()[: len(index)]

    def _fit(self, batch: Batch) -> Batch:
        """The batch with as much context and horizon as the network's patches need."""
        config, horizon = self.network.config, batch.prediction_length
        if horizon > HORIZON_MAX:
            raise InvalidInputError(
                f"a horizon of {horizon} steps was asked for, a forecast reaches {HORIZON_MAX}",
                hint="ask for fewer steps, or for longer buckets (a coarser resolution)",
            )
        if batch.static_BF.shape[1] != config.num_static:
            raise InvalidInputError(
                f"static_BF has {batch.static_BF.shape[1]} features, these weights expect "
                f"{config.num_static}",
                hint="make them with freshet.model.text.static_features",
            )
        batch = newest(batch, self.context_length)
        return padded(
            batch,
            left=-batch.context_length % config.patch_length,
            right=-horizon % config.patch_length,
        )


def with_siblings(own_BHQ: Tensor, batch: Batch, quantile_levels: tuple[float, ...]) -> Tensor:
    """Quantiles between a row's own and those of its siblings, where the batch has them.

    Quantiles are averaged, not chances (Vincent), so that what both agree on stays.
    """
    if batch.own_B is None or batch.pooled_BHQ is None:
        return own_BHQ
    pooled_BHQ = batch.pooled_BHQ.to(own_BHQ)
    if quantile_levels != QUANTILE_LEVELS:
        pooled_BHQ = _at_levels(pooled_BHQ, quantile_levels)
    own_B11 = batch.own_B.to(own_BHQ)[:, None, None]
    mixed_BHQ = own_B11 * own_BHQ + (1.0 - own_B11) * pooled_BHQ
    # A network that was told nothing may say anything.
    mixed_BHQ = torch.where(own_B11 == 0.0, pooled_BHQ, mixed_BHQ)
    return torch.where(own_B11 == 1.0, own_BHQ, mixed_BHQ)


def _at_levels(pooled_BHQ: Tensor, quantile_levels: tuple[float, ...]) -> Tensor:
    """Of siblings, quantiles at other levels."""
    given_BHQ = pooled_BHQ.cpu().double().numpy()
    found_BHQ = at_levels(given_BHQ, np.array(QUANTILE_LEVELS), np.array(quantile_levels))
    return torch.from_numpy(found_BHQ).to(pooled_BHQ)


def newest(batch: Batch, context_length: int) -> Batch:
    """The batch without steps older than the newest `context_length`."""
    cut = max(batch.context_length - context_length, 0)
    return replace(
        batch,
        target_BT=batch.target_BT[:, cut:],
        past_BTP=batch.past_BTP[:, cut:],
        known_BSK=batch.known_BSK[:, cut:],
        start_ms_B=batch.start_ms_B + cut * batch.resolution_ms,
    )


def padded(batch: Batch, *, left: int, right: int) -> Batch:
    """The batch with missing steps before its context and after its horizon."""
    return replace(
        batch,
        target_BT=F.pad(batch.target_BT, (left, 0), value=math.nan),
        past_BTP=F.pad(batch.past_BTP, (0, 0, left, 0), value=math.nan),
        known_BSK=F.pad(batch.known_BSK, (0, 0, left, right), value=math.nan),
        start_ms_B=batch.start_ms_B - left * batch.resolution_ms,
    )


def micro_batches(batch: Batch, max_rows: int, max_group_rows: int) -> Iterator[Tensor]:
    """Row indices of at most `max_rows` each; related rows stay together.

    Raises:
        InvalidInputError: `max_rows` is below one, or a group has more rows than `max_group_rows`
            or `max_rows`.
    """
    if max_rows < 1:
        raise InvalidInputError(f"max_rows is {max_rows}; expected at least 1")
    if batch.group_B is None:
        yield from torch.split(torch.arange(len(batch)), max_rows)
        return
    order = batch.group_B.cpu().argsort(stable=True)
    sizes = np.unique(batch.group_B.cpu().numpy(), return_counts=True)[1].tolist()
    if max(sizes, default=0) > min(max_group_rows, max_rows):
        raise InvalidInputError(
            f"a group has {max(sizes)} related rows; expected at most "
            f"{min(max_group_rows, max_rows)}",
            hint="split it, nearest relatives together",
        )
    start = end = 0
    for size in sizes:
        if end + size - start > max_rows:
            yield order[start:end]
            start = end
        end += size
    yield order[start:end]


def device_of(device_map: Any) -> str:
    """A device by what transformers calls one: its name, torch's own, or a map of all modules.

    Raises:
        InvalidInputError: it is none, or several.
    """
    if isinstance(device_map, dict):
        devices = {str(device) for device in device_map.values()}
        if len(devices) != 1:
            raise InvalidInputError(
                f"device_map names {len(devices)} devices; expected one", hint='such as "cuda"'
            )
        device_map = devices.pop()
    name = f"cuda:{device_map}" if isinstance(device_map, int) else str(device_map)
    if name != "auto":
        try:
            torch.device(name)
        except RuntimeError:
            raise InvalidInputError(
                f"there is no device {name!r}", hint="say auto, cpu, cuda or mps"
            ) from None
    return name


def dtype_of(dtype: Any) -> str:
    """The name of a type of numbers, also of torch's own: torch.bfloat16 is "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def pick_dtype(network: FreshetNetwork, dtype: str) -> torch.dtype:
    """ "auto" as bfloat16 where a probe on this machine shows it clearly faster, else float32.

    Raises:
        InvalidInputError: the name is none of "auto", "float32" and "bfloat16".
    """
    if dtype in DTYPES:
        return DTYPES[dtype]
    if dtype != "auto":
        raise InvalidInputError(f"dtype is {dtype!r}; expected auto, {', '.join(DTYPES)}")
    exact_s = _probe_s(copy.deepcopy(network).to(dtype=torch.float32))
    rounded_s = _probe_s(copy.deepcopy(network).to(dtype=torch.bfloat16))
    return torch.bfloat16 if exact_s > BF16_MUST_WIN_BY * rounded_s else torch.float32


@torch.no_grad()
def _probe_s(network: FreshetNetwork) -> float:
    """Seconds of the fastest of a few small forecasts."""
    device = next(network.parameters()).device
    batch = golden_batch(network.config).rows(torch.arange(64) % 4).to(device)
    times = []
    for _ in range(4):
        started = time.perf_counter()
        network(*batch.arguments()).z_BHQ.sum().item()
        times.append(time.perf_counter() - started)
    return min(times)
