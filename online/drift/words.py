"""What an alarm says to a person: one sentence, and what to do."""

from __future__ import annotations

from freshet.stream.schemas import DriftKind

ALL = "all"
SILENT_BUCKETS = 2
ACTIONS: dict[DriftKind, str] = {
    "level": (
        "fine-tune on the newest data; "
        "if a price, promotion or assortment change explains it, announce it"
    ),
    "spread": (
        "fine-tune on the newest data; until then trust the wide quantiles, not the narrow ones"
    ),
    "timing": "fine-tune on the newest data: the shape of the day has changed",
    "data": "check the order feed of this segment before anything else; do not train on it",
}
# Up to which share of what was forecast which words are used. Few hours tell a factor roughly, and
# whoever reads of +799 % believes nothing any more.
SHARES = (
    (0.3, "less than a third of"),
    (0.6, "about half of"),
    (0.85, "about a quarter less than"),
    (1.0, "a little less than"),
    (1.15, "a little more than"),
    (1.35, "about a quarter more than"),
    (1.75, "about one and a half times"),
    (2.5, "about twice"),
    (3.5, "about three times"),
)
MOST = "more than three times"


def share_in_words(share: float) -> str:
    """A factor as a person would say it.

    >>> share_in_words(1.6), share_in_words(9.0)
    ('about one and a half times', 'more than three times')
    """
    return next((words for most, words in SHARES if share <= most), MOST)


def describe(segment: str, kind: DriftKind, size: float, share: float | None) -> str:
    """One sentence for a person.

    Args:
        segment: Whose alarm.
        kind: Of it.
        size: Below 0 where less is sold.
        share: What was sold of what was forecast, None where it cannot be told.
    """
    name = "the whole shop" if segment == ALL else segment
    if kind == "data":
        return (
            f"{name}: nothing was sold in the last {SILENT_BUCKETS} buckets, "
            "though sales were forecast"
        )
    if kind == "spread":
        return f"{name}: sales scatter more about the forecasts than these say"
    if kind == "timing":
        return f"{name}: sales fall at other times of the day than forecast"
    if share is None or (share > 1.0) != (size > 0):
        side = "above" if size > 0 else "below"
        return f"{name}: sales run {side} the forecasts"
    return f"{name}: sales are {share_in_words(share)} what was forecast"
