"""Whom intervals meet: against a look at every item and interval."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.catalog.scopes import Items, Scope, ScopeIndex, spread

ANY = st.none() | st.sampled_from(["a", "b"])
SCOPES = st.lists(st.builds(Scope, ANY, ANY, ANY), max_size=8)
ITEMS = st.lists(st.tuples(*[st.sampled_from(["a", "b", "c"])] * 3, st.integers(0, 9)), max_size=6)


@given(SCOPES, ITEMS)
def test_each_item_meets_the_intervals_whose_fields_it_has(
    scopes: list[Scope], rows: list[tuple[str, str, str, int]]
) -> None:
    columns: list[list[str]] = [[row[field] for row in rows] for field in range(3)]
    distinct = list(dict.fromkeys(scopes))
    scope_N = np.array([distinct.index(scope) for scope in scopes], np.int64)
    apart_R = np.array([row[3] for row in rows], np.int64)
    items = Items(columns[0], columns[1], [*columns[2]])
    met = spread(ScopeIndex.of(scope_N, distinct), items, apart_R)
    for place, row in enumerate(rows):
        group = met.group_R[place]
        fields = zip(scopes, [row[:3]] * len(scopes), strict=True)
        expected = [
            number
            for number, (scope, own) in enumerate(fields)
            if all(named in (None, field) for named, field in zip(scope, own, strict=True))
        ]
        assert sorted(met.number_P[met.group_P == group].tolist()) == expected
        assert apart_R[met.first_U[group]] == apart_R[place]


def test_more_fields_are_narrower_and_of_as_many_sku_then_category_then_region() -> None:
    scopes = [
        Scope(None, None, None),
        Scope(None, None, "n"),
        Scope(None, "x", None),
        Scope("a", None, None),
        Scope(None, "x", "n"),
        Scope("a", None, "n"),
        Scope("a", "x", None),
        Scope("a", "x", "n"),
    ]
    assert sorted(scopes, key=lambda scope: scope.narrowness) == scopes
