"""What learn says on the models topic: published, acknowledged, and only then remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from freshet.online.judge.verdict import Report
from freshet.online.learn.ledger import Ledger
from freshet.stream.schemas import ModelEvent, RetrainRequest
from freshet.stream.telemetry import get_logger

log = get_logger(__name__)


@dataclass(slots=True)
class Announcer:
    """Says what happens to requests and versions, and knows what was said before.

    Args:
        publish: Puts an event into the models topic and returns once it is acknowledged.
        now_ms: The clock.
        ledger: What the topics say; every event said is taken into it.
    """

    publish: Callable[[ModelEvent], None]
    now_ms: Callable[[], int]
    ledger: Ledger

    def say(self, event: ModelEvent) -> None:
        """Publish, then remember."""
        self.publish(event)
        self.ledger.take_event(event)
        log.info(
            event.kind, version=event.version, request_id=event.request_id, reason=event.reason
        )

    def training(self, request: RetrainRequest, parent: str) -> None:
        """Training for a request begins, which is no answer yet."""
        self._of_request("training", request, reason=request.reason, parent=parent)

    def on_trial(self, request: RetrainRequest, *, reason: str, parent: str, gate: Report) -> None:
        """A challenger was looked at, and it is neither yes nor no."""
        self._of_request("trial", request, reason=reason, parent=parent, gate=gate)

    def rejected(
        self,
        request: RetrainRequest,
        *,
        reason: str,
        parent: str = "",
        gate: Report | None = None,
    ) -> None:
        """The answer to a request is no."""
        self._of_request("rejected", request, reason=reason, parent=parent, gate=gate)

    def _of_request(
        self,
        kind: Literal["training", "trial", "rejected"],
        request: RetrainRequest,
        *,
        reason: str,
        parent: str,
        gate: Report | None = None,
    ) -> None:
        self.say(
            ModelEvent(
                kind=kind,
                version=_candidate(request),
                at_ms=self.now_ms(),
                parent=parent,
                request_id=request.request_id,
                reason=reason,
                gate=gate or {},
            )
        )


def _candidate(request: RetrainRequest) -> str:
    """What a version is called before it has a name."""
    return f"candidate-{request.request_id}"
