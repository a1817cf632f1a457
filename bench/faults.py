"""Faults of one line each that Cosmic Ray can make in a module, and a fair draw of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# One replacement of each kind: others of the same kind are noticed by the same tests.
OPERATORS = (
    "AddNot",
    "NumberReplacer",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceUnaryOperator_USub_UAdd",
    "ReplaceUnaryOperator_Delete_Not",
    "ZeroIterationForLoop",
    *(
        f"ReplaceBinaryOperator_{pair}"
        for pair in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_FloorDiv")
    ),
    *(
        f"ReplaceComparisonOperator_{pair}"
        for pair in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Eq_NotEq", "NotEq_Eq")
    ),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Is_IsNot", "IsNot_Is")),
)


Place = tuple[str, int]
"""An operator and how many of its places in a module come before this one."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: where, what, and the line before and after."""

    path: str
    operator: str
    occurrence: int
    line: int
    before: str
    after: str


def places_of(path: str) -> list[Place]:
    """Every operator and occurrence in a module, whether or not that changes behaviour."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator

    nodes = list(ast_nodes(get_ast((ROOT / path).read_text("utf-8"))))
    found = []
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        occurrences = sum(len(list(operator.mutation_positions(node))) for node in nodes)
        found += [(name, occurrence) for occurrence in range(occurrences)]
    return found


def mutant_at(path: str, place: Place) -> Mutant | None:
    """The fault at a place of a module; None for what is no behaviour."""
    from cosmic_ray.plugins import get_operator

    name, occurrence = place
    code = (ROOT / path).read_text("utf-8")
    mutated = mutated_code(code, get_operator(f"core/{name}")(), occurrence)
    assert mutated is not None, (path, place)
    changed = _changed_line(code, mutated)
    if changed is None or not _behaviour(changed[1], changed[2]):
        return None
    return Mutant(path, name, occurrence, *changed)


def _behaviour(before: str, after: str) -> bool:
    """Not flags of decorators, such as slots, nor the star before keyword-only parameters.

    Nor that a zip is strict: it says what holds anyway.
    """
    if before == after.replace("strict=False", "strict=True"):
        return False
    return not before.startswith("@") and after != before.replace("*,", "/,", 1)


def mutated_code(code: str, operator: Any, occurrence: int) -> str | None:
    from cosmic_ray.mutating import mutate_code

    mutated: str | None = mutate_code(code, operator, occurrence)
    return mutated


def _changed_line(code: str, mutated: str) -> tuple[int, str, str] | None:
    pairs = zip(code.splitlines(), mutated.splitlines(), strict=False)
    for number, (before, after) in enumerate(pairs, start=1):
        if before != after:
            return number, before.strip(), after.strip()
    return None


def sample(
    modules: Sequence[dict[str, Any]], total: int, seed: int, only: Sequence[str]
) -> list[Mutant]:
    """So many faults, spread over the modules by their size, at least five of each.

    Those of a module are the same whether or not the others are tried too.
    """
    places = {module["path"]: places_of(module["path"]) for module in modules}
    everything = sum(len(found) for found in places.values())
    chosen: list[Mutant] = []
    for path, found in places.items():
        if only and not any(part in path for part in only):
            continue
        wanted = max(5, round(total * len(found) / everything))
        random.Random(f"{seed} {path}").shuffle(found)
        # A fault takes a tenth of a second to make, so no more are made than are wanted.
        made = (mutant_at(path, place) for place in found)
        chosen += itertools.islice((mutant for mutant in made if mutant is not None), wanted)
    return chosen
