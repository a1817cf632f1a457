"""When training is asked for: a pure state machine over drift alerts, requests and their answers.

The state is a function of the topics read so far, and a request's id is a hash of what led to it.
So a control process that starts anew, or reads an alert twice, asks for the same thing again at
most, and `learn` answers each id once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import xxhash

from freshet.online.control.requests import RequestLedger
from freshet.stream.schemas import DriftAlert, ModelEvent, RetrainRequest
from freshet.stream.units import DAY_MS

MAX_ATTEMPTS = 3
MAX_NAMED = 10_000  # what a record may name; the others drift on, and are named next time
# A request that nobody answered for so many cool-downs no longer stops the next one.
MAX_OUTSTANDING_COOLDOWNS = 4
# A challenger may be watched for a week; what is not over after two is forgotten.
MAX_TRIAL_MS = 14 * DAY_MS


@dataclass(slots=True)
class RetrainRules:
    """Feed it every record of three topics in any interleaving, then ask what is due.

    Args:
        cooldown_ms: Least time between two requests.
        min_new_data_ms: Least time between a drift's onset and the request.
        schedule_ms: Time between scheduled requests; 0 is never.
        started_at_ms: The clock when the schedule began, None for the first time `due` is asked;
            earlier slots are not made up for.
    """

    cooldown_ms: int
    min_new_data_ms: int
    schedule_ms: int
    started_at_ms: int | None = None
    _drifting: dict[str, DriftAlert] = field(default_factory=dict, init=False)
    _latest_ms: dict[str, int] = field(default_factory=dict, init=False)
    _requests: RequestLedger = field(default_factory=RequestLedger, init=False)

    def take_drift(self, alert: DriftAlert) -> None:
        """A segment drifts or is stable again; alerts older than the newest change nothing."""
        if alert.detected_at_ms < self._latest_ms.get(alert.segment, 0):
            return
        self._latest_ms[alert.segment] = alert.detected_at_ms
        if alert.state == "drift":
            self._drifting[alert.segment] = alert
        elif alert.state == "stable":
            self._drifting.pop(alert.segment, None)

    def take_request(self, request: RetrainRequest) -> None:
        """Somebody, perhaps this process, asked for training."""
        self._requests.take_request(request)

    def take_event(self, event: ModelEvent) -> None:
        """`learn` answered a request."""
        self._requests.take_event(event)

    def waiting(self) -> int:
        """How many requests for training have no answer."""
        return len(self._requests.open_trainings())

    def due(self, now_ms: int) -> RetrainRequest | None:
        """What to ask for now, or None; the same again until the request was taken in.

        A drift waits for other drifts and for persons, and not for what the schedule asked for.
        """
        every = self._requests.trainings()
        hurried = [request for request in every if request.reason != "schedule"]
        drift = None if self._waits(hurried, now_ms) else self._drift_request(now_ms)
        if drift is not None or self._waits(every, now_ms):
            return drift
        return self._scheduled_request(now_ms, _newest_ms(every))

    def hurried(self) -> RetrainRequest | None:
        """What a drift or a person asked for and nobody answered; None where there is nothing."""
        opened = self._requests.open_training()
        return None if opened is None or opened.reason == "schedule" else opened

    def _waits(self, requests: list[RetrainRequest], now_ms: int) -> bool:
        """One of these was made a short while ago, or is not done with."""
        asked_ms = _newest_ms(requests)
        cooling_down = asked_ms is not None and now_ms - asked_ms < self.cooldown_ms
        return cooling_down or any(self._outstanding(request, now_ms) for request in requests)

    def _outstanding(self, request: RetrainRequest, now_ms: int) -> bool:
        if self._requests.answer(request) is not None:
            return False
        oldest_ms = now_ms - MAX_OUTSTANDING_COOLDOWNS * self.cooldown_ms
        return request.requested_at_ms > oldest_ms or self._on_trial(request, now_ms)

    def _on_trial(self, request: RetrainRequest, now_ms: int) -> bool:
        """Its challenger is still watched: one at a time."""
        since_ms = self._requests.on_trial_ms(request)
        return since_ms is not None and now_ms < since_ms + MAX_TRIAL_MS

    def _drift_request(self, now_ms: int) -> RetrainRequest | None:
        alerts = [alert for alert in self._drifting.values() if self._wants_training(alert)]
        # One that is too young waits, and goes along with one that is old enough.
        if not any(now_ms - alert.onset_ms >= self.min_new_data_ms for alert in alerts):
            return None
        alert_ids = sorted(alert.alert_id for alert in alerts)
        attempt = max(self._attempts(alert_id) for alert_id in alert_ids)
        return RetrainRequest(
            request_id=request_id_of("drift", *alert_ids, str(attempt)),
            requested_at_ms=now_ms,
            reason="drift",
            segments=sorted(alert.segment for alert in alerts)[:MAX_NAMED],
            alert_ids=alert_ids[:MAX_NAMED],
        )

    def _wants_training(self, alert: DriftAlert) -> bool:
        """Not of data that are broken, never trained for with success, nor in vain too often."""
        made = self._requests.attempts(alert.alert_id)
        promoted = any(
            self._requests.answer(request) == "promoted" and not self._requests.undone(request)
            for request in made
        )
        return alert.kind != "data" and not promoted and len(made) < MAX_ATTEMPTS

    def _attempts(self, alert_id: str) -> int:
        return len(self._requests.of_alert(alert_id))

    def _scheduled_request(self, now_ms: int, asked_ms: int | None) -> RetrainRequest | None:
        if not self.schedule_ms:
            return None
        slot = now_ms // self.schedule_ms
        # A clock that was set back (a replay begins) begins the schedule again.
        started_at_ms = now_ms if self.started_at_ms is None else self.started_at_ms
        self.started_at_ms = min(now_ms, started_at_ms)
        since_ms = self.started_at_ms if asked_ms is None else asked_ms
        if slot <= since_ms // self.schedule_ms:
            return None
        return RetrainRequest(
            request_id=request_id_of("schedule", str(slot)),
            requested_at_ms=now_ms,
            reason="schedule",
        )


def _newest_ms(requests: list[RetrainRequest]) -> int | None:
    return max((request.requested_at_ms for request in requests), default=None)


def request_id_of(reason: str, *parts: str) -> str:
    """A request's id: the reason and a hash of what led to it.

    >>> once, again = request_id_of("drift", "a1", "0"), request_id_of("drift", "a1", "0")
    >>> once == again, once == request_id_of("drift", "a1", "1")
    (True, False)
    """
    return f"{reason}-{xxhash.xxh3_64_hexdigest(chr(31).join(parts).encode())}"
