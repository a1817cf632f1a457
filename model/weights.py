"""Weights as files: written with a golden forecast beside them, verified before anyone uses them.

A directory of weights holds `config.json`, `model.safetensors` (bf16), `golden.safetensors` (what
these weights forecast for `golden_batch`) and `README.md` (the model card). Nothing is pickled.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from freshet.model import adapter
from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.checkpoint import (
    BASE_WEIGHTS,
    CARD_FILE,
    CONFIG_FILE,
    CORRUPT_HINT,
    GOLDEN_FILE,
    WEIGHTS_FILE,
    fields_of,
    sha256_of,
)
from freshet.model.features import EFFECT, to_units
from freshet.model.network import FreshetConfig, FreshetNetwork
from freshet.stream.errors import InvalidInputError, WeightsError
from freshet.stream.units import HOUR_MS

# Two float32 machines differ by about 1e-5 of a forecast; one flipped weight bit differs by more
# than this.
GOLDEN_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Verified:
    """Weights that passed every check.

    Attributes:
        sha256: of `model.safetensors`, hexadecimal.
        num_parameters: how many numbers the network has.
        network: the verified network in float32, evaluation mode.
    """

    sha256: str
    num_parameters: int
    network: FreshetNetwork


def golden_batch(config: FreshetConfig) -> Batch:
    """A small batch from integer arithmetic alone: the same on every machine and version.

    Four rows with counts, gaps, covariates and text; the third has no history at all.
    """
    rows, context = 4, min(8 * config.patch_length, config.context_length)
    steps = context + min(2 * config.patch_length, config.prediction_length)
    known_BSK = _scramble((rows, steps, len(KNOWN_SLOTS)), 1) / 64.0
    known_BSK[..., 0] = 0.5 + known_BSK[..., 0] / 32.0
    known_BSK[..., 1:EFFECT] = (known_BSK[..., 1:EFFECT] > 12.0).float()
    known_BSK[..., EFFECT] = known_BSK[..., EFFECT] / 32.0 - 0.25
    target_BT = _scramble((rows, context), 2) // (8 * 4 ** torch.arange(rows)[:, None])
    target_BT[1, context // 3 : context // 2] = math.nan
    target_BT[2] = math.nan
    past_BTP = _scramble((rows, context, len(PAST_SLOTS)), 3) // 16
    past_BTP[3] = math.nan
    static_BF = (_scramble((rows, config.num_static), 4) - 512.0) / 8192.0
    start_ms_B = 1_700_000_000_000 // HOUR_MS * HOUR_MS + torch.arange(rows) * 7 * HOUR_MS
    return Batch(target_BT, past_BTP, known_BSK, static_BF, start_ms_B, HOUR_MS)


def _scramble(shape: tuple[int, ...], seed: int) -> Tensor:
    """Whole numbers from 0 to 1,023 without visible order, as float32."""
    index = torch.arange(math.prod(shape), dtype=torch.int64) + seed * 1_000_003
    mixed = (index * 2_654_435_761) % 2**32
    mixed = ((mixed ^ (mixed >> 15)) * 2_246_822_519) % 2**32
    return ((mixed >> 13) % 1024).float().reshape(shape)


def save_weights(network: FreshetNetwork, directory: Path, *, card: str) -> str:
    """Write weights in bf16, config, golden forecast and model card; return the weights' sha256.

    Durable effects, in order: config, card, golden forecast, weights last, so that a directory with
    weights is complete. The golden forecast is that of the weights as stored, after rounding to
    bf16.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = FreshetConfig.from_dict(network.config.to_dict())
    state = {
        name: value.detach().cpu().to(torch.bfloat16).contiguous()
        for name, value in network.state_dict().items()
    }
    stored = _build(config, state)
    described = config.to_diff_dict() | {
        "architectures": [FreshetNetwork.__name__],
        "dtype": "bfloat16",
    }
    (directory / CONFIG_FILE).write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    (directory / CARD_FILE).write_text(card)
    # Through write_bytes, since save_file makes files that only their owner may read.
    (directory / GOLDEN_FILE).write_bytes(save({"quantiles_BHQ": golden_forecast(stored)}))
    (directory / WEIGHTS_FILE).write_bytes(save(state, metadata={"format": "pt"}))
    return sha256_of(directory)


def verify_weights(directory: Path, expected_sha256: str | None = None) -> Verified:
    """Load weights and prove that they do what they did when they were saved.

    Raises:
        WeightsError: a file is missing, truncated or not safetensors; the sha256 is not the
            expected one; names or shapes do not fit the config; a value is not finite; the golden
            forecast differs by more than GOLDEN_TOLERANCE.
    """
    verified = _loaded(directory, expected_sha256)
    _check_golden(directory, verified.network)
    return verified


def load_weights(directory: Path) -> Verified:
    """Load weights that may have no golden forecast, as transformers saves them, or an adapter.

    Raises:
        WeightsError: as `verify_weights`, where there is one; an adapter's base is missing or is
            another one.
    """
    if adapter.holds_adapter(directory):
        base, sha256 = adapter.base_of(directory)
        verified = verify_weights(BASE_WEIGHTS if base == adapter.SHIPPED else Path(base), sha256)
        adapter.add(verified.network, directory)
        return replace(verified, sha256=sha256_of(directory / adapter.TENSORS_FILE))
    if (directory / GOLDEN_FILE).exists():
        return verify_weights(directory)
    return _loaded(directory, None)


def _loaded(directory: Path, expected_sha256: str | None) -> Verified:
    """Weights that fit their config."""
    found = sha256_of(directory)
    if expected_sha256 is not None and found != expected_sha256:
        raise WeightsError(
            f"{directory / WEIGHTS_FILE} has sha256 {found}, expected {expected_sha256}",
            hint="the file was altered or belongs to another version",
        )
    config = read_config(directory)
    state = _read_tensors(directory / WEIGHTS_FILE)
    _check_state(directory, config, state)
    network = _build(config, state)
    return Verified(found, sum(p.numel() for p in network.parameters()), network)


def read_config(directory: Path) -> FreshetConfig:
    """Read a weights directory's config, or raise WeightsError."""
    fields = fields_of(directory)
    try:
        return FreshetConfig(**fields)
    except (ValueError, TypeError, AttributeError, InvalidInputError) as error:
        raise WeightsError(
            f"{directory / CONFIG_FILE} is not a readable config: {error}",
            hint="restore it or save again",
        ) from error


@torch.no_grad()
def golden_forecast(network: FreshetNetwork) -> Tensor:
    """The quantiles, in units, that a network gives for the golden batch, without a ceiling.

    Its covariates are wild, and where a ceiling hides what they do, it hides faults as well.
    """
    output = network(*golden_batch(network.config).arguments())
    return to_units(output.z_BHQ, output.scaling)


def _build(config: FreshetConfig, state: dict[str, Tensor]) -> FreshetNetwork:
    network = FreshetNetwork(config)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    network.train(mode=False)
    return network


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be read as safetensors: {error}", hint=CORRUPT_HINT
        ) from error


def _check_state(directory: Path, config: FreshetConfig, state: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        expected = {
            name: tuple(value.shape) for name, value in FreshetNetwork(config).state_dict().items()
        }
    found = {name: tuple(value.shape) for name, value in state.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise WeightsError(
                f"{directory / WEIGHTS_FILE} holds {name} with shape {found.get(name)}, "
                f"its config.json expects {expected.get(name)}",
                hint="config and weights belong to different versions",
            )
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise WeightsError(
                f"{directory / WEIGHTS_FILE} holds a value in {name} that is not finite"
            )


def _check_golden(directory: Path, network: FreshetNetwork) -> None:
    """Refuse weights that do not forecast what they did when they were saved."""
    stored = _read_tensors(directory / GOLDEN_FILE).get("quantiles_BHQ")
    found = golden_forecast(network)
    if stored is None or stored.shape != found.shape:
        shape = None if stored is None else tuple(stored.shape)
        expected = tuple(found.shape)
        raise WeightsError(
            f"{directory / GOLDEN_FILE} holds a forecast of shape {shape}, expected {expected}"
        )
    error = float(((found - stored).abs() / (1.0 + stored.abs())).max())
    if not error <= GOLDEN_TOLERANCE:
        raise WeightsError(
            f"the weights in {directory} differ from their golden forecast by {error:.2g}, "
            f"tolerated is {GOLDEN_TOLERANCE:g}",
            hint="the weights, or the code that runs them, are not those that were saved",
        )
