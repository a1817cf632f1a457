"""The life of an alert: firing, updated, resolved, under a fingerprint that stays the same. Pure.

A book of alerts turns signals ("this is so", "this is over") into `Alert` records, and says nothing
where nothing changed. Its state is the newest record of each fingerprint, so it is restored by
reading the alerts topic.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import xxhash

from freshet.stream.codec import rfc3339
from freshet.stream.schemas import Alert, AlertData, DriftAlert, ModelEvent, Promotion

SOURCE = "/freshet/control"
DRIFT_TYPE = "io.freshet.drift"
MODEL_TYPE = "io.freshet.model"
FLASH_SALE_TYPE = "io.freshet.flash_sale"
Severity = Literal["info", "warning", "critical"]
State = Literal["firing", "updated", "resolved"]
DRIFT_SEVERITIES: dict[str, Severity] = {"warning": "warning", "drift": "critical"}
MODEL_FAILURES: dict[str, Severity] = {
    "rejected": "warning",
    "rolled_back": "critical",
    "swap_failed": "critical",
}
# Which troubles a model event ends.
MODEL_CURES = {
    "promoted": ("rejected",),
    "confirmed": ("rejected", "rolled_back"),
    "swapped": ("swap_failed",),
}
MAX_RESOLVED = 10_000


@dataclass(frozen=True, slots=True)
class Signal:
    """Something is so, or is over.

    Attributes:
        type: CloudEvents type, such as `io.freshet.drift`.
        subject: What it is about: a segment, a promotion, "champion".
        kind: Which trouble of that type; "" in a signal that is over resolves every kind.
        active: It is so; False: it is over.
        at_ms: When this was noticed; older signals than the last of a fingerprint are redeliveries.
        starts_at_ms: Since when it is so.
    """

    type: str
    subject: str
    kind: str
    active: bool
    at_ms: int
    starts_at_ms: int
    severity: Severity = "info"
    title: str = ""
    description: str = ""


@dataclass(slots=True)
class AlertBook:
    """The newest record of every fingerprint."""

    _newest: dict[str, Alert] = field(default_factory=dict, init=False)

    def restore(self, alert: Alert) -> None:
        """Take over a record of the alerts topic.

        The newest of a fingerprint wins, at a tie the one that was read later.
        """
        known = self._newest.get(alert.subject)
        if known is None or alert.data.updated_at_ms >= known.data.updated_at_ms:
            self._newest[alert.subject] = alert

    def apply(self, signal: Signal) -> list[Alert]:
        """The records that this signal makes, none for a redelivery.

        The caller publishes them, then calls `restore`.
        """
        if signal.active:
            return self._fire(signal)
        return [self._resolve(alert, signal) for alert in self._concerned(signal)]

    def known(self) -> list[Alert]:
        """The newest record of each alert."""
        return list(self._newest.values())

    def firing(self) -> list[Alert]:
        """Alerts that are not resolved, oldest first."""
        active = [alert for alert in self._newest.values() if alert.data.state != "resolved"]
        return sorted(active, key=lambda alert: alert.data.starts_at_ms)

    def forget_resolved(self) -> None:
        """Drop the oldest resolved alerts beyond MAX_RESOLVED."""
        resolved = [alert for alert in self._newest.values() if alert.data.state == "resolved"]
        resolved.sort(key=lambda alert: alert.data.updated_at_ms)
        too_many = max(0, len(resolved) - MAX_RESOLVED)
        for alert in resolved[:too_many]:
            del self._newest[alert.subject]

    def _fire(self, signal: Signal) -> list[Alert]:
        subject = fingerprint(signal.type, signal.subject, signal.kind)
        known = self._newest.get(subject)
        if known is None or known.data.state == "resolved":
            stale = known is not None and signal.at_ms <= known.data.updated_at_ms
            return [] if stale else [_record(signal, subject, "firing", signal.starts_at_ms)]
        told = known.data.severity, known.data.title, known.data.description
        if told == (signal.severity, signal.title, signal.description):
            return []
        if signal.at_ms < known.data.updated_at_ms:
            return []
        return [_record(signal, subject, "updated", known.data.starts_at_ms)]

    def _concerned(self, signal: Signal) -> list[Alert]:
        """Firing alerts that a signal ends."""
        wanted = {"type": signal.type, "subject": signal.subject}
        if signal.kind:
            wanted["kind"] = signal.kind
        return [
            alert
            for alert in self.firing()
            if wanted.items() <= alert.data.labels.items()
            and signal.at_ms >= alert.data.updated_at_ms
        ]

    def _resolve(self, alert: Alert, signal: Signal) -> Alert:
        fired = alert.data
        over = replace(
            signal,
            kind=fired.labels.get("kind", signal.kind),
            severity=fired.severity,
            title=fired.title,
            description=signal.description or fired.description,
        )
        return _record(over, alert.subject, "resolved", fired.starts_at_ms)


def fingerprint(type_: str, subject: str, kind: str) -> str:
    """The stable name of one trouble.

    >>> fingerprint("io.freshet.drift", "shoes", "level")
    'c3a9365d54f7b6d5'
    """
    return xxhash.xxh3_64_hexdigest("\x1f".join((type_, subject, kind)).encode())


def drift_signal(alert: DriftAlert) -> Signal:
    """A warning or drift fires its kind, stable ends every kind of the segment."""
    active = alert.state != "stable"
    return Signal(
        type=DRIFT_TYPE,
        subject=alert.segment,
        kind=alert.kind if active else "",
        active=active,
        at_ms=alert.detected_at_ms,
        starts_at_ms=alert.onset_ms,
        severity=DRIFT_SEVERITIES.get(alert.state, "info"),
        title=f"Forecasts of {alert.segment} drift in {alert.kind}",
        description=f"{alert.description} {alert.action}".strip(),
    )


def model_signals(event: ModelEvent) -> list[Signal]:
    """Failures fire; a promotion or a swap that went well ends them."""
    severity = MODEL_FAILURES.get(event.kind)
    if severity is None:
        return [_champion_signal(event, kind) for kind in MODEL_CURES.get(event.kind, ())]
    return [
        replace(
            _champion_signal(event, event.kind),
            active=True,
            severity=severity,
            title=f"Weights {event.version}: {event.kind.replace('_', ' ')}",
            description=event.reason,
        )
    ]


def _champion_signal(event: ModelEvent, kind: str) -> Signal:
    """A trouble of the weights that serve is over."""
    return Signal(
        type=MODEL_TYPE,
        subject="champion",
        kind=kind,
        active=False,
        at_ms=event.at_ms,
        starts_at_ms=event.at_ms,
    )


def flash_sale_signal(
    sale: Promotion, *, starts_at_ms: int, ends_at_ms: int, now_ms: int
) -> Signal:
    """A flash sale is on, or not (yet, any more)."""
    what = sale.sku or sale.category or "the shop"
    return Signal(
        type=FLASH_SALE_TYPE,
        subject=sale.promotion_id,
        kind=sale.kind,
        active=starts_at_ms <= now_ms < ends_at_ms,
        at_ms=now_ms,
        starts_at_ms=starts_at_ms,
        severity="info",
        title=f"Flash sale on {what}",
        description=f"{sale.discount:.0%} off {what} until {rfc3339(ends_at_ms)}",
    )


def _record(signal: Signal, subject: str, state: State, starts_at_ms: int) -> Alert:
    data = AlertData(
        state=state,
        severity=signal.severity,
        title=signal.title,
        description=signal.description,
        starts_at_ms=starts_at_ms,
        updated_at_ms=signal.at_ms,
        labels={"type": signal.type, "subject": signal.subject, "kind": signal.kind},
        ends_at_ms=signal.at_ms if state == "resolved" else None,
    )
    # Equal records have equal ids, so that one which a crash made twice can be recognised.
    identity = f"{subject}\x1f{state}\x1f{signal.at_ms}\x1f{signal.description}"
    return Alert(
        id=xxhash.xxh3_64_hexdigest(identity.encode()),
        source=SOURCE,
        type=signal.type,
        subject=subject,
        time=rfc3339(signal.at_ms),
        data=data,
    )
