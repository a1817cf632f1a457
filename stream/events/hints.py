"""Why a record is lost, and what a person can change about it: the setting, by its name."""

from __future__ import annotations

import re
from typing import Final

from freshet.stream.units import DAY_MS

YEAR_MS: Final = 366 * DAY_MS
LATE: Final = "late"
OLD: Final = "old"

_FIELD: Final = re.compile(r"the field '([^']+)'")
_OF_CLASS: Final = {
    "Undecodable": "{section}.format and {section}.envelope say what the bytes are",
    "NullValue": '{section}.tombstones = "skip" passes over records without a value',
    "DeepNesting": "events.max_depth is the limit",
    "OversizedValue": "kafka.max_record_bytes is the limit",
    "OversizedKey": "is one of events.series_by a free text? It names the series",
    "KeyMismatch": 'key the topic by order_id, or set events.orders.key = "any"',
    "DictionaryFull": "does events.series_by hold an id that is new with each order? Else raise "
    "windows.max_items_per_partition",
    "FutureEvent": "is the producer's clock right, and event_time read in its unit and zone "
    "({section}.fields.event_time: time, zone)?",
    "InvalidTime": "{section}.fields.event_time: `time` says how it is written (s, ms, us, ns, "
    "rfc3339, a format), `zone` or events.time_zone where texts name none",
    "OutOfRange": "are cents read as units ({section}.fields: scale = 0.01), or is a quantity 0? "
    "What is no sale can be left out by {section}.skip_when",
    "InvalidHeader": "another program writes headers that begin with freshet-",
    "InvalidHistory": "the header freshet-history is for `freshet history load` alone",
}
_OF_SKIPPED: Final = {
    "keep_when": "{section}.keep_when does not hold for them: is its path where the records have "
    "it, and are its values theirs?",
    "skip_when": "{section}.skip_when holds for them: is it meant to?",
    "tombstone": "they have no value: {section}.tombstones, or a deleted row",
    "history_complete": "nothing: each says that a load of history is complete",
}


def hint_of(section: str, error_class: str, message: str = "") -> str:
    """What to change so that records like it count.

    Args:
        section: Of the settings, such as `events.orders`.
        error_class: As its dead letter has it; or LATE, OLD.
        message: What its dead letter says.

    >>> hint_of("events.orders", "MissingField", "the field 'region' is missing")
    'events.orders.fields.region says where it is; its `default` stands where there is none'
    """
    if error_class == LATE:
        return (
            "do they come later than windows.allowed_lateness_ms? Is event_time read in its zone "
            f"({section}.fields.event_time: zone)? Old orders come by `freshet history load`"
        )
    if error_class == OLD:
        return (
            f'are seconds read as milliseconds ({section}.fields.event_time: time = "s", or '
            "events.time_unit)? Orders that are truly old come by `freshet history load`"
        )
    if message.startswith("the kind of click"):
        return f"{section}.fields.kind: `words` says what each means; skip_when leaves some out"
    field = _FIELD.search(message)
    if field and error_class in ("MissingField", "InvalidField"):
        return _of_field(section, field[1], error_class, message)
    if error_class == "MissingField":
        return f"{section}.fields says where each field is"
    return _OF_CLASS.get(error_class, f"does {section}.fields fit these records?").format(
        section=section
    )


def skip_hint(section: str, reason: str) -> str:
    """What to change so that records skipped for this reason count.

    >>> skip_hint("events.clicks", "skip_when")
    'events.clicks.skip_when holds for them: is it meant to?'
    """
    return _OF_SKIPPED.get(reason, "they say nothing of a row: {section}.envelope").format(
        section=section
    )


def _of_field(section: str, name: str, error_class: str, message: str) -> str:
    rule = f"{section}.fields.{name}"
    if error_class == "MissingField":
        return f"{rule} says where it is; its `default` stands where there is none"
    if "words lack" in message:
        return f'{rule}: `words` says what each word means, "*" any other'
    if "expected a number" in message:
        return f'{rule}: `number` says how it is written, such as "1.299,00"'
    return f"does {rule} lead to what is meant?"
