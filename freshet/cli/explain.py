"""The command `freshet explain`: why one item's forecast is what it is, and what a promotion would
add.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from freshet.cli.tables import Aggregate, Country, Known, Missing, Past, Static, joined


def explain(
    data: Annotated[
        Path, typer.Option(help="A long table: parquet or CSV, one row an item and time.")
    ],
    item_id: Annotated[str, typer.Option(help="Column with the name of a series.")],
    time: Annotated[str, typer.Option(help="Column with the time; UTC unless it names a zone.")],
    target: Annotated[
        str, typer.Option(help="Column with what is forecast; empty in rows that lie ahead.")
    ],
    frequency: Annotated[str, typer.Option(help="A pandas alias: h, D, W-SUN, MS, 15min, ...")],
    prediction_length: Annotated[int, typer.Option(min=1, help="Steps to forecast.")],
    item: Annotated[str, typer.Option(help="The series to explain, as the item column names it.")],
    known: Known = None,
    past: Past = None,
    static: Static = None,
    future: Annotated[
        Path | None,
        typer.Option(
            help="A table of the known columns of the steps ahead, where --data ends before."
        ),
    ] = None,
    missing: Missing = "keep",
    aggregate: Aggregate = None,
    country: Country = None,
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
    json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw it: .png, .svg or .html.")] = None,
) -> None:
    """Why one item's forecast is what it is: what adds how much, where it looked, what a promotion
    would do.
    """
    import orjson

    from freshet.model.explain.item import Question, answer
    from freshet.model.explain.plot import plot as draw
    from freshet.model.tables.table import Columns, TableSettings

    columns = Columns(item_id, time, target, joined(known), joined(past), joined(static))
    question = Question(item, prediction_length, steps, promotion, future)
    found = answer(
        data,
        TableSettings(columns, frequency, None, missing, aggregate, country),
        question,
        weights,
    )
    if plot:
        draw(found.explanation, plot)
    typer.echo(
        orjson.dumps(found.as_dict(), option=orjson.OPT_INDENT_2)
        if json
        else "\n".join(found.sentences())
    )
