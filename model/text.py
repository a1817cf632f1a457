"""Static features of an item: its text as hashed character n-grams, its price, its age.

No vocabulary and no download: the same text gives the same numbers on every machine, for base
weights and for fine-tuned ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from freshet.stream.arrays import Reals, Singles
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS

NUM_TEXT = 256
NUM_NUMBERS = 6  # log price, log age, and four that a shop defines itself
NUM_STATIC = NUM_TEXT + NUM_NUMBERS


def encode_texts(texts: Sequence[str]) -> Singles:
    """Return one unit vector per text (zeros for an empty one): float32 [N, 256].

    Signed hashing of character n-grams of 3 to 5 within words, so that "trainers" and "trainer" are
    near each other and collisions cancel on average.

    >>> vectors = encode_texts(["red shoe", "red shoes", "garden hose", ""])
    >>> bool(vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2])
    True
    >>> float(vectors[3] @ vectors[3])
    0.0
    """
    # Imported here, since it takes more than a second and few who import us encode text.
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        analyzer="char_wb",
        ngram_range=(3, 5),
        n_features=NUM_TEXT,
        alternate_sign=True,
        norm="l2",
        dtype=np.float32,
    )
    if len(texts) == 0:
        return np.zeros((0, NUM_TEXT), np.float32)
    return np.asarray(vectorizer.transform(texts).toarray(), np.float32)


def static_features(texts: Sequence[str], unit_prices: Reals, ages_ms: Reals) -> Singles:
    """Return text, log price, log age in days and four free numbers: float32 [N, 262].

    The free ones are NaN.

    Args:
        texts: title, category and brand of each item in one string; may be empty.
        unit_prices: price of one unit, NaN where unknown; zero and less count as unknown.
        ages_ms: time since the launch, NaN where unknown; negative (not launched yet) counts as
            zero.

    Raises:
        InvalidInputError: the three do not have the same length.
    """
    prices = np.asarray(unit_prices, np.float64)
    ages = np.asarray(ages_ms, np.float64)
    if not len(texts) == len(prices) == len(ages):
        raise InvalidInputError(
            f"static features of {len(texts)} texts, {len(prices)} prices and {len(ages)} ages; "
            "expected one of each per item, NaN where a number is unknown"
        )
    log_prices = np.log(np.where(prices > 0, prices, np.nan))
    log_ages = np.log1p(np.maximum(ages, 0.0) / DAY_MS)
    free = np.full((len(texts), NUM_NUMBERS - 2), np.nan)
    numbers = np.column_stack([log_prices, log_ages, free]).astype(np.float32)
    return np.concatenate([encode_texts(texts), numbers], 1)
