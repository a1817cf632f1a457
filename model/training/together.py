"""Several processes that train one network: each computes gradients of its rows, all step alike.

All draw the same windows, by the same seed, and take every step with the sum of all gradients, so
that their weights stay the same numbers, and those of one process but for the order in which sums
are added up (data parallel: Goyal et al. 2017). Only the first of them writes and speaks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of one training, and which of them this one is."""

    place: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes and speaks."""
        return self.place == 0

    def share(self, rows: int, device: torch.device | str) -> Tensor:
        """Which of so many rows this process computes; none where there are fewer than processes.

        >>> Team(1, 2).share(5, "cpu").tolist()
        [1, 3]
        """
        return torch.arange(rows, device=device)[self.place :: self.size]

    def add_up(self, parameters: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Give each parameter the sum of all processes' gradients; the sum of their losses."""
        if self.size == 1:
            return loss
        total = loss.detach().clone()
        distributed.all_reduce(total)
        had_P = torch.tensor([p.grad is not None for p in parameters], device=loss.device)
        had_P = had_P.float()
        distributed.all_reduce(had_P)
        for parameter, had in zip(parameters, had_P.tolist(), strict=True):
            # What no process learns keeps no gradient, so that it does not decay either.
            if had:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                distributed.all_reduce(parameter.grad)
        return total

    def agreed(self, value: float, device: torch.device | str = "cpu") -> float:
        """The first process's number: who stops earlier than others would leave them waiting."""
        if self.size == 1:
            return value
        told = torch.tensor([value], dtype=torch.float64, device=device)
        distributed.broadcast(told, 0)
        return float(told)

    def meet(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()


ALONE = Team()
_TEAM: ContextVar[Team] = ContextVar("team", default=ALONE)


def team() -> Team:
    """The processes that this one trains with: itself alone outside `joined`."""
    return _TEAM.get()


@contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[Team]:
    """This process as one of those that `accelerate launch` or `torchrun` started, if they did.

    Args:
        environment: holds WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT then.
    """
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(environment["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if gpu else "gloo")
    token = _TEAM.set(Team(distributed.get_rank(), size))
    try:
        yield team()
    finally:
        _TEAM.reset(token)
        distributed.destroy_process_group()
