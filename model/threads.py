"""CPU threads of the network: no more than the process may use, and one for a few rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from freshet.stream.cores import usable_threads

FEW_ROWS = 8
"""Up to so many, threads wait longer for each other than they save."""


def use_threads(wanted: int = 0) -> int:
    """Set the threads of a process of ours, and return how many.

    Args:
        wanted: At most so many; 0 leaves it to PyTorch, which counts cores and OMP_NUM_THREADS.
            Neither goes beyond what the process may use.
    """
    threads = min(wanted or torch.get_num_threads(), usable_threads())
    torch.set_num_threads(threads)
    return threads


@contextmanager
def fitting_threads(num_rows: int) -> Iterator[None]:
    """Meanwhile, in this thread, no more threads than fit; afterwards as many as before.

    For whoever else uses PyTorch in this process: their number is theirs. It is only undercut while
    we compute, since PyTorch knows nothing of a container's quota.
    """
    before = torch.get_num_threads()
    fitting = 1 if num_rows <= FEW_ROWS else usable_threads()
    if before <= fitting:
        yield
        return
    torch.set_num_threads(fitting)
    try:
        yield
    finally:
        torch.set_num_threads(before)
