"""Which records are none of ours: conditions on values at paths, or an expression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from freshet.stream.events.map.expressions import compiled
from freshet.stream.events.map.levels import Level
from freshet.stream.events.map.paths import steps_of
from freshet.stream.events.map.shapes import Slots

ANYTHING: Final = "*"

Test = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Conditions:
    """Tests of slots; a table holds when all of them do, or any of them."""

    tests: Sequence[tuple[int, Test]]

    def all(self, level: Level) -> list[bool]:
        """Whether all hold, for each record."""
        columns = [list(map(test, level.column(slot))) for slot, test in self.tests]
        return list(map(all, zip(*columns, strict=True)))

    def any(self, level: Level) -> list[bool]:
        """Whether any holds, for each record."""
        columns = [list(map(test, level.column(slot))) for slot, test in self.tests]
        return list(map(any, zip(*columns, strict=True)))


def conditions(said: Mapping[str, Any] | str, slots: Slots, setting: str) -> Conditions | None:
    """The tests that a setting asks for; None where it asks for none."""
    if not said:
        return None
    if isinstance(said, str):
        return Conditions([(slots.expression(compiled(said, setting)), _truthy)])
    return Conditions(
        [
            (slots.path(steps_of(path, f"{setting}.{path}")), wanted(values))
            for path, values in said.items()
        ]
    )


def wanted(values: Any) -> Test:
    """Whether a value is one of some; false also means that there is none, "*" that there is one.

    >>> [wanted(("a", 1))(value) for value in ("a", 1.0, True, None)]
    [True, True, False, False]
    >>> [wanted("*")(value) for value in (0, None)], [wanted(False)(value) for value in (0, None)]
    ([True, False], [False, True])
    """
    several = values if isinstance(values, tuple | list) else (values,)
    tests = [_test(value) for value in several]
    return tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)


def _test(wanted: Any) -> Test:
    if wanted is False:
        return lambda value: value is None or value is False
    if wanted is True:
        return lambda value: value is True
    if wanted == ANYTHING:
        return lambda value: value is not None
    if isinstance(wanted, str):
        return lambda value: isinstance(value, str) and value == wanted
    return lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and value == wanted
    )


def _truthy(value: Any) -> bool:
    """As JMESPath has it: a number is true, also 0."""
    return value is not None and value is not False and value not in ("", [], {})
