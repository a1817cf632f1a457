"""What the topics say of training: requests without an answer, the version that serves, its
probation. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from freshet.online.control.rules import ANSWERS
from freshet.stream.schemas import DriftAlert, ModelEvent, RetrainRequest

SERVING = frozenset({"promoted", "rolled_back"})


@dataclass(slots=True)
class Ledger:
    """Fed with every record of three topics, in any interleaving and as often as they come."""

    _requests: dict[str, RetrainRequest] = field(default_factory=dict, init=False)
    _answered: set[str] = field(default_factory=set, init=False)
    _onsets_ms: dict[str, int] = field(default_factory=dict, init=False)
    _settled: set[str] = field(default_factory=set, init=False)
    serving: ModelEvent | None = field(default=None, init=False)

    def take_request(self, request: RetrainRequest) -> None:
        """Somebody asks for training or a rollback; the first record of an id counts."""
        self._requests.setdefault(request.request_id, request)

    def take_drift(self, alert: DriftAlert) -> None:
        """Remember since when it drifts."""
        self._onsets_ms.setdefault(alert.alert_id, alert.onset_ms)

    def take_event(self, event: ModelEvent) -> None:
        """An answer, or a change of what serves."""
        if event.kind in ANSWERS and event.request_id:
            self._answered.add(event.request_id)
        if event.kind == "confirmed":
            self._settled.add(event.version)
        if event.kind in SERVING and (self.serving is None or event.at_ms >= self.serving.at_ms):
            self.serving = event

    def rollback(self) -> RetrainRequest | None:
        """The oldest rollback that nobody answered."""
        waiting = [request for request in self._waiting() if request.reason == "rollback"]
        return min(waiting, key=_age, default=None)

    def training(self) -> RetrainRequest | None:
        """The newest request for training that nobody answered, unless a newer one was answered."""
        request = max(self._trainings(), key=_age, default=None)
        return request if request is not None and request.request_id not in self._answered else None

    def superseded(self) -> list[RetrainRequest]:
        """Requests for training that were not answered and are older than another one."""
        newest = max(self._trainings(), key=_age, default=None)
        return [
            request
            for request in self._waiting()
            if request.reason != "rollback" and request is not newest
        ]

    def onset_ms(self, request: RetrainRequest) -> int | None:
        """Since when all of the request's drifts are there; None where none is known."""
        known = [
            self._onsets_ms[alert_id]
            for alert_id in request.alert_ids
            if alert_id in self._onsets_ms
        ]
        return max(known, default=None)

    def on_probation(self) -> ModelEvent | None:
        """The promotion of the serving version, until it is confirmed or rolled back."""
        event = self.serving
        return (
            event
            if event is not None and event.kind == "promoted" and event.version not in self._settled
            else None
        )

    def _waiting(self) -> list[RetrainRequest]:
        return [
            request
            for request_id, request in self._requests.items()
            if request_id not in self._answered
        ]

    def _trainings(self) -> list[RetrainRequest]:
        return [request for request in self._requests.values() if request.reason != "rollback"]


def _age(request: RetrainRequest) -> tuple[int, str]:
    return request.requested_at_ms, request.request_id
