"""Bytes to rows: a typed struct, made at start, that takes from a record only what is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec

from freshet.stream.events.map.paths import Steps, dig

MAX_INTEGER_DIGITS: Final = 300
"""Of whole numbers that still fit a float."""

Row = tuple[Any, ...]


class Slots:
    """The places in a record that some rules ask for, each once; with expressions, or without."""

    def __init__(self) -> None:
        self._slots: dict[Any, int] = {}
        self.loose = False

    def path(self, steps: Steps) -> int:
        """The slot of a path."""
        return self._slots.setdefault(steps, len(self._slots))

    def expression(self, expression: Callable[[Any], Any]) -> int:
        """The slot of what an expression makes of the whole record; it makes all of them loose."""
        self.loose = True
        return self._slots.setdefault(expression, len(self._slots))

    def shape(self, title: str, kinds: Mapping[int, Any] | None = None) -> Shape:
        """The shape that has them all; some slots hold values of one type, where they are alone."""
        return Shape(title, list(self._slots), self.loose, kinds or {})


class Shape:
    """How a record becomes a row, and where in it each slot is.

    A row holds the values at `heads`; what is left of a slot's path is dug up below its head. A
    loose shape decodes the whole record, and its row is that alone.
    """

    def __init__(
        self, title: str, slots: Sequence[Any], loose: bool, kinds: Mapping[int, Any]
    ) -> None:
        paths = [slot if isinstance(slot, tuple) else () for slot in slots]
        self.loose = loose
        self.heads: list[Steps] = [()] if loose else _heads(paths)
        self.typed: set[int] = set()
        self._get: Callable[[Any], Row] = lambda record: (record,)
        struct: Any = dict[str, Any]
        if not loose:
            self.typed = {slot for slot in kinds if self._alone(paths[slot], paths)}
            own = {paths[slot]: kinds[slot] for slot in self.typed}
            struct, self._places = _struct(title, _tree(self.heads, own))
            flat = all(len(head) == 1 for head in self.heads)
            # A plain copy of the whole struct takes a third of the time of asking for five fields.
            self._get = msgspec.structs.astuple if flat else self._getter()
        self.struct = struct
        self.of_slot: list[tuple[int, Any]] = [self._place(slot) for slot in slots]

    def _alone(self, path: Steps, paths: Sequence[Steps]) -> bool:
        """Whether nothing below a path is asked for, nor above it."""
        return path in self.heads and sum(_within(other, path) for other in paths) == 1

    def row(self, record: Any) -> Row:
        """A decoded record's row."""
        try:
            return self._get(record)
        except AttributeError:  # An object on a nested path is null.
            return tuple(_dug(record, self._places[head]) for head in self.heads)

    def loose_row(self, record: Any) -> Row:
        """The row of a record that is plain JSON."""
        return (record,) if self.loose else tuple(dig(record, head) for head in self.heads)

    @property
    def get(self) -> Callable[[Any], Row]:
        """As `row`, but raises AttributeError where an object on a path is null."""
        return self._get

    def _getter(self) -> Callable[[Any], Row]:
        get = attrgetter(*(self._places[head] for head in self.heads))
        return get if len(self.heads) > 1 else lambda record: (get(record),)

    def _place(self, slot: Any) -> tuple[int, Any]:
        """Which value of a row a slot begins at, and what leads on from there."""
        if not isinstance(slot, tuple):
            return 0, slot
        for place, head in enumerate(self.heads):
            if slot[: len(head)] == head:
                return place, slot[len(head) :]
        raise AssertionError(f"no head leads to {slot}")


def _within(path: Steps, other: Steps) -> bool:
    """Whether one path begins with the other."""
    return path[: len(other)] == other


def _heads(paths: Sequence[Steps]) -> list[Steps]:
    """The named beginnings of paths, up to the first place in an array; none within another."""
    heads: list[Steps] = []
    named = {_named(path): None for path in paths}
    for head in sorted(named, key=len):
        if not any(_within(head, shorter) for shorter in heads):
            heads.append(head)
    order = list(named)
    return sorted(heads, key=order.index)


def _named(path: Steps) -> Steps:
    numbers = [place for place, step in enumerate(path) if isinstance(step, int)]
    return path[: numbers[0]] if numbers else path


def _tree(heads: Sequence[Steps], kinds: Mapping[Steps, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for head in heads:
        *parents, leaf = head
        node = tree
        for parent in parents:
            node = node.setdefault(str(parent), {})
        node[str(leaf)] = kinds.get(head, Any)
    return tree


def _struct(title: str, tree: Mapping[str, Any]) -> tuple[Any, dict[Steps, str]]:
    """A struct for one object, and the attribute path of each path below it."""
    fields: list[tuple[str, Any, Any]] = []
    rename: dict[str, str] = {}
    places: dict[Steps, str] = {}
    for number, (key, kind) in enumerate(tree.items()):
        attribute = f"f{number}"
        rename[attribute] = key
        if isinstance(kind, dict):
            nested, below = _struct(f"{title}_{attribute}", kind)
            fields.append((attribute, nested | None, msgspec.field(default_factory=nested)))
            for path, place in below.items():
                places[key, *path] = f"{attribute}.{place}"
        else:
            fields.append((attribute, kind, None))
            places[(key,)] = attribute
    return msgspec.defstruct(title, fields, rename=rename, gc=False, frozen=True), places


def _dug(record: Any, place: str) -> Any:
    for part in place.split("."):
        if record is None:
            return None
        record = getattr(record, part)
    return record


def plain_json(data: bytes) -> Any:
    """Good JSON as it is; numbers beyond a float are infinite.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: It is no JSON.
    """
    try:
        return msgspec.json.decode(data)
    except msgspec.ValidationError:
        return json.loads(data, parse_int=_integer)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else float("inf")
