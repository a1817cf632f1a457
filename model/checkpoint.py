"""What files alone say of weights, without torch: which ship, and whether a folder is whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from freshet.stream.errors import WeightsError

BASE_WEIGHTS: Final = Path(__file__).parent / "weights_base"
WEIGHTS_FILE: Final = "model.safetensors"
CONFIG_FILE: Final = "config.json"
GOLDEN_FILE: Final = "golden.safetensors"
CARD_FILE: Final = "README.md"
MODEL_TYPE: Final = "freshet"
HORIZON_MAX: Final = 1_024
"""The most steps of one forecast, whatever the weights."""
CORRUPT_HINT: Final = "it is truncated or corrupt; fetch it again"


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, or of the weights inside a directory, in hexadecimal."""
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise WeightsError(
            f"no weights at {file}", hint="name a directory that holds model.safetensors"
        )
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_whole(directory: Path) -> str:
    """The sha256 of weights whose config is ours and whose files are as long as they say.

    Raises:
        WeightsError: A file is missing, truncated or of another kind.
    """
    sha256 = sha256_of(directory)
    fields_of(directory)
    for name in (WEIGHTS_FILE, GOLDEN_FILE):
        _check_header(directory / name)
    return sha256


def fields_of(directory: Path) -> dict[str, Any]:
    """What the config of weights says.

    Raises:
        WeightsError: It cannot be read, or is of another kind of model.
    """
    path = directory / CONFIG_FILE
    try:
        fields = json.loads(path.read_text())
        kind = fields.pop("model_type", None)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} is not a readable config: {error}", hint="restore it or save again"
        ) from error
    if kind != MODEL_TYPE:
        raise WeightsError(f"{path} describes a {kind!r} model, expected {MODEL_TYPE!r}")
    return dict(fields)


def _check_header(path: Path) -> None:
    """A safetensors file says in its header how long it is."""
    try:
        with safe_open(path, framework="numpy") as tensors:
            tensors.keys()
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be read as safetensors: {error}", hint=CORRUPT_HINT
        ) from error
