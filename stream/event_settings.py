"""The settings that say what a shop's records are: where each field is, and how it is read."""

from __future__ import annotations

import difflib
import json
from typing import Annotated, Any, ClassVar, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from freshet.stream.presets import section_of
from freshet.stream.section import Positive, Section
from freshet.stream.units import DAY_MS

TimeUnit = Literal["s", "ms", "us", "ns"]
MappedKind = Literal["orders", "clicks", "catalog", "promotions", "inventory"]
Scalar = bool | int | float | str


def known_zone(name: str) -> str:
    """The name itself; raises ValueError where the IANA database lacks it."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        reason = "not a time zone of the IANA database, such as Europe/Berlin"
        raise ValueError(reason) from None
    return name


def _json_or_text(value: Any) -> Any:
    """The environment's tables are JSON; other texts are JMESPath."""
    if isinstance(value, str) and value.startswith("{"):
        return json.loads(value)
    return value


ZoneName = Annotated[str, AfterValidator(lambda name: name and known_zone(name))]
"""Empty: none is named."""
Wanted = Scalar | tuple[Scalar, ...]
Condition = Annotated[dict[str, Wanted] | str, BeforeValidator(_json_or_text)]


class Rule(Section):
    """Where one field comes from, and what makes it ours."""

    path: str | tuple[str, ...] = ()
    value: Scalar | None = None
    header: str = ""
    key: bool | str = False
    timestamp: bool = False
    jmespath: str = ""
    join: tuple[AnyRule, ...] = ()
    by: str = ":"
    default: Scalar | None = None
    number: str = ""
    words: dict[str, Scalar] = Field({})
    sign: Literal[1, -1] | AnyRule = 1
    scale: float = 1.0
    minus: str | tuple[str, ...] = ()
    per: str | tuple[str, ...] = ()
    otherwise: AnyRule | None = None
    currency: str | tuple[str, ...] = ()
    time: str = ""
    zone: ZoneName = ""

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, said: Any) -> Any:
        for name in said if isinstance(said, dict) else ():
            if name not in cls.model_fields:
                near = difflib.get_close_matches(name, cls.model_fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else "see docs/mapping.md"
                raise ValueError(f"a rule has no {name!r}; {hint}")
        return said

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> Self:
        places = ("path", "value", "header", "key", "timestamp", "jmespath", "join")
        given = [name for name in places if getattr(self, name) not in ((), "", None, False)]
        given += ["value"] if self.value is False else []
        if len(given) != 1:
            raise ValueError(f"a rule has one of {', '.join(places)}, found {given or 'none'}")
        return self


def _spelling(rule: Any) -> str:
    """Which spelling of a rule this is, so that what is wrong with it is told of that one alone."""
    if isinstance(rule, dict | Rule):
        return "rule"
    return "paths" if isinstance(rule, list | tuple) else "path"


AnyRule = Annotated[
    Annotated[str, Tag("path")]
    | Annotated[tuple[str, ...], Tag("paths")]
    | Annotated[Rule, Tag("rule")],
    Discriminator(_spelling),
]
Rule.model_rebuild()


class FormatSettings(Section):
    """In which bytes a shop's records come; gzip and a byte order mark need no setting."""

    format: Literal["json", "avro", "protobuf", "json_schema"] = Field(
        "json", description="json, avro, protobuf, json_schema."
    )
    envelope: Literal["none", "debezium", "cloudevents"] = Field(
        "none", description="What a record is wrapped in: none, debezium, cloudevents."
    )
    schema_file: str = Field(
        "",
        description="An Avro schema (.avsc), a JSON Schema, or a Protobuf descriptor set; empty: "
        "kafka.registry has it.",
    )
    message: str = Field("", description="Protobuf: the message's full name in schema_file.")
    registry: bool | None = Field(
        None,
        description="Whether records begin with a registry's schema id; default: where there is no "
        "schema_file.",
    )
    decimals: dict[str, int] = Field(
        {},
        description="Debezium: column = scale of a decimal that comes as base64 bytes and without "
        "a schema.",
    )

    @property
    def framed(self) -> bool:
        """Whether records begin with a schema id."""
        if self.format == "json":
            return False
        return not self.schema_file if self.registry is None else self.registry


class MappedSection(FormatSettings):
    """What the records of one topic are."""

    kind: ClassVar[MappedKind]

    preset: str = Field(
        "",
        description="A map that comes with freshet (`freshet map show` lists them); what is set "
        "beside it wins, of `fields` each field.",
    )
    fields: dict[str, AnyRule] = Field(
        {}, description="Our field = a path, several paths, or a rule; see docs/mapping.md."
    )
    keep_when: Condition = Field(
        {},
        description="Path = value or values, or JMESPath; where not all hold a record is skipped.",
    )
    skip_when: Condition = Field(
        {},
        description="Path = value or values, or JMESPath; where any holds a record is skipped.",
    )

    @model_validator(mode="before")
    @classmethod
    def _begins_with_its_preset(cls, said: Any) -> Any:
        if not isinstance(said, dict) or not said.get("preset"):
            return said
        preset = section_of(said["preset"], cls.kind)
        fields = {**preset.get("fields", {}), **said.get("fields", {})}
        return {**preset, **said, "fields": fields}


class EventsSection(MappedSection):
    """What the records of an event topic are."""

    tombstones: Literal["dead", "skip"] = Field("dead", description="What becomes of a null value.")


class OrdersSection(EventsSection):
    """What an order is."""

    kind: ClassVar[MappedKind] = "orders"

    mode: Literal["events", "state"] = Field(
        "events", description="Whether a record adds to what was sold, or says what the order is."
    )
    bad_lines: Literal["one_by_one", "whole"] = Field(
        "one_by_one", description="Whether a line that cannot be used takes its order along."
    )
    keep_ms: Positive = Field(
        60 * DAY_MS, description="How long an order may change, by its creation; state mode."
    )
    key: Literal["order_id", "any"] = Field(
        "order_id", description="Whether the record's key must be the order's id; state mode."
    )


PRESETS: dict[str, dict[str, AnyRule]] = {
    "debezium": {
        "version": "debezium.version",
        "deleted": "debezium.deleted",
        "changed_at": Rule(path="debezium.ts_ms", time="ms"),
    }
}
"""Of orders that are states: the rules that an envelope brings along."""


class ClicksSection(EventsSection):
    """What a click is."""

    kind: ClassVar[MappedKind] = "clicks"


class CatalogSection(MappedSection):
    """What an entry of the catalogue is."""

    kind: ClassVar[MappedKind] = "catalog"


class PromotionsSection(MappedSection):
    """What a promotion is."""

    kind: ClassVar[MappedKind] = "promotions"


class InventorySection(MappedSection):
    """What a level of stock is."""

    kind: ClassVar[MappedKind] = "inventory"


class EventSettings(Section):
    """What an event is: the fields that name a series, and where a shop keeps each field."""

    series_by: tuple[str, ...] = Field(
        ("sku", "region"), description="Fields joined into the item_id."
    )
    orders_fields: dict[str, str] = Field(
        {}, description="Older spelling of `events.orders.fields`, paths alone."
    )
    clicks_fields: dict[str, str] = Field(
        {}, description="Older spelling of `events.clicks.fields`, paths alone."
    )
    time_unit: TimeUnit = Field(
        "ms", description="Of an event_time that is a whole number: s, ms, us, ns since 1970."
    )
    time_zone: ZoneName = Field(
        "", description="Of times that name none; empty: such a time is a dead letter."
    )
    rates: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="Currency = what one of it is in the shop's own, for rules with `currency`."
    )
    max_depth: Positive = Field(64, description="Nesting beyond this is a dead letter.")
    orders: OrdersSection = OrdersSection()
    clicks: ClicksSection = ClicksSection()
    catalog: CatalogSection = CatalogSection()
    promotions: PromotionsSection = PromotionsSection()
    inventory: InventorySection = InventorySection()

    @model_validator(mode="after")
    def _fields_are_spelled_one_way(self) -> Self:
        for kind in ("orders", "clicks"):
            if getattr(self, f"{kind}_fields") and getattr(self, kind).fields:
                raise ValueError(f"{kind}_fields is the older spelling of {kind}.fields; keep one")
        return self

    def in_own_fields(self) -> EventSettings:
        """The same for records that have our own fields, whatever the map says.

        Mode, keys, series and what becomes of bad lines stay.
        """
        own = {"fields": {}, "skip_when": {}, "keep_when": {}, "format": "json", "envelope": "none"}
        return self.model_copy(
            update={
                "orders_fields": {},
                "clicks_fields": {},
                "time_unit": "ms",
                "orders": self.orders.model_copy(update=own),
                "clicks": self.clicks.model_copy(update=own),
            }
        )

    def section(self, kind: MappedKind) -> MappedSection:
        """The section of one topic."""
        found: MappedSection = getattr(self, kind)
        return found

    def fields_of(self, kind: MappedKind) -> dict[str, AnyRule]:
        """The rules of one topic, by our field."""
        older: dict[str, str] = getattr(self, f"{kind}_fields", {})
        preset: dict[str, AnyRule] = {}
        if kind == "orders" and self.orders.mode == "state":
            preset = PRESETS.get(self.orders.envelope, {})
        return {**preset, **older, **self.section(kind).fields}
