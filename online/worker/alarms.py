"""Which drifts hold, by what the owner says on the topic."""

from __future__ import annotations

from freshet.stream.schemas import DriftAlert

MAX_OVER = 10_000  # alarms that ended and are remembered, since older news may come again


class Alarms:
    """The newest record of every alarm of one resolution; older ones change nothing.

    Args:
        resolution_ms: Whose alarms.
    """

    def __init__(self, resolution_ms: int) -> None:
        self._resolution_ms = resolution_ms
        self._newest: dict[str, DriftAlert] = {}
        self._news: list[DriftAlert] = []

    def take(self, alert: DriftAlert) -> None:
        """Take in a record, in whatever order they come."""
        if not alert.concerns(self._resolution_ms):
            return
        known = self._newest.get(alert.alert_id)
        if known is not None and (alert == known or alert.detected_at_ms < known.detected_at_ms):
            return
        self._newest[alert.alert_id] = alert
        self._news.append(alert)
        over = [name for name, one in self._newest.items() if one.state != "drift"]
        for name in over[:-MAX_OVER]:
            del self._newest[name]

    def news(self) -> list[DriftAlert]:
        """What was said since this was asked last."""
        news, self._news = self._news, []
        return news

    def held(self) -> list[DriftAlert]:
        """Alarms that hold."""
        return [alert for alert in self._newest.values() if alert.state == "drift"]

    @property
    def newest_ms(self) -> int:
        """When anything was detected last; -1: never."""
        return max((alert.detected_at_ms for alert in self._newest.values()), default=-1)
