"""Where a network computes: the device that was asked for, if it is there."""

from __future__ import annotations

import torch

from freshet.stream.errors import ConfigError

OTHERS = 'say "auto" or "cpu" (worker.device, learn.device), or install a PyTorch built for it'


def pick_device(device: str) -> str:
    """ "auto" as a GPU where there is one, else the CPU; any other name as it is, if it is there.

    Raises:
        ConfigError: There is no such device here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        asked = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"there is no device {device!r}", hint=OTHERS) from None
    if asked.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{device!r} was asked for, and PyTorch finds no GPU", hint=OTHERS)
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(f"{device!r} was asked for; PyTorch finds {found} GPU(s)", hint=OTHERS)
    if asked.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"{device!r} was asked for, and this is no Mac with Metal", hint=OTHERS)
    return device
