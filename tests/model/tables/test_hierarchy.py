"""Levels above items: which item belongs where, what a group sold, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from freshet.model.tables.hierarchy import groupings_of, members_of, summed
from freshet.stream.errors import InvalidInputError
from tests.model.tables.windows import window_of

KEYS = (7, 8, 9)


def frame_of(**columns: list[object]) -> pd.DataFrame:
    """A row of each of three items."""
    return pd.DataFrame({"sku": [7, 8, 9], **columns})


def test_levels_are_made_of_columns_paths_of_columns_and_all_together() -> None:
    frame = frame_of(store=[2.0, 1.0, 2.0], dept=["b", "a", "a"])
    total, store, path = groupings_of(frame, "sku", KEYS, ["total", "store", "store/dept"])
    assert (total.groups, total.group_N.tolist()) == (("total",), [0, 0, 0])
    assert (store.groups, store.group_N.tolist()) == (("1", "2"), [1, 0, 1])
    assert (path.groups, path.group_N.tolist()) == (("1/a", "2/a", "2/b"), [2, 0, 1])
    assert members_of([total, store]).toarray().tolist() == [[1, 1, 1], [0, 1, 0], [1, 0, 1]]


def test_a_column_may_be_called_as_a_path_or_as_the_total() -> None:
    frame = frame_of(total=["x", "x", "y"], **{"a/b": ["p", "q", "q"]})
    of_total, of_path = groupings_of(frame, "sku", KEYS, ["total", "a/b"])
    assert of_total.groups == ("x", "y")
    assert of_path.groups == ("p", "q")


def test_rows_without_a_group_do_not_matter_where_another_row_has_one() -> None:
    frame = pd.DataFrame({"sku": [7, 7, 8, 9, 11], "store": [None, "a", "a", "b", "c"]})
    (store,) = groupings_of(frame, "sku", KEYS, ["store"])
    assert (store.groups, store.group_N.tolist()) == (("a", "b"), [0, 0, 1])


@pytest.mark.parametrize(
    ("frame", "names", "message"),
    [
        (frame_of(store=[1, 1, 1]), ["shop"], "'shop' needs a column 'shop'"),
        (frame_of(store=[1, None, None]), ["store"], "2 of 3 items have no 'store', first 8"),
        (
            pd.DataFrame({"sku": [7, 8, 9, 8], "store": list("aabb")}),
            ["store"],
            "item 8 belongs to two groups of 'store': 'a' and 'b'",
        ),
        (
            frame_of(a=["x/y", "x", "x"], b=["z", "y/z", "y/z"]),
            ["a/b"],
            "two groups of the level 'a/b' would both be called 'x/y/z'",
        ),
        (frame_of(store=[1, 1, 1]), ["store", "store"], "'store' is asked for twice"),
        (frame_of(store=[1, 1, 1]), ["store", "sku"], "'sku' is that of items"),
        (frame_of(store=[1, 1, 1]), "store", "levels is the text 'store'"),
    ],
)
def test_what_does_not_add_up_is_refused(frame, names, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        groupings_of(frame, "sku", KEYS, names)


def test_sums_fill_what_one_item_misses_and_begin_with_the_first() -> None:
    nan = np.nan
    # Usual sales are 2 and 6; the second item begins at the second step.
    sold_NT = np.array([[2.0, 2.0, nan, 2.0, nan, 2.0], [nan, 6.0, 6.0, nan, nan, 6.0]])
    window = window_of(sold_NT, horizon=1)
    window = replace(window, length_N=np.array([6, 5]))
    (total,) = groupings_of(
        pd.DataFrame({"sku": list(window.item_ids)}), "sku", window.item_ids, ["total"]
    )
    found = summed(window, total)
    # Alone it is all; 6 stand for 8; 2 of 8 are too few to tell; nothing seen is not nothing sold.
    np.testing.assert_allclose(found.target_NT, [[2.0, 8.0, 8.0, nan, nan, 8.0]])
    assert found.item_ids == ("total",)
    assert found.length_N.tolist() == [6]


def test_a_groups_covariates_are_means_by_what_items_usually_sell() -> None:
    sold_NT = np.array([[1.0, 1.0], [3.0, 3.0]])
    window = window_of(sold_NT, horizon=1)
    promo_NSK = np.array([[1.0, 0.0, np.nan], [0.0, 0.0, 1.0]])[..., None]
    window = replace(window, known_NSK=promo_NSK, known_names=("promo",))
    (total,) = groupings_of(
        pd.DataFrame({"sku": list(window.item_ids)}), "sku", window.item_ids, ["total"]
    )
    np.testing.assert_allclose(summed(window, total).known_NSK[0, :, 0], [0.25, 0, 1], atol=1e-6)
