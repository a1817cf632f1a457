"""`freshet history`: old events onto the live topics, each exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from freshet.cli.options import Config, Map, Preset, columns_of, group, settings_of
from freshet.cli.table_options import reads_files, style_of

history = group("What the shop sold before.")

Kind = Literal["orders", "clicks"]


@history.command("load")
@reads_files
def load(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="Lines of JSON (.jsonl, also .gz), parquet or CSV.")
    ] = None,
    config: Config = None,
    topic: Annotated[str | None, typer.Option(help="A topic to copy instead of a file.")] = None,
    kind: Annotated[Kind, typer.Option(help="What lines of JSON or the topic hold.")] = "orders",
    key: Annotated[
        str | None, typer.Option(help="The field of a line that is its record's key.")
    ] = None,
    preset: Preset = None,
    map: Map = None,
    name: Annotated[
        str | None,
        typer.Option("--load", help="The load's name; one name is one load, however often run."),
    ] = None,
    more: Annotated[bool, typer.Option("--more", help="More history comes after this.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be loaded, and send nothing.")
    ] = False,
) -> None:
    """Send old events, in whatever order; run again after a crash, it goes on where it was."""
    from freshet.stream.bars import progress_bar
    from freshet.stream.ops.agreement import held_against_topic
    from freshet.stream.ops.rehearsal import rehearse
    from freshet.stream.source import history as source
    from freshet.stream.source.first_records import checked

    settings = settings_of(config)
    source.need_history_before(settings)
    if (file is None) == (topic is None):
        raise typer.BadParameter("history comes from a file, or from --topic TOPIC")
    if topic is not None:
        found = source.of_topic(settings, topic, kind=kind)
    else:
        assert file is not None
        columns = columns_of(map) or None
        found = source.of_file(
            file,
            kind=kind,
            key=key,
            preset=preset,
            mapping=columns,
            style=source.in_zone_of(settings, style_of(context.params)),
            events=settings.events,
        )
    found, odd = held_against_topic(settings, checked(settings, found))
    for said in odd:
        typer.echo(f"warning: {said}", err=True)
    if dry_run:
        typer.echo(f"{rehearse(settings, found).as_text()}\nnothing was sent")
        return
    with progress_bar(found.total, found.name) as bar:
        done = source.load(
            settings,
            found,
            name=name,
            complete=not more,
            on_progress=bar.done,
        )
    text = f"load {done.load}: {done.sent} records sent"
    typer.echo(f"{text}, {done.known} were in the windows already" if done.known else text)
