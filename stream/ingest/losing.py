"""Says aloud that much of what a topic has brought of late is lost: log, metric, alert."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from freshet.stream.clock import Clock
from freshet.stream.events.hints import OLD
from freshet.stream.ingest.alerts import State, ingest_alert
from freshet.stream.ingest.losses import LOST, Ledger, Report, lost_share
from freshet.stream.ingest.metrics import IngestMetrics
from freshet.stream.ingest.outbox import FoldedBatch
from freshet.stream.ingest.versions import JudgedBatch
from freshet.stream.kafka import Key, Message
from freshet.stream.schemas import Alert
from freshet.stream.telemetry import get_logger

WINDOW_S: Final = 60.0
LONGEST_WINDOW_S: Final = 3_600.0
ENOUGH: Final = 20
"""Of fewer records in a minute those before are looked at too: a small shop has one an hour."""
FEWEST_LOST: Final = 2
MAX_SKIPPED_SHARE: Final = 0.95
REPEAT_S: Final = 600.0
MAX_TOLD: Final = 1_000
SHARES: Final = {"late_dropped": "late", "dead_letter": "dead", OLD: OLD, "skipped": "skipped"}

What = Literal["lost", "skipped"]

log = get_logger(__name__)


class Recent:
    """What became of a topic's records in the last minute, or of the newest twenty.

    >>> recent = Recent()
    >>> recent.count(0.0, Counter(read=20, dead_letter=20))
    >>> recent.count(61.0, Counter(read=20))
    >>> recent.look(61.0)["dead_letter"]
    0
    """

    def __init__(self) -> None:
        self._bins: deque[tuple[float, Counter[str]]] = deque()
        self._total: Counter[str] = Counter()

    def count(self, now_s: float, counts: Mapping[str, int]) -> None:
        """Take in a batch."""
        if not self._bins or now_s - self._bins[-1][0] >= 1.0:
            self._bins.append((now_s, Counter()))
        self._bins[-1][1].update(counts)
        self._total.update(counts)

    def look(self, now_s: float) -> Counter[str]:
        """What there is, once what is older is forgotten."""
        while self._bins:
            at_s, first = self._bins[0]
            needed = self._total["read"] - first["read"] < ENOUGH
            if now_s - at_s < (LONGEST_WINDOW_S if needed else WINDOW_S):
                break
            self._bins.popleft()
            self._total.subtract(first)
        return self._total


def found_in(counts: Mapping[str, int], max_lost_share: float) -> set[What]:
    """Whether more is lost or skipped than can be meant; one lost record is not yet a fault.

    >>> sorted(found_in({"read": 400, "skipped": 390, "old": 2}, 0.05))
    ['lost', 'skipped']
    >>> found_in({"read": 40, "dead_letter": 2}, 0.05)
    set()
    """
    found: set[What] = set()
    read, skipped = counts.get("read", 0), counts.get("skipped", 0)
    num_lost = sum(counts.get(name, 0) for name in LOST)
    if num_lost >= FEWEST_LOST and lost_share(counts) > max_lost_share:
        found.add("lost")
    if read >= ENOUGH and skipped > MAX_SKIPPED_SHARE * read:
        found.add("skipped")
    return found


@dataclass(slots=True)
class _Said:
    """Since when something is so, by the shop's clock, and when it was logged last."""

    since_ms: int
    logged_s: float


class Losses:
    """Counts what became of records, and tells people while too many are lost.

    Args:
        ledger: The books of this run.
        metrics: Where counts and shares go.
        clock: Times of alerts.
        alert: Sends an alert.
        subject: Whose alerts they are: the consumer group's prefix.
        max_lost_share: What of a topic may be lost.
    """

    def __init__(
        self,
        ledger: Ledger,
        metrics: IngestMetrics,
        clock: Clock,
        *,
        alert: Callable[[Alert], None],
        subject: str,
        max_lost_share: float,
    ) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._clock = clock
        self._alert = alert
        self._subject = subject
        self._max_lost_share = max_lost_share
        self._recent: dict[str, Recent] = {}
        self._said: dict[tuple[str, What], _Said] = {}

    def applied(self, batch: FoldedBatch) -> None:
        """A batch of events is in."""
        topic, fold = batch.key[0], batch.fold
        self._metrics.batch_applied(topic, fold.counts, fold.skip_reasons)
        self._count(topic, self._ledger.add(batch))

    def kept(self, key: Key, messages: Sequence[Message], batch: JudgedBatch) -> None:
        """A batch of a table is in."""
        counts = self._ledger.keep(key, messages, batch)
        self._metrics.kept(key[0], counts)
        self._count(key[0], counts)

    def report(self) -> Report:
        """The books of this run so far."""
        return self._ledger.report()

    def look(self, now_s: float | None = None) -> None:
        """Say what is amiss, again every ten minutes, and what is over."""
        now_s = time.monotonic() if now_s is None else now_s
        for topic, recent in self._recent.items():
            counts = recent.look(now_s)
            found = found_in(counts, self._max_lost_share)
            self._show(topic, counts, found)
            for what in found:
                self._say(topic, what, counts, now_s)
            for what in {what for of, what in self._said if of == topic} - found:
                self._over(topic, what)

    def close(self) -> None:
        """Whoever reads on will say it anew."""
        for topic, what in list(self._said):
            self._over(topic, what)

    def _count(self, topic: str, counts: Mapping[str, int]) -> None:
        self._recent.setdefault(topic, Recent()).count(time.monotonic(), counts)

    def _show(self, topic: str, counts: Mapping[str, int], found: set[What]) -> None:
        """A share that says nothing yet, of a record or two, is shown as 0."""
        ours = counts["read"] - counts["skipped"]
        for name, label in SHARES.items():
            skipped = name == "skipped"
            of = counts["read"] if skipped else ours
            told = counts["read"] >= ENOUGH or ("skipped" if skipped else "lost") in found
            share = counts[name] / of if of and told else 0.0
            self._metrics.recent_share.labels(topic, label).set(share)

    def _say(self, topic: str, what: What, counts: Mapping[str, int], now_s: float) -> None:
        said = self._said.get((topic, what))
        if said is not None and now_s - said.logged_s < REPEAT_S:
            return
        reason = self._warn(topic, what, counts)
        if said is not None:
            said.logged_s = now_s
            return
        since_ms = self._clock.now_ms()
        self._said[topic, what] = _Said(since_ms, now_s)
        names = LOST if what == "lost" else ("skipped",)
        text = f"{sum(counts[name] for name in names)} of {counts['read']} records: {reason}"
        self._tell("firing", topic, what, text, since_ms)

    def _warn(self, topic: str, what: What, counts: Mapping[str, int]) -> str:
        """A line of the log; the commonest cause."""
        shown = {label: counts[name] for name, label in SHARES.items() if counts[name]}
        shown["read"] = counts["read"]
        if what == "skipped":
            reason = self._ledger.why_skipped(topic)
            log.warning("records_skipped", topic=topic, reason=reason, **shown)
        else:
            reason = self._ledger.why(topic)
            log.warning("records_lost", topic=topic, reason=reason, **shown)
        return reason

    def _over(self, topic: str, what: What) -> None:
        said = self._said.pop((topic, what))
        log.info("over", topic=topic, what=what)
        self._tell("resolved", topic, what, "it is over, or ingest was stopped", said.since_ms)

    def _tell(self, state: State, topic: str, what: What, text: str, since_ms: int) -> None:
        title = f"Records of {topic} are {what}"
        self._alert(
            ingest_alert(
                state,
                f"{self._subject}/{topic}",
                kind=what,
                severity="warning",
                title=title,
                description=text[:MAX_TOLD],
                starts_at_ms=since_ms,
                at_ms=self._clock.now_ms(),
            )
        )
