"""Rules as they are written to fields that read columns; done once, at start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast
from zoneinfo import ZoneInfo

from freshet.stream.errors import ConfigError, EventError
from freshet.stream.event_settings import AnyRule, EventSettings, MappedKind, Rule
from freshet.stream.events.map.expressions import compiled
from freshet.stream.events.map.flags import FlagField, VersionField
from freshet.stream.events.map.levels import (
    Constant,
    Header,
    Joined,
    Key,
    LineOrRecord,
    Paths,
    Source,
    Timestamp,
)
from freshet.stream.events.map.names import check_names
from freshet.stream.events.map.numerals import PLAIN, Currency, NumberField, Style
from freshet.stream.events.map.paths import Steps, steps_of
from freshet.stream.events.map.shapes import Slots
from freshet.stream.events.map.texts import TextField, text_of_value
from freshet.stream.events.map.times import (
    DATE,
    RFC_3339,
    UNIT_NAMES,
    TimeField,
    TimeStyle,
    one_time_ms,
    unit_of,
)


class Compiler:
    """Makes the fields of one kind of record; every path it meets has a slot of `slots`.

    `prefix` is that of the fields of lines; `above` are the slots of their records, for what a line
    leaves to its record.
    """

    def __init__(
        self, kind: MappedKind, events: EventSettings, prefix: str = "", above: Slots | None = None
    ) -> None:
        older = kind in ("orders", "clicks") and getattr(events, f"{kind}_fields")
        self.setting = f"events.{kind}_fields" if older else f"events.{kind}.fields"
        check_names(kind, events, self.setting)
        self.slots = Slots()
        self._rules = events.fields_of(kind)
        self._events = events
        self._prefix = prefix
        self._above = above
        self.mapped: dict[str, tuple[int, ...]] = {}
        """The slots of each of our fields that are paths of the shop's."""

    def rule(self, name: str) -> Rule:
        """The rule of one of our fields; what is not mapped has our own name."""
        said = self._rules.get(self._prefix + name)
        return as_rule(name if said is None else said)

    def written(self, name: str) -> str:
        """Where the map says that a field is; empty where it says nothing."""
        if self._prefix + name not in self._rules:
            return ""
        paths = _paths(self.rule(name).path)
        return " or ".join(map(repr, paths))

    def paths(self, name: str) -> list[Steps]:
        """The paths at which a field is looked for."""
        return [steps_of(path, self._named(name)) for path in _paths(self.rule(name).path)]

    def text(self, name: str) -> TextField:
        """A field that is text."""
        rule = self.rule(name)
        default = self._text(rule.default, name)
        return TextField(name, self._source(name, rule), self._words(rule, name), default)

    def number(self, name: str) -> NumberField:
        """A field that is a number."""
        return self._number(name, self.rule(name))

    def _number(self, name: str, rule: Rule) -> NumberField:
        style = Style.of(rule.number, f"{self._named(name)}.number") if rule.number else PLAIN
        default = rule.default
        if default is not None:
            default = PLAIN.parse(str(default))
            if default != default:
                raise ConfigError(f"{self._named(name)}.default is {rule.default!r}, no number")
        return NumberField(
            name,
            self._source(name, rule),
            style,
            [Paths((self._slot(path, name),)) for path in _paths(rule.minus)],
            rule.scale,
            self._currency(name, rule),
            self._sign(name, rule),
            dict(rule.words) or None,
            default,
            Paths(tuple(self._slot(path, name) for path in _paths(rule.per))) if rule.per else None,
            None if rule.otherwise is None else self._number(name, as_rule(rule.otherwise)),
        )

    def time(self, name: str) -> TimeField:
        """A field that is a time."""
        rule = self.rule(name)
        style = self._time_style(name, rule)
        default = rule.default
        if default is not None:
            usual = TimeStyle(unit=self._events.time_unit, zone=style.zone)
            try:
                default = one_time_ms(default, usual, name)
            except EventError as error:
                raise ConfigError(f"{self._named(name)}.default: {error.message}") from None
        return TimeField(name, self._source(name, rule), style, default)

    def flag(self, name: str) -> FlagField:
        """A field that is a claim."""
        rule = self.rule(name)
        words = dict(rule.words) or None
        return FlagField(name, self._source(name, rule), words, rule.default)

    def version(self, name: str) -> VersionField:
        """A field that says which record is newer."""
        rule = self.rule(name)
        return VersionField(name, self._source(name, rule), self._time_style(name, rule))

    def lines(self, name: str) -> tuple[Source, int | None]:
        """Where lines are, and their slot where they are at one path."""
        rule = self.rule(name)
        source = self._source(name, rule)
        alone = isinstance(source, Paths) and len(source.slots) == 1
        return source, cast(Paths, source).slots[0] if alone else None

    def value(self, name: str) -> Source:
        """A field that is taken as it is."""
        return self._source(name, self.rule(name))

    # One option each ------------------------------------------------------------------------------

    def _named(self, name: str) -> str:
        return f"{self.setting}.{self._prefix}{name}"

    def _sign(self, name: str, rule: Rule) -> float | NumberField:
        if isinstance(rule.sign, int):
            return float(rule.sign)
        sign = as_rule(rule.sign)
        source = self._from_either(name, sign)
        default = None if sign.default is None else float(sign.default)
        return NumberField(f"{name}.sign", source, words=dict(sign.words) or None, default=default)

    def _currency(self, name: str, rule: Rule) -> Currency | None:
        if not rule.currency:
            return None
        rates = {code.upper(): rate for code, rate in self._events.rates.items()}
        if not rates:
            hint = "say what one of each currency is in the shop's own"
            raise ConfigError(f"{self._named(name)}.currency needs events.rates", hint=hint)
        return Currency(self._from_either(name, Rule(path=rule.currency)), rates)

    def _from_either(self, name: str, rule: Rule) -> Source:
        """A source that a line has, or else its record."""
        own = self._plain_source(name, rule, self.slots)
        if self._above is None:
            return own
        return LineOrRecord(own, self._plain_source(name, rule, self._above))

    def _time_style(self, name: str, rule: Rule) -> TimeStyle:
        zone = rule.zone or self._events.time_zone
        form = rule.time
        known = form in ("", RFC_3339, DATE, *UNIT_NAMES)
        if not known and "%" not in form:
            hint = "known are s, ms, us, ns, rfc3339, date, or a format such as %d.%m.%Y %H:%M"
            raise ConfigError(f"{self._named(name)}.time is {form!r}", hint=hint)
        if "%Z" in form:
            hint = "use %z for offsets; or write the name out, as in '... UTC', and set the zone"
            raise ConfigError(f"{self._named(name)}.time has zones by names (%Z)", hint=hint)
        if not zone and (form == DATE or (not known and "%z" not in form)):
            hint = "set its zone, or events.time_zone"
            raise ConfigError(
                f"{self._named(name)}.time is {form!r}, which names no zone", hint=hint
            )
        unit = unit_of(form, self._events.time_unit)
        if rule.timestamp:
            unit = "ms"
        return TimeStyle(form, unit, ZoneInfo(zone) if zone else None)

    def _words(self, rule: Rule, name: str) -> Mapping[str, str] | None:
        if not rule.words:
            return None
        return {word: self._text(ours, name) or "" for word, ours in rule.words.items()}

    def _text(self, value: Any, name: str) -> str | None:
        return None if value is None else text_of_value(value, flags=True)

    # Sources --------------------------------------------------------------------------------------

    def _source(self, name: str, rule: Rule) -> Source:
        source = self._plain_source(name, rule, self.slots)
        if isinstance(source, Paths) and self._prefix + name in self._rules:
            self.mapped[name] = source.slots
        return source

    def _plain_source(self, name: str, rule: Rule, slots: Slots) -> Source:
        if rule.value is not None:
            return Constant(rule.value)
        if rule.header:
            return Header(rule.header)
        if rule.key is True:
            return Key(None)
        if isinstance(rule.key, str):
            return Key(steps_of(rule.key, f"{self._named(name)}.key"))
        if rule.timestamp:
            return Timestamp()
        if rule.jmespath:
            expression = compiled(rule.jmespath, f"{self._named(name)}.jmespath")
            return Paths((slots.expression(expression),))
        if rule.join:
            return self._joined(name, rule, slots)
        return Paths(tuple(self._slot(path, name, slots) for path in _paths(rule.path)))

    def _joined(self, name: str, rule: Rule, slots: Slots) -> Joined:
        parts = []
        for part in map(as_rule, rule.join):
            source = self._plain_source(name, part, slots)
            default = self._text(part.default, name)
            parts.append(TextField(name, source, self._words(part, name), default))
        return Joined(tuple(parts), rule.by)

    def _slot(self, path: str, name: str, slots: Slots | None = None) -> int:
        return (slots or self.slots).path(steps_of(path, self._named(name)))


def as_rule(said: AnyRule | int) -> Rule:
    """Every spelling of a rule as a whole one."""
    return said if isinstance(said, Rule) else Rule(path=cast(Any, said))


def _paths(said: str | Sequence[str]) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else tuple(said)
