"""What a person does with versions: list, show, verify, sign, delete, promote, roll back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from freshet.online.weights.announced import announcement
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.lineage import roll_back
from freshet.online.weights.registry import ALIASES, BASE, CHAMPION, Registry, open_registry
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.errors import ConfigError, RegistryError
from freshet.stream.kafka import Publisher
from freshet.stream.schemas import ModelEvent
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import connect


def versions(settings: Settings) -> list[dict[str, Any]]:
    """The shipped weights, then all versions, oldest first, with the aliases of each.

    Last comes what an alias names and what is no version, with what is wrong.
    """
    registry = open_registry(settings.learn)
    pointed = {alias: registry.alias(alias) for alias in ALIASES} | {CHAMPION: registry.champion()}
    at = {alias: found for alias, found in pointed.items() if found is not None}
    names = [BASE, *(manifest.version for manifest in registry.list())]
    lost = sorted({name for found in at.values() for name in found.versions} - set(names))
    rows: list[dict[str, Any]] = []
    for name in (*names, *lost):
        aliases = [alias for alias in ALIASES if alias in at and name in at[alias].versions]
        rows.append({"version": name, "aliases": aliases})
        if name == at[CHAMPION].other:
            rows[-1]["segments"] = list(at[CHAMPION].segments)
        if name in lost:
            rows[-1]["wrong"] = _wrong_with(registry, name)
    return rows


def show(settings: Settings, version: str) -> dict[str, Any]:
    """The manifest of a version or alias, after its files were checked.

    Raises:
        RegistryError: There is no such version, or a file was altered.
    """
    registry = open_registry(settings.learn)
    name = named(registry, version)
    told: dict[str, Any] = {"version": BASE}
    if name != BASE:
        told = msgspec.to_builtins(registry.verify(name))
    if version == CHAMPION and (champion := registry.champion()).other:
        told["beside"] = {champion.other: list(champion.segments)}
    return told


def named(registry: Registry, version: str) -> str:
    """The version that a person means by a version or an alias; the default where two serve."""
    return (registry.alias(version) or Assignment()).default if version in ALIASES else version


def verify(settings: Settings, version: str | None = None) -> list[dict[str, str]]:
    """What is wrong with each version (nothing: an empty text), and with what else lies there."""
    registry = open_registry(settings.learn)
    if version is not None:
        names, flaws = [named(registry, version)], {}
    else:
        manifests, found = registry.survey()
        names = [manifest.version for manifest in manifests]
        flaws = {flaw.name: flaw.reason for flaw in found}
    told = {name: _wrong_with(registry, name) for name in names} | flaws
    return [{"name": name, "wrong": wrong} for name, wrong in told.items()]


def _wrong_with(registry: Registry, version: str) -> str:
    try:
        if version != BASE:
            registry.verify(version)
    except RegistryError as error:
        return str(error)
    return ""


def sign(settings: Settings, version: str, key: Path | None) -> str:
    """Sign a version with a key, else with `learn.signing_key`; returns what to print.

    Raises:
        ConfigError: There is no key.
    """
    chosen = key or (Path(settings.learn.signing_key) if settings.learn.signing_key else None)
    if chosen is None:
        raise ConfigError("there is no key to sign with", hint="--key, or learn.signing_key")
    registry = open_registry(settings.learn)
    name = named(registry, version)
    registry.sign(name, chosen)
    return f"{name} is signed"


def collect(settings: Settings, keep: int, *, delete: bool) -> list[str]:
    """The versions that nobody needs, deleted if asked: not an alias's, its parent, or the newest.

    Args:
        settings: Where the registry is.
        keep: So many of the newest stay in any case.
        delete: Delete them, and do not only name them.
    """
    registry = open_registry(settings.learn)
    manifests = registry.list()
    needed = {version for alias in ALIASES for version in registry.alias_versions(alias)}
    needed |= {found.parent for found in manifests if found.version in needed}
    needed |= {found.version for found in manifests[max(0, len(manifests) - keep) :]}
    doomed = [found.version for found in manifests if found.version not in needed]
    if delete:
        for version in doomed:
            registry.remove(version)
    return doomed


def promote(settings: Settings, version: str, segments: Sequence[str] = ()) -> str:
    """Make a version, or `base`, serve past the gate, and tell the workers.

    Args:
        settings: Where the registry and the broker are.
        version: What serves.
        segments: Whom, beside who serves already; none: everybody.

    Returns what to print.

    Raises:
        RegistryError: There is no such version, or three would serve: nothing has moved.
    """
    registry = open_registry(settings.learn)
    # Who serves everybody needs no word of who does now, and mends one that cannot be read.
    before = registry.champion() if segments else registry.known_champion() or Assignment()
    after = before.with_(segments, version) if segments else Assignment(version)
    told = announcement(registry, "promoted", version, _now_ms(settings), after)
    registry.serve(after)
    _announce(settings, told, parent=before.of(segments[0]) if segments else before.default)
    return f"{after} is the champion, {before} was"


def rollback(settings: Settings) -> str:
    """Have the parent of the version that was promoted last serve in its place; what to print.

    Raises:
        RegistryError: There is no parent, or it is not what it was: nothing has moved.
    """
    registry = open_registry(settings.learn)
    before = registry.champion()
    at_ms = _now_ms(settings)
    back = roll_back(registry)
    told = announcement(registry, "rolled_back", back.parent, at_ms, back.serving)
    _announce(settings, told, parent=back.version)
    return f"{back.serving} is the champion again, {before} was"


def _now_ms(settings: Settings) -> int:
    return open_clock(connect(settings.redis)).now_ms()


def _announce(settings: Settings, event: ModelEvent, *, parent: str) -> None:
    told = msgspec.structs.replace(event, parent=parent, reason="by hand")
    with Publisher(settings) as publisher:
        topic = settings.kafka.topics.models
        publisher.produce(topic, encode(told), key=f"{event.kind}:{event.version}")
        publisher.flush()
