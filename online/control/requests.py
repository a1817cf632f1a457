"""Which requests for new weights are open, answered or superseded: records in, state out. Pure.

Control asks it before it asks for more; learn asks it what to do next. Both feed it every record of
the retrain and models topics, in any interleaving and as often as they come.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from freshet.stream.schemas import ModelEvent, RetrainRequest

ANSWERS = frozenset({"promoted", "rejected", "rolled_back"})
SUPERSEDED = "superseded by a newer request"


@dataclass(slots=True)
class RequestLedger:
    """A request is open until an answer names it; the first record of an id counts."""

    _requests: dict[str, RetrainRequest] = field(default_factory=dict, init=False)
    _answers: dict[str, str] = field(default_factory=dict, init=False)
    _superseded: set[str] = field(default_factory=set, init=False)
    _judged: set[str] = field(default_factory=set, init=False)
    _on_trial_ms: dict[str, int] = field(default_factory=dict, init=False)
    _promoted: dict[str, str] = field(default_factory=dict, init=False)
    _undone: set[str] = field(default_factory=set, init=False)
    _trial_days: dict[str, float] = field(default_factory=dict, init=False)
    _gains: dict[str, float] = field(default_factory=dict, init=False)

    def take_request(self, request: RetrainRequest) -> None:
        """Somebody asks for training or a rollback."""
        self._requests.setdefault(request.request_id, request)

    def take_event(self, event: ModelEvent) -> None:
        """Learn says something; some of that answers a request."""
        request_id = event.request_id
        if event.kind == "trial":
            first_ms = self._on_trial_ms.get(request_id, event.at_ms)
            self._on_trial_ms[request_id] = min(first_ms, event.at_ms)
            days = float(event.gate.get("days", 0.0))
            self._trial_days[request_id] = max(days, self.trial_days(request_id))
        serves_on = event.parent in [part.version for part in event.serves]
        if event.kind == "rolled_back" and event.gate and not serves_on:
            # By its probation; what a person takes back is the person's affair.
            self._undone.add(event.parent)
        if event.kind not in ANSWERS or not request_id:
            return
        if event.kind == "promoted":
            self._promoted[request_id] = event.version
        self._answers.setdefault(request_id, event.kind)
        if event.kind == "rejected" and event.reason == SUPERSEDED:
            self._superseded.add(request_id)
        elif event.gate:
            self._judged.add(request_id)
            self._gains[request_id] = float(event.gate.get("gain", 0.0))

    def answer(self, request: RetrainRequest) -> str | None:
        """The kind of event that answered it; None while it is open."""
        return self._answers.get(request.request_id)

    def attempts(self, alert_id: str) -> list[RetrainRequest]:
        """What was tried for a drift alert, or will be: a superseded request was no attempt."""
        made = self.of_alert(alert_id)
        return [request for request in made if request.request_id not in self._superseded]

    def judged_before(self, request: RetrainRequest) -> int:
        """How many challengers were judged for an alert of this request, the most of any."""
        others = self._judged - {request.request_id}
        return max(
            (
                sum(other.request_id in others for other in self.of_alert(alert_id))
                for alert_id in request.alert_ids
            ),
            default=0,
        )

    def on_trial_ms(self, request: RetrainRequest) -> int | None:
        """Since when its challenger is watched; None where there is none, or it is answered."""
        return self._on_trial_ms.get(request.request_id) if self.answer(request) is None else None

    def undone(self, request: RetrainRequest) -> bool:
        """Whether what was promoted for it failed its probation."""
        return self._promoted.get(request.request_id) in self._undone

    def _watched(self, request: RetrainRequest) -> bool:
        return request.request_id in self._on_trial_ms

    def trial_days(self, request_id: str) -> float:
        """How many days of a challenger's trial were told."""
        return self._trial_days.get(request_id, 0.0)

    def gain(self, request: RetrainRequest) -> float:
        """What its challenger was better by when it was answered, sure or not; 0 where none was."""
        return self._gains.get(request.request_id, 0.0)

    def scheduled_before(self, request: RetrainRequest) -> RetrainRequest | None:
        """The scheduled request before this one, without those that nobody looked at."""
        earlier = [
            other
            for other in self._requests.values()
            if other.reason == "schedule"
            and _age(other) < _age(request)
            and not (other.request_id in self._superseded and not self._watched(other))
        ]
        return max(earlier, key=_age, default=None)

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
        """What to train for: the newest drift or person without an answer, then the schedule."""
        return next((one for one in self._newest() if self.answer(one) is None), None)

    def superseded(self) -> list[RetrainRequest]:
        """Open requests for training that a newer one, answered or not, makes needless."""
        newest = self._newest()
        return [request for request in self.open_trainings() if request not in newest]

    def yields(self, request: RetrainRequest) -> bool:
        """Whether it is the schedule's, and makes way for a newer one that has no answer."""
        return request.reason == "schedule" and any(
            _hurried(other) and _age(other) > _age(request) for other in self.open_trainings()
        )

    def open_rollback(self) -> RetrainRequest | None:
        """The oldest rollback that nobody answered."""
        rollbacks = [
            request
            for request in self._requests.values()
            if request.reason == "rollback" and self.answer(request) is None
        ]
        return min(rollbacks, key=_age, default=None)

    def _newest(self) -> list[RetrainRequest]:
        """The newest request of a drift or a person, which the schedule's leave alone; of all."""
        every = self.trainings()
        hurried = [request for request in every if _hurried(request)]
        return [max(some, key=_age) for some in (hurried, every) if some]


def by_hand(request_id: str, now_ms: int, segments: Sequence[str]) -> RetrainRequest:
    """What a person asks for, over HTTP or by the command; some segments may come first."""
    return RetrainRequest(
        request_id=request_id,
        requested_at_ms=now_ms,
        reason="manual",
        segments=sorted(set(segments)),
    )


def new_request_id() -> str:
    """The id of a request that a person makes: no two are alike."""
    return f"manual-{uuid.uuid4().hex}"


def _hurried(request: RetrainRequest) -> bool:
    return request.reason != "schedule"


def _age(request: RetrainRequest) -> tuple[int, str]:
    # The id decides between requests of one moment, so that every process chooses the same one.
    return request.requested_at_ms, request.request_id
