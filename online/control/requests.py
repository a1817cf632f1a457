"""Which requests for new weights are open, answered or superseded: records in, state out. Pure.

Control asks it before it asks for more; learn asks it what to do next. Both feed it every record of
the retrain and models topics, in any interleaving and as often as they come.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from freshet.stream.schemas import ModelEvent, RetrainRequest

ANSWERS = frozenset({"promoted", "rejected", "rolled_back"})


@dataclass(slots=True)
class RequestLedger:
    """A request is open until an answer names it; the first record of an id counts."""

    _requests: dict[str, RetrainRequest] = field(default_factory=dict, init=False)
    _answers: dict[str, str] = field(default_factory=dict, init=False)

    def take_request(self, request: RetrainRequest) -> None:
        """Somebody asks for training or a rollback."""
        self._requests.setdefault(request.request_id, request)

    def take_event(self, event: ModelEvent) -> None:
        """Learn says something; some of that answers a request."""
        if event.kind in ANSWERS and event.request_id:
            self._answers.setdefault(event.request_id, event.kind)

    def answer(self, request: RetrainRequest) -> str | None:
        """The kind of event that answered it; None while it is open."""
        return self._answers.get(request.request_id)

    def trainings(self) -> list[RetrainRequest]:
        """Every request for training, answered or not, as they came."""
        return [request for request in self._requests.values() if request.reason != "rollback"]

    def of_alert(self, alert_id: str) -> list[RetrainRequest]:
        """The requests that a drift alert led to."""
        return [request for request in self._requests.values() if alert_id in request.alert_ids]

    def open_trainings(self) -> list[RetrainRequest]:
        """Requests for training that nobody answered, as they came."""
        return [request for request in self.trainings() if self.answer(request) is None]

    def open_training(self) -> RetrainRequest | None:
        """The newest request for training, unless it was answered."""
        newest = self._newest_training()
        return newest if newest is not None and self.answer(newest) is None else None

    def superseded(self) -> list[RetrainRequest]:
        """Open requests for training that are older than another one, answered or not."""
        newest = self._newest_training()
        return [request for request in self.open_trainings() if request is not newest]

    def open_rollback(self) -> RetrainRequest | None:
        """The oldest rollback that nobody answered."""
        rollbacks = [
            request
            for request in self._requests.values()
            if request.reason == "rollback" and self.answer(request) is None
        ]
        return min(rollbacks, key=_age, default=None)

    def _newest_training(self) -> RetrainRequest | None:
        return max(self.trainings(), key=_age, default=None)


def _age(request: RetrainRequest) -> tuple[int, str]:
    # The id decides between requests of one moment, so that every process chooses the same one.
    return request.requested_at_ms, request.request_id
