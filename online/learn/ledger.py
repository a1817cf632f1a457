"""What the topics say of training: requests, the version that serves, its probation. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from freshet.online.control.requests import RequestLedger
from freshet.stream.schemas import DriftAlert, ModelEvent, RetrainRequest

SERVING = frozenset({"promoted", "rolled_back"})


@dataclass(slots=True)
class Ledger:
    """Fed with every record of three topics, in any interleaving and as often as they come.

    Attributes:
        requests: Which requests are open.
        serving: The event that made the serving version serve; None where that was never said.
        said: How many events of each kind were taken in.
    """

    requests: RequestLedger = field(default_factory=RequestLedger, init=False)
    serving: ModelEvent | None = field(default=None, init=False)
    said: Counter[str] = field(default_factory=Counter, init=False)
    _onsets_ms: dict[str, int] = field(default_factory=dict, init=False)
    _confirmed: set[str] = field(default_factory=set, init=False)

    def take_request(self, request: RetrainRequest) -> None:
        """Somebody asks for training or a rollback."""
        self.requests.take_request(request)

    def take_drift(self, alert: DriftAlert) -> None:
        """Remember since when it drifts."""
        self._onsets_ms.setdefault(alert.alert_id, alert.onset_ms)

    def take_event(self, event: ModelEvent) -> None:
        """An answer, or a change of what serves."""
        self.requests.take_event(event)
        self.said[event.kind] += 1
        if event.kind == "confirmed":
            self._confirmed.add(event.version)
        if event.kind in SERVING and (self.serving is None or event.at_ms >= self.serving.at_ms):
            self.serving = event

    def onset_ms(self, request: RetrainRequest) -> int | None:
        """Since when all of the request's drifts are there; None where none is known."""
        found = [self._onsets_ms.get(alert_id) for alert_id in request.alert_ids]
        return max((onset_ms for onset_ms in found if onset_ms is not None), default=None)

    def on_probation(self) -> ModelEvent | None:
        """The promotion of the serving version, until it is confirmed or rolled back."""
        event = self.serving
        if event is None or event.kind != "promoted" or event.version in self._confirmed:
            return None
        return event
