"""What serves: promoted, rolled back or confirmed, in durable steps of which each may be repeated.

The last durable effects of a promotion, in this order:

3. the aliases `previous` and `champion` (`Registry.serve`);
4. the `promoted` event.

A rollback is 3 and 4 with the parent of the version that the last event names, so that doing 3
twice goes back no further.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from freshet.online.learn.announcer import Announcer
from freshet.online.learn.gate import Report
from freshet.online.weights.announced import announcement
from freshet.online.weights.lineage import serve_parent_of
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
    def current(self) -> str:
        """The version that was last announced; where none was, the registry's champion."""
        # Not the champion: a crash after effect 3 has moved that already.
        serving = self.announcer.ledger.serving
        return serving.version if serving is not None else self.registry.champion()

    def check(self) -> None:
        """See that the version that serves is there.

        Raises:
            RegistryError: It is not: the registry is lost, or another one.
        """
        serving = self.announcer.ledger.serving
        if serving is not None and serving.version != BASE:
            try:
                self.registry.manifest(serving.version)
            except RegistryError as error:
                hint = "it serves on; bring learn.registry back"
                raise RegistryError(
                    f"the version that serves is lost: {error.message}", hint=hint
                ) from None

    def promote(self, manifest: Manifest, gate: Report) -> None:
        """Effects 3 and 4; doing them twice is doing them once."""
        self.registry.serve(manifest.version)
        failpoint("learn_served")
        told = announcement(self.registry, "promoted", manifest.version, self._now_ms())
        self.announcer.say(
            msgspec.structs.replace(
                told,
                parent=manifest.parent,
                request_id=manifest.request_id,
                gate=gate,
            )
        )
        failpoint("learn_announced")

    def roll_back(self, reason: str, *, request_id: str = "", gate: Report | None = None) -> None:
        """Serve the parent of what was last announced; doing it twice is doing it once."""
        current = self.current
        if current == BASE:
            self.announcer.say(
                ModelEvent(
                    kind="rejected",
                    version=BASE,
                    at_ms=self._now_ms(),
                    request_id=request_id,
                    reason="there is nothing to roll back to: the shipped weights are served",
                )
            )
            return
        target = serve_parent_of(self.registry, current)
        log.warning("rolled_back", version=target, instead_of=current, reason=reason)
        told = announcement(self.registry, "rolled_back", target, self._now_ms())
        self.announcer.say(
            msgspec.structs.replace(
                told, parent=current, request_id=request_id, reason=reason, gate=gate or {}
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
