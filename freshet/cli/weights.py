"""`freshet model`: the versions of the weights, and which of them serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from freshet.cli.options import Config, Json, group, put, settings_of

model = group("Weights versions.")

Version = Annotated[str, typer.Argument(help="A version or an alias.")]


@model.command("list")
def model_list(config: Config = None, json: Json = False) -> None:
    """All versions and the aliases that point at them."""
    from freshet.online.weights.versions import versions

    rows = versions(settings_of(config))
    lines = [f"{row['version']}  {aliases_of(row)}  {row.get('wrong', '')}" for row in rows]
    put(rows, json, "\n".join(line.rstrip() for line in lines))


def aliases_of(row: dict[str, Any]) -> str:
    """The aliases of a version, and whom the champion serves where another serves the others."""
    whom = f" for {', '.join(row['segments'])}" if "segments" in row else ""
    return "; ".join(alias + whom * (alias == "champion") for alias in row["aliases"])


@model.command("show")
def model_show(version: Version, config: Config = None) -> None:
    """The manifest of one version, after checking its files."""
    from freshet.online.weights.versions import show

    put(show(settings_of(config), version), True, "")


@model.command("verify")
def model_verify(
    version: Annotated[str | None, typer.Argument(help="One version; default all.")] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Check every file and signature, and name what is no version; exit status 1 if there is."""
    from freshet.online.weights.versions import verify

    rows = verify(settings_of(config), version)
    put(rows, json, "\n".join(f"{row['name']}  {row['wrong'] or 'ok'}" for row in rows))
    if any(row["wrong"] for row in rows):
        raise typer.Exit(1)


@model.command("diff")
def model_diff(first: Version, second: Version, config: Config = None, json: Json = False) -> None:
    """How two versions differ: parents, gates, and how far the weights moved."""
    from freshet.online.weights.difference import difference

    found = difference(settings_of(config), first, second)
    put(found.as_dict(), json, found.as_text())


@model.command("add")
def model_add(
    folder: Annotated[Path, typer.Argument(help="Weights, as freshet train writes them.")],
    config: Config = None,
    json: Json = False,
) -> None:
    """Judge weights as a challenger on the shop's newest data; register them if they pass."""
    from freshet.online.learn.adopt import adopt

    found = adopt(settings_of(config), folder)
    put(found.as_dict(), json, found.as_text())
    if not found.version:
        raise typer.Exit(1)


@model.command("sign")
def model_sign(
    version: Version,
    key: Annotated[
        Path | None, typer.Option(help="Private ed25519 key, PEM; default learn.signing_key.")
    ] = None,
    config: Config = None,
) -> None:
    """Sign a version, for workers that want it signed."""
    from freshet.online.weights.versions import sign

    typer.echo(sign(settings_of(config), version, key))


@model.command("gc")
def model_gc(
    keep: Annotated[int, typer.Option(min=1, help="So many of the newest stay.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only name them.")] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Delete versions that no alias names, that are no such one's parent, and that are old."""
    from freshet.online.weights.versions import collect

    doomed = collect(settings_of(config), keep, delete=not dry_run)
    put(doomed, json, "\n".join(doomed))


@model.command("promote")
def model_promote(
    version: Annotated[str, typer.Argument(help="A version, or base.")],
    segments: Annotated[
        str | None, typer.Option(help="Whom it serves, separated by commas; default everybody.")
    ] = None,
    config: Config = None,
) -> None:
    """Make a version the champion, past the gate, and tell the workers."""
    from freshet.online.weights.versions import promote

    named = [name.strip() for name in (segments or "").split(",") if name.strip()]
    if segments is not None and not named:
        raise typer.BadParameter("names no segment", param_hint="--segments")
    typer.echo(promote(settings_of(config), version, named))


@model.command("rollback")
def model_rollback(config: Config = None) -> None:
    """Put the parent of the version that was promoted last in its place; tell the workers."""
    from freshet.online.weights.versions import rollback

    typer.echo(rollback(settings_of(config)))
