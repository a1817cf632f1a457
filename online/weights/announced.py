"""Which announcement of weights counts: only one of versions that the registry holds, by checksum.

Anybody who may write to the models topic could name any folder. So an announcement carries the
sha256 of each version's manifest, which carries that of every file; weights are read from the
registry alone, and what does not fit is as if it had not been said.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from queue import Empty, SimpleQueue

from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import BASE, Registry
from freshet.stream.errors import FreshetError, RegistryError
from freshet.stream.schemas import ModelEvent, ModelEventKind, ServingVersion
from freshet.stream.telemetry import get_logger

SERVING_KINDS = frozenset({"promoted", "rolled_back"})
MAX_REFUSED = 16
MAX_SHOWN = 200

Check = Callable[[ModelEvent], None]
"""Raises a FreshetError for an announcement that may not be believed."""

log = get_logger(__name__)


def announcement(
    registry: Registry, kind: ModelEventKind, version: str, at_ms: int, assignment: Assignment
) -> ModelEvent:
    """That who serves whom is so from now on, with the proof that readers want.

    Args:
        registry: Holds the versions.
        kind: What happened.
        version: The one that was promoted, or gone back to.
        at_ms: When.
        assignment: Who serves whom.

    Raises:
        RegistryError: There is no such version, or a file of it was altered.
    """
    parts = [_proven(registry, assignment, name) for name in assignment.versions]
    told = next(part for part in parts if part.version == version)
    return ModelEvent(
        kind=kind,
        version=version,
        at_ms=at_ms,
        sha256=told.sha256,
        manifest_sha256=told.manifest_sha256,
        uri="" if version == BASE else str(registry.path(version).resolve()),
        serves=parts if assignment.other else [],
    )


def _proven(registry: Registry, assignment: Assignment, version: str) -> ServingVersion:
    segments = list(assignment.segments) if version == assignment.other else []
    if version == BASE:
        return ServingVersion(version=BASE, segments=segments)
    sealed = registry.sealed(version)
    registry.verify(version, sealed.sha256)
    return ServingVersion(
        version=version,
        sha256=sealed.manifest.weights_sha256,
        manifest_sha256=sealed.sha256,
        segments=segments,
    )


def parts_of(event: ModelEvent) -> list[ServingVersion]:
    """The versions that an announcement has serve, the default first."""
    if event.serves:
        return event.serves
    only = ServingVersion(
        version=event.version, sha256=event.sha256, manifest_sha256=event.manifest_sha256
    )
    return [only]


def assignment_of(event: ModelEvent) -> Assignment:
    """Who serves whom by an announcement.

    Raises:
        RegistryError: It names two versions, and not who serves whom.
    """
    if not event.serves:
        return Assignment(event.version)
    try:
        default, other = event.serves
        if default.segments or event.version not in (default.version, other.version):
            raise ValueError("the first serves all others, and what changed is one of the two")
        return Assignment(default.version, other.version, tuple(sorted(set(other.segments))))
    except ValueError as error:
        raise RegistryError(f"{_told(event)} does not say who serves whom: {error}") from None


def checker(registry: Registry) -> Check:
    """Holds announcements against a registry."""

    def check(event: ModelEvent) -> None:
        assignment_of(event)
        told = _told(event)
        if event.uri and event.version == BASE:
            raise RegistryError(f"{told} names a folder: `{BASE}` is the shipped weights")
        if event.uri and PurePosixPath(event.uri).parts[-2:] != ("versions", event.version):
            raise RegistryError(f"{told} names another folder, {event.uri[:MAX_SHOWN]!r}")
        for part in parts_of(event):
            _check_part(registry, part, f"{event.kind} {part.version[:MAX_SHOWN]}")

    return check


def _told(event: ModelEvent) -> str:
    return f"{event.kind} {event.version[:MAX_SHOWN]}"


def _check_part(registry: Registry, part: ServingVersion, told: str) -> None:
    if part.version == BASE:
        if part.manifest_sha256:
            raise RegistryError(f"{told} names a folder: `{BASE}` is the shipped weights")
        return
    if not part.manifest_sha256:
        hint = "`freshet model promote` announces a version anew"
        raise RegistryError(f"{told} comes without the sha256 of its manifest", hint=hint)
    sealed = registry.sealed(part.version)
    if part.manifest_sha256 != sealed.sha256:
        raise RegistryError(
            f"{told} comes with sha256 {part.manifest_sha256[:16]} of its manifest, the "
            f"registry's has {sealed.sha256[:16]}"
        )
    if part.sha256 not in ("", sealed.manifest.weights_sha256):
        raise RegistryError(f"{told} comes with the sha256 of other weights")


def within(check: Check, seconds: float) -> Check:
    """The same check for a loop that must turn: a volume that hangs, hangs nobody else.

    Where it takes longer, the announcement is refused, and all later ones until it has answered.
    """
    hanging: threading.Thread | None = None

    def bounded(event: ModelEvent) -> None:
        nonlocal hanging
        if hanging is not None and hanging.is_alive():
            raise RegistryError("the registry does not answer")
        answer: SimpleQueue[FreshetError | None] = SimpleQueue()
        asked = threading.Thread(
            target=lambda: answer.put(_error_of(check, event)), name="registry", daemon=True
        )
        asked.start()
        try:
            error = answer.get(timeout=seconds)
        except Empty:
            hanging = asked
            raise RegistryError(f"the registry does not answer within {seconds:g} s") from None
        if error is not None:
            raise error

    return bounded


def _error_of(check: Check, event: ModelEvent) -> FreshetError | None:
    try:
        check(event)
    except FreshetError as error:
        return error
    except Exception as error:
        return RegistryError(f"version {event.version[:MAX_SHOWN]} cannot be checked: {error!r}")
    return None


@dataclass(frozen=True, slots=True)
class Refused:
    """An announcement that does not count, and why."""

    event: ModelEvent
    reason: str


@dataclass(slots=True)
class Announcements:
    """The newest promotion or rollback that counts, whatever else is said.

    One that is refused moves nothing. It is kept, newest to come last, as long as none that counts
    is newer: a registry that was away when it was announced may be there later.

    Attributes:
        check: Raises where an announcement may not be believed.
        newest: The newest by its own time that may; of one moment the one that came last.
        refused: What may not, by version.
    """

    check: Check
    newest: ModelEvent | None = None
    refused: dict[str, Refused] = field(default_factory=dict)
    _untold: deque[Refused] = field(default_factory=lambda: deque(maxlen=MAX_REFUSED))

    def take(self, event: ModelEvent) -> bool:
        """Take in an event of any kind; whether it is the newest that counts now."""
        if event.kind not in SERVING_KINDS or self._overtaken(event):
            return False
        refused = self._refusal(event)
        if refused is None:
            self._count(event)
            return True
        self._untold.append(refused)
        self.refused.pop(event.version, None)
        self.refused[event.version] = refused
        while len(self.refused) > MAX_REFUSED:
            # By arrival: the sender chose the version and the time.
            self.refused.pop(next(iter(self.refused)))
        return False

    def next_refusal(self) -> Refused | None:
        """A refusal to tell people of, each once; not one that has been overtaken meanwhile."""
        while self._untold:
            refused = self._untold.popleft()
            if not self._overtaken(refused.event):
                return refused
        return None

    def reconsider(self) -> ModelEvent | None:
        """Look again at what was refused; returns what counts by now and did not before."""
        before = self.newest
        for held in list(self.refused.values()):
            if not self._overtaken(held.event) and self._refusal(held.event) is None:
                log.info("announcement_counts_now", version=held.event.version)
                self._count(held.event)
        return None if self.newest is before else self.newest

    def _count(self, event: ModelEvent) -> None:
        self.newest = event
        for held in list(self.refused.values()):
            if self._overtaken(held.event) or held.event.version == event.version:
                del self.refused[held.event.version]

    def _overtaken(self, event: ModelEvent) -> bool:
        return self.newest is not None and event.at_ms < self.newest.at_ms

    def _refusal(self, event: ModelEvent) -> Refused | None:
        error = _error_of(self.check, event)
        return None if error is None else Refused(event, str(error))
