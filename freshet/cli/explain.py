"""`freshet explain`: why one item's forecast is what it is, and what a promotion would add."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.options import Json, put
from freshet.cli.table_options import (
    Data,
    ItemId,
    PredictionLength,
    Target,
    Time,
    reads_table,
    table_of,
)


@reads_table
def explain(
    context: typer.Context,
    data: Data,
    item_id: ItemId,
    time: Time,
    target: Target,
    prediction_length: PredictionLength,
    item: Annotated[str, typer.Option(help="The series to explain, as the item column names it.")],
    future: Annotated[
        Path | None,
        typer.Option(
            help="A table of the known columns of the steps ahead, where --data ends before."
        ),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(metavar="START:END", help="Explain these steps only, from 1, both included."),
    ] = None,
    promotion: Annotated[
        str | None,
        typer.Option(
            metavar="START:END:DISCOUNT",
            help="Also: what would a promotion add? Steps from 1 or dates, both included; 0.2 "
            "or 20% off.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of weights; default those that ship.")
    ] = None,
    json: Json = False,
    plot: Annotated[Path | None, typer.Option(help="Draw it: .png, .svg or .html.")] = None,
) -> None:
    """Why one item's forecast is what it is, and what a promotion would do."""
    from freshet.model.explain.item import Question, answer
    from freshet.model.explain.plot import plot as draw

    question = Question(item, prediction_length, steps, promotion, future)
    found = answer(data, table_of(context.params), question, weights)
    if plot:
        draw(found.explanation, plot)
    put(found.as_dict(), json, "\n".join(found.sentences()))
