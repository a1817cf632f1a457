"""A shop's own field names: typed structs, made at start, that decode its records straight into our
columns.

`events.orders_fields` and `events.clicks_fields` say, for one of our fields, the dotted path at
which the shop's record keeps it; `lines.<field>` is a path inside one line of a whole order. What
is not mapped has our own name.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import msgspec

from freshet.stream.errors import ConfigError
from freshet.stream.schemas import ClickKind, Time

LINE: Final[dict[str, Any]] = {"sku": str, "region": str, "quantity": float, "unit_price": float}
ORDER: Final[dict[str, Any]] = {"event_id": str, "event_time": Time, "order_id": str, **LINE}
CLICK: Final[dict[str, Any]] = {
    "event_id": str,
    "event_time": Time,
    "session_id": str,
    "sku": str,
    "region": str,
    "kind": ClickKind,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A struct and where in it each of our fields is; every field may be None, whoever needs it
    looks.
    """

    struct: type[msgspec.Struct]
    paths: Mapping[str, str]

    def getter(self, names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
        """Reads some fields of a decoded record as a tuple; AttributeError where an object on the
        way is null.
        """
        get = attrgetter(*(self.paths[name] for name in names))
        return get if len(names) > 1 else lambda record: (get(record),)

    def reader(self, names: tuple[str, ...]) -> tuple[Callable[[Any], tuple[Any, ...]], list[int]]:
        """Reads all of a record as a tuple, and where in it each of some fields is; AttributeError
        as for `getter`.
        """
        if any("." in self.paths[name] for name in names):
            return self.getter(names), list(range(len(names)))
        # A plain copy of the whole struct takes a third of the time of asking for five of its
        # fields.
        attributes = self.struct.__struct_fields__
        return msgspec.structs.astuple, [attributes.index(self.paths[name]) for name in names]

    def dig(self, record: Any, name: str) -> Any:
        """One field, None where it or an object on its way is missing or null."""
        for part in self.paths[name].split("."):
            if record is None:
                return None
            record = getattr(record, part)
        return record


def order_shapes(mapping: Mapping[str, str], series_by: tuple[str, ...]) -> tuple[Shape, Shape]:
    """The shapes of an order and of one of its lines."""
    extra = dict.fromkeys((name for name in series_by if name not in ORDER), str)
    fields = {**ORDER, **extra}
    line_fields = {**LINE, **extra}
    line_mapping = {
        k.removeprefix("lines."): v for k, v in mapping.items() if k.startswith("lines.")
    }
    _check(
        mapping,
        {*fields, "lines", *(f"lines.{name}" for name in line_fields)},
        "events.orders_fields",
    )
    line = _shape("Line", line_fields, line_mapping)
    own = {k: v for k, v in mapping.items() if not k.startswith("lines.")}
    return _shape("Order", {**fields, "lines": list[line.struct]}, own), line  # type: ignore[name-defined]


def click_shape(mapping: Mapping[str, str], series_by: tuple[str, ...]) -> Shape:
    """The shape of a click."""
    fields = {**CLICK, **dict.fromkeys((name for name in series_by if name not in CLICK), str)}
    _check(mapping, set(fields), "events.clicks_fields")
    return _shape("Click", fields, mapping)


def _check(mapping: Mapping[str, str], known: set[str], setting: str) -> None:
    for name, path in mapping.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise ConfigError(f"{setting} maps the unknown field {name!r}", hint=hint)
        if not all(path.split(".")):
            raise ConfigError(f"{setting}.{name} is {path!r}, expected names joined by dots")


def _shape(title: str, fields: Mapping[str, Any], mapping: Mapping[str, str]) -> Shape:
    tree: dict[str, Any] = {}
    paths: dict[str, str] = {}
    for name, kind in fields.items():
        path = mapping.get(name, name).split(".")
        *parents, leaf = path
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(
                    f"field {name!r}: {'.'.join(path)!r} leads through a value that another "
                    "field uses"
                )
        if node.setdefault(leaf, kind) != kind:
            raise ConfigError(
                f"field {name!r}: {'.'.join(path)!r} is already used for another kind of value"
            )
    struct, places = _struct(title, tree)
    for name in fields:
        paths[name] = places[mapping.get(name, name)]
    return Shape(struct, paths)


def _struct(title: str, tree: Mapping[str, Any]) -> tuple[type[msgspec.Struct], dict[str, str]]:
    """A struct for one object, and the attribute path of each dotted path below it."""
    fields: list[tuple[str, Any, Any]] = []
    rename: dict[str, str] = {}
    places: dict[str, str] = {}
    for number, (key, kind) in enumerate(tree.items()):
        attribute = f"f{number}"
        rename[attribute] = key
        if isinstance(kind, dict):
            nested, below = _struct(f"{title}_{attribute}", kind)
            fields.append((attribute, nested | None, msgspec.field(default_factory=nested)))
            places.update(
                {f"{key}.{path}": f"{attribute}.{place}" for path, place in below.items()}
            )
        else:
            fields.append((attribute, kind | None, None))
            places[key] = attribute
    return msgspec.defstruct(title, fields, rename=rename, gc=False, frozen=True), places
