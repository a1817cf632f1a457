"""What serves: promoted, rolled back or confirmed, in durable steps of which each may be repeated.

The last durable effects of a promotion, in this order:

3. the aliases `previous` and `champion` (`Registry.serve`);
4. the `promoted` event.

A rollback is 3 and 4 with what served before a version that the last event has serve, in its place
or for some of its segments, so that doing 3 twice goes back no further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from freshet.online.judge.verdict import Report
from freshet.online.learn.announcer import Announcer
from freshet.online.learn.probation import ProbationVerdict
from freshet.online.weights.announced import announcement
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.lineage import parent_of
from freshet.online.weights.registry import BASE, Manifest, Registry
from freshet.stream.errors import RegistryError
from freshet.stream.failpoints import failpoint
from freshet.stream.schemas import ModelEvent
from freshet.stream.telemetry import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """Changes what serves, and says so."""

    registry: Registry
    announcer: Announcer

    @property
    def current(self) -> Assignment:
        """Who serves whom as last announced; where nothing was, the registry's champion."""
        # Not the champion: a crash after effect 3 has moved that already.
        return self.announcer.ledger.assignment or self.registry.champion()

    def check(self) -> None:
        """See that the versions that serve are there.

        Raises:
            RegistryError: One is not: the registry is lost, or another one.
        """
        serving = self.announcer.ledger.assignment or Assignment()
        for version in serving.versions:
            try:
                if version != BASE:
                    self.registry.manifest(version)
            except RegistryError as error:
                hint = "it serves on; bring learn.registry back"
                raise RegistryError(
                    f"the version that serves is lost: {error.message}", hint=hint
                ) from None

    def placed(self, manifest: Manifest, segments: Sequence[str]) -> Assignment | None:
        """Who would serve whom with a version promoted; None where it has no place any more."""
        return self.current.after(manifest.version, manifest.parent, segments)

    def promote(self, manifest: Manifest, gate: Report, assignment: Assignment) -> None:
        """Effects 3 and 4; doing them twice is doing them once."""
        self.registry.serve(assignment)
        failpoint("learn_served")
        now_ms = self._now_ms()
        told = announcement(self.registry, "promoted", manifest.version, now_ms, assignment)
        self.announcer.say(
            msgspec.structs.replace(
                told,
                parent=manifest.parent,
                request_id=manifest.request_id,
                gate=gate,
            )
        )
        failpoint("learn_announced")

    def roll_back(self, reason: str, *, version: str = "", request_id: str = "") -> None:
        """Serve the nearest whole ancestor of a version in its place; doing it twice is once.

        Args:
            reason: Why.
            version: Which; the one that was announced last.
            request_id: Of the request that it answers.
        """
        version = version or self._last
        if version == BASE:
            self._nothing_to_roll_back_to(request_id)
            return
        current, told = self.current, self.announcer.ledger.serving
        added = told is not None and version == current.other and told.parent == current.default
        # Who served everybody does so again where the version was added beside it.
        parent = current.default if added else parent_of(self.registry, version)
        target = current.replaced(version, parent)
        self._go_back(target, version, parent, reason=reason, request_id=request_id)

    def take_back(self, promotion: ModelEvent, verdict: ProbationVerdict) -> None:
        """Serve what served before a version on probation, everywhere or where it failed.

        Where a third version would serve, it goes everywhere.
        """
        version, parent, current = promotion.version, promotion.parent or BASE, self.current
        try:
            target = current.with_(verdict.segments, parent) if verdict.segments else None
        except RegistryError as error:
            log.warning("rolled_back_for_all", reason=str(error))
            target = None
        target = target or current.replaced(version, parent)
        reason = f"worse than {parent}: {verdict.reason}"
        self._go_back(target, version, parent, reason=reason, gate=verdict.report)

    @property
    def _last(self) -> str:
        """The version that was promoted last."""
        serving = self.announcer.ledger.serving
        promoted = serving is not None and serving.kind == "promoted"
        return serving.version if serving is not None and promoted else self.current.newest

    def _go_back(self, target: Assignment, version: str, parent: str, **said: Any) -> None:
        current = self.current
        self.registry.serve(target)
        log.warning(
            "rolled_back", serving=str(target), instead_of=str(current), reason=said["reason"]
        )
        told = announcement(self.registry, "rolled_back", parent, self._now_ms(), target)
        self.announcer.say(msgspec.structs.replace(told, parent=version, **said))

    def _nothing_to_roll_back_to(self, request_id: str) -> None:
        self.announcer.say(
            ModelEvent(
                kind="rejected",
                version=BASE,
                at_ms=self._now_ms(),
                request_id=request_id,
                reason="there is nothing to roll back to: the shipped weights are served",
            )
        )

    def confirm(self, promotion: ModelEvent, report: Report, reason: str = "") -> None:
        """The version stays."""
        self.announcer.say(
            ModelEvent(
                kind="confirmed",
                version=promotion.version,
                at_ms=self._now_ms(),
                sha256=promotion.sha256,
                manifest_sha256=promotion.manifest_sha256,
                parent=promotion.parent,
                reason=reason,
                gate=report,
            )
        )

    def _now_ms(self) -> int:
        return self.announcer.now_ms()
