"""Where a network computes: the device that was asked for, if it is there."""

from __future__ import annotations

from typing import Any

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


def take_at_most(device: str, memory_share: float, cuda: Any = torch.cuda) -> None:
    """Leave the rest of a GPU's memory to others: beyond the share this process fails, not they.

    Its kernels wait for those of `go_first` already: streams have the lowest priority by default.

    Args:
        device: as `pick_device` gives it; others than GPUs are left alone.
        memory_share: of all memory, above 0.
        cuda: torch's own, but for tests.
    """
    asked = torch.device(device)
    if asked.type == "cuda":
        cuda.set_per_process_memory_fraction(memory_share, asked)


def go_first(device: str, cuda: Any = torch.cuda) -> None:
    """Let this thread's kernels go before others that wait for the same GPU.

    What was begun before is over before the first of them. CUDA heeds priorities within a process,
    and between processes where its Multi-Process Service runs.

    Args:
        device: as for `take_at_most`.
        cuda: torch's own, but for tests.
    """
    asked = torch.device(device)
    if asked.type == "cuda":
        urgent = cuda.Stream(asked, priority=-1)
        urgent.wait_stream(cuda.current_stream(asked))
        cuda.set_stream(urgent)
