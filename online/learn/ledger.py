"""What the topics say of training: requests, the version that serves, its probation. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from freshet.online.control.requests import RequestLedger
from freshet.online.judge.sequential import error_of_attempt
from freshet.online.weights.announced import Announcements, Check, Refused, assignment_of
from freshet.online.weights.assignment import Assignment
from freshet.stream.errors import FreshetError
from freshet.stream.schemas import DriftAlert, ModelEvent, RetrainRequest
from freshet.stream.units import DAY_MS

WEEK_MS, YEAR_MS = 7 * DAY_MS, 365 * DAY_MS


@dataclass(slots=True)
class Ledger:
    """Fed with every record of three topics, in any interleaving and as often as they come.

    Attributes:
        check: Raises for an announcement of weights that may not be believed.
        requests: Which requests are open.
        said: How many events of each kind were taken in.
    """

    check: Check
    requests: RequestLedger = field(default_factory=RequestLedger, init=False)
    said: Counter[str] = field(default_factory=Counter, init=False)
    _onsets_ms: dict[str, int] = field(default_factory=dict, init=False)
    _failed_ms: int | None = field(default=None, init=False)
    _confirmed: set[str] = field(default_factory=set, init=False)
    _promotions: dict[str, ModelEvent] = field(default_factory=dict, init=False)
    _announced: Announcements = field(init=False)

    def __post_init__(self) -> None:
        self._announced = Announcements(self.check)

    @property
    def serving(self) -> ModelEvent | None:
        """The event by which those serve that do; None where that was never said."""
        return self._announced.newest

    @property
    def assignment(self) -> Assignment | None:
        """Who serves whom by that event."""
        return None if self.serving is None else assignment_of(self.serving)

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
        self._announced.take(event)
        if event.kind == "confirmed" and self._holds(event):
            self._confirmed.add(event.version)
        known = self._promotions.get(event.version)
        newest = known is None or event.at_ms >= known.at_ms
        if event.kind == "promoted" and newest and self._holds(event):
            self._promotions[event.version] = event
        if event.kind == "rolled_back" and event.gate and self._holds(event):
            self._failed_ms = max(event.at_ms, self._failed_ms or 0)

    @property
    def lesson_ms(self) -> int | None:
        """When a version last failed its probation; None where none has.

        What a challenger is judged on must be newer: the buckets before have promoted one that
        failed, and would again.
        """
        return self._failed_ms

    def reconsider(self) -> None:
        """Look again at announcements that were refused: the registry may have been away."""
        self._announced.reconsider()

    def next_refusal(self) -> Refused | None:
        """An announcement that does not count, to be told once; None where all is told."""
        return self._announced.next_refusal()

    def onset_ms(self, request: RetrainRequest) -> int | None:
        """Since when all of the request's drifts are there; None where none is known."""
        found = [self._onsets_ms.get(alert_id) for alert_id in request.alert_ids]
        return max((onset_ms for onset_ms in found if onset_ms is not None), default=None)

    def error_of(self, request: RetrainRequest, error: float) -> float:
        """The chance that the request's challenger may have to pass though it is no better.

        For a drift the error is that of all attempts of its alert. What the schedule asks for may
        promote one equal challenger in a year, however often it asks.
        """
        if request.reason == "drift":
            return error_of_attempt(error, self.requests.judged_before(request))
        if request.reason != "schedule":
            return error
        before = self.requests.scheduled_before(request)
        since_ms = WEEK_MS if before is None else request.requested_at_ms - before.requested_at_ms
        return min(error, since_ms / YEAR_MS)

    def on_probation(self) -> ModelEvent | None:
        """The promotion of the version that serves since, until it is confirmed or rolled back.

        One that was taken back for some segments, and serves others still, is on probation there.
        """
        event, assignment = self.serving, self.assignment
        if event is None or assignment is None:
            return None
        promoted = event.kind == "promoted"
        promotion = event if promoted else self._promotions.get(event.parent)
        if promotion is None or promotion.version in self._confirmed:
            return None
        return promotion if promotion.version in assignment.versions else None

    def _holds(self, event: ModelEvent) -> bool:
        try:
            self.check(event)
        except FreshetError:
            return False
        return True
