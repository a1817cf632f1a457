"""Ways to watch a pre-training run: a progress bar for people, scalars for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

Report = dict[str, float]
SCALARS = ("loss", "held_out_loss", "held_out_skill", "learning_rate")


class Bar:
    """Steps made of all, the loss of the last one and the newest skill on held-out windows."""

    def __init__(self, progress: Progress, steps: int) -> None:
        self.progress = progress
        self.task = progress.add_task("", total=steps, loss="", skill="")

    def advanced(self, step: int, loss: Tensor) -> None:
        """Show the steps made so far and, every tenth time, that step's loss."""
        # A number that is asked for makes the GPU wait.
        if step % 10 == 0 and not self.progress.disable:
            self.progress.update(self.task, loss=f"loss {float(loss):.4f}")
        self.progress.update(self.task, completed=step)

    def reported(self, report: Report) -> None:
        """Show a report's skill."""
        self.progress.update(self.task, skill=f"held-out skill {report['held_out_skill']:.3f}")


@contextmanager
def progress_bar(steps: int, console: Console | None = None) -> Iterator[Bar]:
    """A bar on standard error, silent where that is no terminal; printed lines stand above it."""
    console = Console(stderr=True) if console is None else console
    facts = TextColumn("{task.fields[loss]}"), TextColumn("{task.fields[skill]}")
    times = TimeElapsedColumn(), TimeRemainingColumn()
    columns = (BarColumn(), MofNCompleteColumn(), *facts, *times)
    # Standard output stays what it is: it may go to a file while the bar is looked at.
    with Progress(
        *columns, console=console, disable=not console.is_terminal, redirect_stdout=False
    ) as progress:
        yield Bar(progress, steps)


@contextmanager
def board(folder: Path) -> Iterator[Callable[[Report], None]]:
    """Writes a report's scalars for TensorBoard; does nothing where that is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda report: None
        return
    with SummaryWriter(str(folder)) as writer:

        def write(report: Report) -> None:
            for name in SCALARS:
                writer.add_scalar(name, report[name], int(report["step"]))
            writer.flush()

        yield write
