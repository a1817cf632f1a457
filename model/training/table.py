"""Fine-tunes the network on a table and writes weights that every other command takes.

Dimensions: N series, T context steps, H horizon steps, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from freshet.model.adapter import SHIPPED, write_adapter
from freshet.model.batch import Batch
from freshet.model.effects.slots import dress
from freshet.model.forecaster import BatchForecaster
from freshet.model.network import FreshetNetwork
from freshet.model.tables.ahead import window_ahead
from freshet.model.tables.panel import Panel, Window
from freshet.model.tables.table import TableSettings, read_panel
from freshet.model.training.together import team
from freshet.model.training.train import Advanced, FineTuneSettings, held_out_loss
from freshet.model.training.tuned import Tuned, tune_on
from freshet.model.training.watch import Report, Watch, board
from freshet.model.training.windows import PastWindows
from freshet.model.weights import save_weights, verify_weights
from freshet.stream.bars import progress_bar
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it.

    Attributes:
        output: the folder of weights.
        sha256: of the weights.
        num_series: series with enough history to learn from.
        num_parameters: numbers in the network.
        steps_made: optimiser steps of all runs.
        factor: how far the weights went from the base (0) to the tuned ones (1).
        before: hold-out loss of the base.
        after: hold-out loss of the weights as they were written.
        held_out: hold-out loss of each factor.
    """

    output: Path
    sha256: str
    num_series: int
    num_parameters: int
    steps_made: int
    factor: float
    before: float
    after: float
    held_out: dict[float, float]

    def sentences(self) -> list[str]:
        """All of it in words."""
        change = 100.0 * (1.0 - self.after / self.before)
        told = [
            f"{self.steps_made} steps on {self.num_series} series",
            f"hold-out loss {self.before:.4f} before, {self.after:.4f} after ({change:+.1f} % "
            "better)",
            f"factor {self.factor:g} (0 is the base, 1 the tuned weights)",
            f"weights in {self.output}, sha256 {self.sha256}",
        ]
        if self.factor == 0.0:
            told.append(
                "nothing that was learnt helped on the newest steps: these are the base weights"
            )
        return told

    def as_dict(self) -> dict[str, Any]:
        """The same for machines."""
        losses = {f"{factor:g}": loss for factor, loss in self.held_out.items()}
        return asdict(self) | {"output": str(self.output), "held_out": losses}


def train(
    source: Path | pd.DataFrame,
    table: TableSettings,
    prediction_length: int,
    *,
    settings: FineTuneSettings,
    output: Path,
    base: Path | None = None,
    trackers: Sequence[str] = (),
) -> Trained:
    """Fine-tune on a table's past, verify the weights written, and tell how much they gained.

    Training never sees the newest `prediction_length` steps. They decide when to stop and how far
    to go from the base, so that their loss flatters a little: a backtest on other steps is the fair
    judge. Rows at the table's end where no series has a target are left out.

    A terminal gets a progress bar on standard error, and TensorBoard its scalars in `runs` below
    `output`, where it is installed; so do the trackers of `freshet.model.training.watch` that are
    named. Low-rank tuning also leaves what it added in `adapter` below `output`
    (`freshet.model.adapter`).

    Raises:
        InvalidInputError: the table or the settings cannot be used, no series is long enough, or
            peft or a tracker is missing.
        WeightsError: the base is missing or does not compute what it should.
    """
    forecaster = BatchForecaster.from_pretrained(base, dtype="float32")
    learning = prepare(
        forecaster.network, read_panel(source, table), table, prediction_length, settings.seed
    )
    facts = {
        "data": source.name if isinstance(source, Path) else "a frame",
        "series": len(learning.windows.rows),
        "horizon": prediction_length,
        "base": forecaster.sha256,
    }
    facts |= _columns(table) | asdict(settings)
    silent = nullcontext(lambda report: None)
    shown = team().first
    scalars = board(output / "runs", trackers, facts) if shown else silent
    with watched(settings, scalars, shown=shown) as (advanced, looked):
        tuned = learning.tune(forecaster.network, settings, advanced, looked)
    if team().first:
        _write(output, tuned, facts, base=base)
    team().meet()
    written = verify_weights(output)
    return Trained(
        output,
        written.sha256,
        num_series=len(learning.windows.rows),
        num_parameters=written.num_parameters,
        steps_made=tuned.steps_made,
        factor=tuned.factor,
        before=tuned.held_out[0.0],
        after=held_out_loss(written.network, *learning.hold_out),
        held_out=tuned.held_out,
    )


def _write(output: Path, tuned: Tuned, facts: dict[str, Any], *, base: Path | None) -> None:
    """The weights, and beside them what low-rank tuning added."""
    if tuned.adapter is not None:
        place = SHIPPED if base is None else str(base.absolute())
        folder = output / "adapter"
        write_adapter(tuned.adapter, folder, base=place, base_sha256=facts["base"])
    save_weights(tuned.network, output, card=card(facts, tuned))


@dataclass(frozen=True, slots=True)
class Learning:
    """What there is to learn from, and the newest horizon that no step learns from."""

    windows: PastWindows
    hold_out: tuple[Batch, Tensor]

    def tune(
        self,
        network: FreshetNetwork,
        settings: FineTuneSettings,
        advanced: Advanced,
        looked: Callable[[float], None],
    ) -> Tuned:
        """A tuned copy; the hold-out says when to stop and how far to go."""
        return tune_on(
            network,
            self.windows,
            self.hold_out,
            settings=settings,
            stop_early=True,
            advanced=advanced,
            looked=looked,
        )


def prepare(
    network: FreshetNetwork, panel: Panel, table: TableSettings, prediction_length: int, seed: int
) -> Learning:
    """The windows of a table's past.

    Raises:
        InvalidInputError: no series is long enough.
    """
    window = _sold(panel, prediction_length, table)
    dressed = dress(window, begin_N=np.zeros(len(window), np.int64))
    horizon = min(prediction_length, int(network.config.prediction_length))
    windows = PastWindows(dressed, horizon, network.config)
    return Learning(windows, _hold_out(windows, seed))


@contextmanager
def watched(
    settings: FineTuneSettings,
    board: AbstractContextManager[Callable[[Report], None]],
    *,
    shown: bool = True,
) -> Iterator[tuple[Advanced, Callable[[float], None]]]:
    """What hears of every step and of every look at the hold-out, and shows and writes both."""
    made = 0
    steps = settings.steps * settings.num_seeds
    with board as scalars, progress_bar(steps, "steps", shown=shown) as bar:
        watch = Watch(bar)

        def advanced(step: int, loss: float) -> None:
            nonlocal made
            made = step
            scalars({"step": step, "loss": loss})
            watch.advanced(step, loss)

        def looked(loss: float) -> None:
            scalars({"step": made, "held_out_loss": loss})
            watch.reported(made, f"loss {loss:.4f}")

        yield advanced, looked


def card(facts: dict[str, Any], tuned: Tuned) -> str:
    """The model card: what the weights were made from, how, and what each factor lost."""
    losses = [
        f"| {factor:g}{' (taken)' if factor == tuned.factor else ''} | {loss:.5f} |"
        for factor, loss in tuned.held_out.items()
    ]
    lines = [
        "# Weights fine-tuned on a table",
        "",
        "Training did not see the newest horizon of the series; it decided when to stop and "
        "which factor to take.",
        "",
        *(f"* {name}: {value}" for name, value in facts.items()),
        "",
        "| factor from the base (0) to the tuned weights (1) | hold-out loss |",
        "|---|---|",
        *losses,
        "",
    ]
    return "\n".join(lines)


def _columns(table: TableSettings) -> dict[str, str]:
    """Each role of a column that some column has, with the names."""
    columns = asdict(table.columns)
    named = {
        role: name if isinstance(name, str) else ", ".join(name) for role, name in columns.items()
    }
    return {role: names for role, names in named.items() if names} | {
        "frequency": str(table.frequency)
    }


def _sold(panel: Panel, horizon: int, table: TableSettings) -> Window:
    """All of the past up to the last step at which any series has a target."""
    sold = np.flatnonzero(np.isfinite(panel.target_NL).any(0))
    empty_steps = panel.target_NL.shape[1] - 1 - int(sold[-1])
    return window_ahead(_without_end(panel, empty_steps), horizon, table.columns)


def _without_end(panel: Panel, steps: int) -> Panel:
    """The panel without the last steps of each series, and without series that have no others."""
    kept, end = panel.long_enough(steps), panel.target_NL.shape[1] - steps
    return replace(
        panel,
        item_ids=tuple(item for item, keep in zip(panel.item_ids, kept, strict=True) if keep),
        length_N=panel.length_N[kept] - steps,
        time_ms_NL=panel.time_ms_NL[kept, :end],
        target_NL=panel.target_NL[kept, :end],
        known_NLK=panel.known_NLK[kept, :end],
        past_NLP=panel.past_NLP[kept, :end],
        keys=tuple(key for key, keep in zip(panel.keys, kept, strict=bool(panel.keys)) if keep),
        clock_ms_NL=None if panel.clock_ms_NL is None else panel.clock_ms_NL[kept, :end],
        static={name: values[kept] for name, values in panel.static.items()},
    )


def _hold_out(windows: PastWindows, seed: int) -> tuple[Batch, Tensor]:
    if len(windows.rows):
        batch, actual_BH = windows.hold_out(seed)
        if bool(torch.isfinite(actual_BH).any()):
            return batch, actual_BH
    raise InvalidInputError(
        "no series is long enough to learn from: it takes one horizon to hold out and some history "
        f"before it; the longest has {windows.dressed.target_NT.shape[1]} steps",
        hint="give more history, or a shorter --prediction-length",
    )
