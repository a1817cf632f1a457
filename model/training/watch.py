"""Ways to watch training: a bar for people, scalars for TensorBoard, MLflow and W&B."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from freshet.stream.bars import Bar
from freshet.stream.errors import InvalidInputError

Report = dict[str, float]
SCALARS = ("loss", "held_out_loss", "held_out_skill", "learning_rate")
TRACKERS = ("mlflow", "wandb")
PROJECT = "freshet"


class Watch:
    """Shows the loss of the last step, and the newest word on what no step learns from."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self.loss = ""
        self.held_out = ""

    def advanced(self, step: int, loss: Tensor | float) -> None:
        """Show the steps made so far and, every tenth time, that step's loss."""
        # A number that is asked for makes the GPU wait.
        if step % 10 == 0 and self.bar.shown:
            self.loss = f"loss {float(loss):.4f}"
        self._show(step)

    def reported(self, step: int, held_out: str) -> None:
        """Show what is said of the hold-out."""
        self.held_out = f"held-out {held_out}"
        self._show(step)

    def _show(self, step: int) -> None:
        self.bar.done(step, "  ".join(filter(None, [self.loss, self.held_out])))


@contextmanager
def board(
    folder: Path, trackers: Sequence[str] = (), facts: Mapping[str, Any] | None = None
) -> Iterator[Callable[[Report], None]]:
    """Writes a report's scalars, those of SCALARS that it has.

    Args:
        folder: for TensorBoard, where that is installed.
        trackers: of TRACKERS, where else they go; their servers are named by their own environment
            (MLFLOW_TRACKING_URI, WANDB_MODE, ...).
        facts: settings of the run, for them.

    Raises:
        InvalidInputError: there is no such tracker, or it is not installed.
    """
    with ExitStack() as stack:
        writers = [stack.enter_context(_tracker(name, facts or {})) for name in trackers]
        writers += stack.enter_context(_tensorboard(folder))

        def write(report: Report) -> None:
            scalars = {name: report[name] for name in SCALARS if name in report}
            for writer in writers:
                writer(scalars, int(report["step"]))

        yield write


Writer = Callable[[dict[str, float], int], None]


@contextmanager
def _tensorboard(folder: Path) -> Iterator[list[Writer]]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield []
        return
    with SummaryWriter(str(folder)) as board:

        def write(scalars: dict[str, float], step: int) -> None:
            for name, value in scalars.items():
                board.add_scalar(name, value, step)
            board.flush()

        yield [write]


@contextmanager
def _tracker(name: str, facts: Mapping[str, Any]) -> Iterator[Writer]:
    """One of accelerate's trackers, which are kept where the trackers' own doors change."""
    if name not in TRACKERS:
        raise InvalidInputError(
            f"there is no tracker {name!r}", hint=f"choose from {', '.join(TRACKERS)}"
        )
    try:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        tracker = LOGGER_TYPE_TO_CLASS[name](PROJECT)
        tracker.start()
    except ImportError as error:
        raise InvalidInputError(
            f"{name} cannot be told of the training: {error}",
            hint="pip install 'freshet[train,tracking]'",
        ) from None
    tracker.store_init_configuration({key: _plain(value) for key, value in facts.items()})
    try:
        yield lambda scalars, step: tracker.log(scalars, step=step)
    finally:
        tracker.finish()


def _plain(value: Any) -> Any:
    """What every tracker takes as a setting."""
    return value if isinstance(value, (bool, int, float, str)) else str(value)
