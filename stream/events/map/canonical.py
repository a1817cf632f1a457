"""A map as it counts: the one form of all spellings that decide the same, for the fingerprint."""

from __future__ import annotations

from typing import Any, Final, Literal

from freshet.stream.event_settings import AnyRule, EventSettings, EventsSection, Rule
from freshet.stream.events.map.compiler import as_rule
from freshet.stream.events.map.names import AMOUNTS, LINE_PREFIX, LINES, STATE_ONLY
from freshet.stream.events.map.numerals import Style, style_name

_OF_STATES: Final = ("keep_ms", "key")
_ELSEWHERE: Final = frozenset(("preset", "fields", "schema_file", "message", "registry"))


def canonical(kind: Literal["orders", "clicks"], events: EventSettings) -> dict[str, Any]:
    """What of a map decides what windows hold, by the name of its setting; empty at the defaults.

    >>> events = EventSettings(orders={"fields": {"sku": ["id"], "region": {"path": "region"}}})
    >>> canonical("orders", events), canonical("clicks", events)
    ({'events.orders.fields': {'sku': 'id'}}, {})
    """
    section = events.section(kind)
    assert isinstance(section, EventsSection)
    rules = {name: _rule(said) for name, said in events.fields_of(kind).items()}
    used = _used(kind, events)
    fields = {
        name: rule
        for name, rule in rules.items()
        # That clicks have lines is said by their name alone.
        if name in used and (rule != _usual(name) or (kind, name) == ("clicks", LINES))
    }
    found: dict[str, Any] = {f"events.{kind}.fields": fields} if fields else {}
    state = kind == "orders" and events.orders.mode == "state"
    for name, setting in type(section).model_fields.items():
        value = getattr(section, name)
        decides = name not in _ELSEWHERE and (state or name not in _OF_STATES)
        if decides and value != setting.default:
            found[f"events.{kind}.{name}"] = section.model_dump(mode="json")[name]
    if events.time_zone:
        found["events.time_zone"] = events.time_zone
    if any(map(_converts, fields.values())):
        found["events.rates"] = {code.upper(): rate for code, rate in events.rates.items()}
    return found


def _usual(name: str) -> str:
    return name.removeprefix(LINE_PREFIX)


def _used(kind: str, events: EventSettings) -> set[str]:
    """The fields that are read at all."""
    if kind == "clicks":
        own = {"event_id", "event_time", "kind", *events.series_by}
        inside = {LINE_PREFIX + name for name in events.series_by}
        return own | {LINES, *inside} if LINES in events.fields_of("clicks") else own
    inside = {*AMOUNTS, *events.series_by}
    own = {"event_time", LINES, *inside, *(LINE_PREFIX + name for name in inside)}
    return own | ({"order_id", *STATE_ONLY} if events.orders.mode == "state" else {"event_id"})


def _converts(rule: Any) -> bool:
    """Whether a rule asks for a currency's rate, itself or where it finds nothing."""
    return isinstance(rule, dict) and ("currency" in rule or _converts(rule.get("otherwise")))


def _rule(said: AnyRule | int) -> Any:
    """A rule as a path where it is one, else what it says besides its defaults."""
    rule = as_rule(said)
    plain: dict[str, Any] = {}
    for name, setting in Rule.model_fields.items():
        value = getattr(rule, name)
        if value != setting.get_default(call_default_factory=True):
            plain[name] = value
    for name in ("path", "minus", "per", "currency"):
        if isinstance(plain.get(name), tuple):
            paths = list(plain[name])
            plain[name] = paths[0] if len(paths) == 1 else paths
    if "join" in plain:
        plain["join"] = [_rule(part) for part in plain["join"]]
    if isinstance(plain.get("sign"), str | tuple | Rule):
        plain["sign"] = _rule(plain["sign"])
    if "otherwise" in plain:
        plain["otherwise"] = _rule(plain["otherwise"])
    if "number" in plain:
        plain["number"] = style_name(Style.of(plain["number"], name))
    return plain["path"] if plain.keys() == {"path"} else plain
