"""`freshet model`: the versions of the weights, and which of them serves."""

from __future__ import annotations

from typing import Annotated

import typer

from freshet.cli.options import Config, Json, group, put, settings_of

model = group("Weights versions.")


@model.command("list")
def model_list(config: Config = None, json: Json = False) -> None:
    """All versions and the aliases that point at them."""
    from freshet.online.weights.versions import versions

    rows = versions(settings_of(config))
    lines = [f"{row['version']}  {', '.join(row['aliases'])}".rstrip() for row in rows]
    put(rows, json, "\n".join(lines))


@model.command("show")
def model_show(
    version: Annotated[str, typer.Argument(help="A version or an alias.")], config: Config = None
) -> None:
    """The manifest of one version, after checking its files."""
    from freshet.online.weights.versions import show

    put(show(settings_of(config), version), True, "")


@model.command("promote")
def model_promote(
    version: Annotated[str, typer.Argument(help="A version, or base.")], config: Config = None
) -> None:
    """Make a version the champion, past the gate, and tell the workers."""
    from freshet.online.weights.versions import promote

    typer.echo(promote(settings_of(config), version))


@model.command("rollback")
def model_rollback(config: Config = None) -> None:
    """Make the champion's parent the champion again and tell the workers."""
    from freshet.online.weights.versions import rollback

    typer.echo(rollback(settings_of(config)))
