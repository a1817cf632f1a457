"""Our fields of every record that can be mapped, and what each of them is."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final, Literal

from freshet.stream.errors import ConfigError
from freshet.stream.event_settings import AnyRule, EventSettings, MappedKind, Rule

Sort = Literal["text", "number", "time", "flag", "version", "lines", "object"]

LINES: Final = "lines"
LINE_PREFIX: Final = "lines."
ATTRIBUTE_PREFIX: Final = "attributes."
AMOUNTS: Final[dict[str, Sort]] = {"quantity": "number", "unit_price": "number"}
STATE_ONLY: Final[dict[str, Sort]] = {
    "version": "version",
    "changed_at": "time",
    "cancelled": "flag",
    "deleted": "flag",
}
_EVENT: Final[dict[str, Sort]] = {"event_id": "text", "event_time": "time"}
_ORDER: Final[dict[str, Sort]] = {**_EVENT, "order_id": "text", "sku": "text", "region": "text"}
_FIELDS: Final[dict[MappedKind, dict[str, Sort]]] = {
    "orders": {**_ORDER, **AMOUNTS, LINES: "lines"},
    "clicks": {
        **_EVENT,
        **{"session_id": "text", "sku": "text", "region": "text", "kind": "text"},
        LINES: "lines",
    },
    "catalog": {
        "sku": "text",
        "title": "text",
        "category": "text",
        "brand": "text",
        "attributes": "object",
        "unit_price": "number",
        "launched_at": "time",
        "announced_at": "time",
    },
    "promotions": {
        "promotion_id": "text",
        "starts_at": "time",
        "ends_at": "time",
        "discount": "number",
        "kind": "text",
        "sku": "text",
        "category": "text",
        "announced_at": "time",
    },
    "inventory": {
        "sku": "text",
        "on_hand": "number",
        "as_of": "time",
        "region": "text",
        "announced_at": "time",
    },
}
"""By kind: our field = what it is."""

_OPTIONS: Final[dict[Sort, tuple[str, ...]]] = {
    "text": ("words", "default"),
    "number": (
        *("words", "default", "number", "sign", "scale", "minus", "currency"),
        *("per", "otherwise"),
    ),
    "time": ("default", "time", "zone"),
    "flag": ("words", "default"),
    "version": ("time", "zone"),
    "lines": (),
    "object": (),
}
_PLACES: Final = {"path", "value", "header", "key", "timestamp", "jmespath", "join", "by"}


def fields_of(kind: MappedKind, events: EventSettings) -> dict[str, Sort]:
    """All fields that a map of this kind may name."""
    fields = dict(_FIELDS[kind])
    if kind in ("orders", "clicks"):
        fields |= {name: "text" for name in events.series_by if name not in fields}
        lines: dict[str, Sort] = dict.fromkeys(("sku", "region", *events.series_by), "text")
        lines |= AMOUNTS if kind == "orders" else {}
        fields |= {LINE_PREFIX + name: sort for name, sort in lines.items()}
    if kind == "orders" and events.orders.mode == "state":
        fields |= STATE_ONLY
    return fields


def check_names(kind: MappedKind, events: EventSettings, setting: str) -> None:
    """Raises ConfigError where a map names a field that is none of ours, or asks for what it lacks.

    `setting` is the map's own name.
    """
    fields = fields_of(kind, events)
    for name, rule in events.fields_of(kind).items():
        sort = fields.get(name)
        if kind == "catalog" and name.startswith(ATTRIBUTE_PREFIX):
            sort = "text"
        if sort is None:
            raise _unknown(name, fields, setting)
        extra = sorted(_given(rule) - _PLACES - set(_OPTIONS[sort]))
        if extra:
            known = ", ".join(_OPTIONS[sort]) or "none"
            raise ConfigError(
                f"{setting}.{name} has the option {extra[0]!r}", hint=f"of this field: {known}"
            )


def _given(rule: AnyRule | None) -> set[str]:
    """The options of a rule, and of what stands where it finds nothing."""
    if not isinstance(rule, Rule):
        return set()
    return rule.model_fields_set | _given(rule.otherwise)


def _unknown(name: str, known: Mapping[str, Any], setting: str) -> ConfigError:
    if name in STATE_ONLY:
        hint = 'it is one of orders that change: events.orders.mode = "state"'
    else:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
    return ConfigError(f"{setting} maps the unknown field {name!r}", hint=hint)
