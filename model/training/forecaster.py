"""The public `Forecaster`: forecasts frames, and is fitted to one."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Self, Unpack

from freshet.model.predict import frame
from freshet.model.predict.given import clear_errors
from freshet.model.predict.reading import Reading, check_length, read
from freshet.model.tables.ahead import read_past
from freshet.model.training.table import prepare, watched
from freshet.model.training.train import FineTuneSettings, Tune


class Forecaster(frame.Forecaster):
    """A network ready to forecast batches on one device, and whole frames; `fit` tunes a copy."""

    def fit(
        self,
        df: Any,
        prediction_length: int,
        *,
        tune: Tune = "full",
        steps: int = 100,
        batch_size: int = 128,
        learning_rate: float | None = None,
        seeds: int = 1,
        seed: int = 0,
        progress_bar: bool = False,
        **reading: Unpack[Reading],
    ) -> Self:
        """A forecaster with weights tuned on a frame's past; this one stays as it is.

        The newest `prediction_length` steps are not learnt from: they say when to stop and how far
        to go from these weights, which may be no way at all. Blocks for minutes.

        Args:
            df: as for `predict`; known columns must be named, or told by rows ahead.
            prediction_length: steps that will be forecast.
            tune: what learns: everything, the last layer and the head, or low-rank additions (by
                peft).
            steps: optimiser steps at most.
            batch_size: windows at once.
            learning_rate: None: 5e-4, and 2e-3 for "lora".
            seeds: runs with other seeds whose weights are averaged.
            seed: the same gives the same weights.
            progress_bar: show on standard error, where that is a terminal, how far it is.
            **reading: see `Reading`.

        Raises:
            InvalidInputError: as `predict`, no series is long enough, or peft is missing.
        """
        check_length(prediction_length)
        settings = FineTuneSettings.of(
            tune, steps, learning_rate, batch_size=batch_size, seed=seed, num_seeds=seeds
        )
        with clear_errors():
            found, table = read(df, None, reading)
            panel, _ = read_past(found.frame, table)
        learning = prepare(self.network, panel, table, prediction_length, seed)
        silent = nullcontext(lambda report: None)
        with watched(settings, silent, shown=progress_bar) as (advanced, looked):
            tuned = learning.tune(self.network, settings, advanced, looked)
        return type(self)(tuned.network, device=str(self.device), dtype="float32")
