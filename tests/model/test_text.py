"""Static features are the same everywhere and say "unknown" as NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.utils import murmurhash3_32

from freshet.model.network import FreshetConfig
from freshet.model.text import NUM_STATIC, encode_texts, static_features
from freshet.stream.errors import InvalidInputError


def test_vectors_are_unit_length_and_siblings_are_near() -> None:
    vectors = encode_texts(
        [
            "Trail Runner Shoe blue",
            "Trail Runner Shoe red",
            "Espresso Beans 1 kg",
            "köttbullar 冷凍",
        ]
    )
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert vectors.shape == (4, 256)
    assert vectors.dtype == np.float32
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


def test_the_same_text_gives_the_same_numbers_for_ever() -> None:
    vector = encode_texts(["tea"])[0]
    assert np.flatnonzero(vector).tolist() == [61, 91, 150, 156, 184, 252]


def test_unknown_numbers_are_missing_and_known_ones_are_logarithms() -> None:
    day_ms = 86_400_000.0
    features = static_features(
        ["a", "", "c"], np.array([math.e, math.nan, -1.0]), np.array([0.0, math.nan, 9 * day_ms])
    )
    assert features.shape == (3, NUM_STATIC) == (3, FreshetConfig().num_static)
    expected = [[1, 0], [math.nan, math.nan], [math.nan, math.log(10)]]
    np.testing.assert_allclose(features[:, 256:258], expected, rtol=1e-6)
    assert not features[1, :256].any()


def test_no_items_give_no_rows() -> None:
    assert static_features([], np.array([]), np.array([])).shape == (0, NUM_STATIC)


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="2 texts, 1 prices"):
        static_features(["a", "b"], np.array([1.0]), np.array([1.0, 2.0]))


def test_a_text_is_the_signed_hashes_of_three_to_five_letters_within_its_words() -> None:
    vector = np.zeros(256)
    for word in ("red", "shoe"):
        padded = f" {word} "
        for size in (3, 4, 5):
            for start in range(len(padded) - size + 1):
                number = murmurhash3_32(padded[start : start + size], 0)
                vector[abs(number) % 256] += 1 if number >= 0 else -1
    expected = vector / np.linalg.norm(vector)
    np.testing.assert_allclose(encode_texts(["Red shoe"])[0], expected, atol=1e-6)
