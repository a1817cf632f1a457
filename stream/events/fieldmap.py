"""A shop's own field names: typed structs, made at start, that decode its records as ours.

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
    """A struct and where in it each of our fields is.

    Every field may be None; whoever needs it looks.
    """

    struct: type[msgspec.Struct]
    paths: Mapping[str, str]

    def getter(self, names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
        """Reads some fields of a decoded record as a tuple.

        What is returned raises AttributeError where an object on the way is null.
        """
        get = attrgetter(*(self.paths[name] for name in names))
        return get if len(names) > 1 else lambda record: (get(record),)

    def reader(self, names: tuple[str, ...]) -> tuple[Callable[[Any], tuple[Any, ...]], list[int]]:
        """Reads all of a record as a tuple, and where in it each of some fields is.

        What is returned raises AttributeError as that of `getter` does.
        """
        if any("." in self.paths[name] for name in names):
            return self.getter(names), list(range(len(names)))
        # A plain copy of the whole struct takes a third of the time of asking for five fields.
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
    fields = _with_series(ORDER, series_by)
    line_fields = _with_series(LINE, series_by)
    known = {*fields, "lines", *(f"lines.{name}" for name in line_fields)}
    _check(mapping, known, "events.orders_fields")
    own: dict[str, str] = {}
    of_lines: dict[str, str] = {}
    for name, path in mapping.items():
        if name.startswith("lines."):
            of_lines[name.removeprefix("lines.")] = path
        else:
            own[name] = path
    line = _shape("Line", line_fields, of_lines)
    return _shape("Order", {**fields, "lines": list[line.struct]}, own), line  # type: ignore[name-defined]


def click_shape(mapping: Mapping[str, str], series_by: tuple[str, ...]) -> Shape:
    """The shape of a click."""
    fields = _with_series(CLICK, series_by)
    _check(mapping, set(fields), "events.clicks_fields")
    return _shape("Click", fields, mapping)


def _with_series(fields: Mapping[str, Any], series_by: tuple[str, ...]) -> dict[str, Any]:
    """The fields, and those of the series that are not among them, which are texts."""
    return {**fields, **{name: str for name in series_by if name not in fields}}


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
    for name, kind in fields.items():
        path = mapping.get(name, name).split(".")
        *parents, leaf = path
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                text = "leads through a value that another field uses"
                raise ConfigError(f"field {name!r}: {'.'.join(path)!r} {text}")
        if node.setdefault(leaf, kind) != kind:
            text = "is already used for another kind of value"
            raise ConfigError(f"field {name!r}: {'.'.join(path)!r} {text}")
    struct, places = _struct(title, tree)
    return Shape(struct, {name: places[mapping.get(name, name)] for name in fields})


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
            for path, place in below.items():
                places[f"{key}.{path}"] = f"{attribute}.{place}"
        else:
            fields.append((attribute, kind | None, None))
            places[key] = attribute
    return msgspec.defstruct(title, fields, rename=rename, gc=False, frozen=True), places
