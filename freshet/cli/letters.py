"""`freshet dlq`: dead letters and late records, listed, shown and sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from freshet.cli.options import (
    Config,
    ErrorName,
    Json,
    Late,
    LetterFrom,
    LetterTo,
    SourceTopic,
    group,
    put,
    settings_of,
)

if TYPE_CHECKING:
    from freshet.stream.ops.dead_letters import DeadLetterFilter

dlq = group("Dead letters.")


@dlq.command("list")
def dlq_list(
    config: Config = None,
    topic: SourceTopic = None,
    error: ErrorName = None,
    from_: LetterFrom = None,
    to: LetterTo = None,
    late: Late = False,
    max: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    json: Json = False,
) -> None:
    """Show dead letters: where each came from and what is wrong with it."""
    from freshet.stream.ops.dead_letters import list_dead_letters

    wanted = _wanted(topic, error, from_, to, late)
    letters = list_dead_letters(settings_of(config), wanted, most=max)
    text = "\n".join(letter.as_text() for letter in letters)
    put([letter.as_dict() for letter in letters], json, text)


@dlq.command("redrive")
def dlq_redrive(
    config: Config = None,
    topic: SourceTopic = None,
    error: ErrorName = None,
    from_: LetterFrom = None,
    to: LetterTo = None,
    late: Late = False,
    max: Annotated[int | None, typer.Option(min=1, help="At most so many; default: all.")] = None,
    from_start: Annotated[
        bool, typer.Option(help="Also those sent before; windows count each once.")
    ] = False,
) -> None:
    """Send dead letters to the partitions they came from again; windows count each at most once."""
    from freshet.stream.ops.redrive import redrive

    wanted = _wanted(topic, error, from_, to, late)
    done = redrive(settings_of(config), wanted, most=max, from_start=from_start)
    typer.echo(f"{done} sent again")


@dlq.command("show")
def dlq_show(
    place: Annotated[str, typer.Argument(help="topic-partition-offset, as `list` shows it.")],
    config: Config = None,
    json: Json = False,
) -> None:
    """Show one dead letter whole: what is wrong with it, its headers, its value."""
    from freshet.stream.ops.dead_letters import show_dead_letter

    letter = show_dead_letter(settings_of(config), place)
    put(letter.as_dict(), json, letter.as_page())


def _wanted(
    topic: str | None, error: str | None, from_: str | None, to: str | None, late: bool
) -> DeadLetterFilter:
    from freshet.stream.ops.dead_letters import DeadLetterFilter
    from freshet.stream.read.export import parse_time_ms

    return DeadLetterFilter(
        topic, late, error, parse_time_ms(from_, "--from"), parse_time_ms(to, "--to")
    )
