"""The commands that make weights: `freshet train` (your table), `freshet pretrain` (synthetic)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from freshet.cli.options import Json, joined, put
from freshet.cli.table_options import (
    Data,
    ItemId,
    PredictionLength,
    Target,
    Time,
    reads_table,
    table_of,
)

Track = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="mlflow, wandb: told of it too (pip install freshet[tracking])."
    ),
]


@reads_table
def train(
    context: typer.Context,
    data: Data,
    item_id: ItemId,
    time: Time,
    target: Target,
    prediction_length: PredictionLength,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the weights.")],
    tune: Annotated[
        Literal["full", "top", "lora"],
        typer.Option(
            help="What learns: everything, the last layer and the head, or low-rank additions "
            "(peft)."
        ),
    ] = "full",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps at most.")] = 100,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Windows at once; a step of 128 is accumulated.")
    ] = 128,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Default 5e-4 for full and top, 2e-3 for lora.")
    ] = None,
    dropout: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Share dropped while training.")
    ] = 0.0,
    patience: Annotated[
        int, typer.Option(min=1, help="Looks at the hold-out without gain, then it stops.")
    ] = 3,
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs with other seeds whose weights are averaged.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.")] = 0,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Compute in bfloat16: faster where the machine knows it.")
    ] = False,
    base: Annotated[
        Path | None, typer.Option(help="Folder of weights to start from; default those that ship.")
    ] = None,
    track: Track = None,
    json: Json = False,
) -> None:
    """Fine-tune weights on your own table, of which the newest steps are held out.

    Take them with backtest --models freshet:FOLDER or explain --weights FOLDER.
    """
    from freshet.model.threads import use_threads
    from freshet.model.training.table import train as run
    from freshet.model.training.together import joined as team_joined
    from freshet.model.training.train import FineTuneSettings

    settings = FineTuneSettings.of(
        tune,
        steps,
        learning_rate,
        batch_size=batch_size,
        seed=seed,
        dropout=dropout,
        mixed_precision=bf16,
        patience=patience,
        num_seeds=seeds,
    )
    use_threads()
    with team_joined() as team:
        found = run(
            data,
            table_of(context.params),
            prediction_length,
            settings=settings,
            output=output,
            base=base,
            trackers=joined(track),
        )
        if team.first:
            put(found.as_dict(), json, "\n".join(found.sentences()))


def pretrain(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for checkpoints, logs and weights.")
    ],
    size: Annotated[
        Literal["edge", "default", "quality"], typer.Option(help="How large the network is.")
    ] = "default",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps in all.")] = 12_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows a step.")] = 128,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="Stop after so many minutes; call again to go on.")
    ] = 60.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same data.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads at most; 0 is as many as it may use.")
    ] = 0,
    track: Track = None,
) -> None:
    """Train base weights on synthetic series; resumes from the folder's checkpoint."""
    from freshet.model.threads import use_threads
    from freshet.model.training.pretrain import pretrain as run
    from freshet.model.training.run import PretrainSettings
    from freshet.model.training.together import joined as team_joined

    use_threads(threads)
    settings = PretrainSettings(
        output=output,
        size=size,
        steps=steps,
        batch_size=batch_size,
        minutes=minutes,
        seed=seed,
        device=device,
    )
    with team_joined():
        run(settings, joined(track))
