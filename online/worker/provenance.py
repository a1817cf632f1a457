"""What a forecast was made from, as one checksum a row."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor

from freshet.model.batch import Batch
from freshet.stream.arrays import Singles


def context_sha256(batch: Batch) -> list[str]:
    """The sha256 of every number that each row's forecast is made from, whatever device it is on.

    Each row's bytes in order: target, past, known, static (float32, little-endian, one spelling of
    NaN and of 0), then start and resolution (int64).
    """
    tensors = (batch.target_BT, batch.past_BTP, batch.known_BSK, batch.static_BF)
    arrays = [_canonical(tensor) for tensor in tensors]
    start_ms = batch.start_ms_B.cpu().tolist()
    hashes = []
    for row in range(len(batch)):
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(array[row])
        digest.update(np.array([start_ms[row], batch.resolution_ms], "<i8").data)
        hashes.append(digest.hexdigest())
    return hashes


def _canonical(tensor: Tensor) -> Singles:
    """One spelling of NaN, and adding 0 makes -0 a 0: equal contexts have equal bytes."""
    array = tensor.float().cpu().numpy()
    canonical: Singles = np.where(np.isnan(array), np.float32("nan"), array + np.float32(0.0))
    return np.ascontiguousarray(canonical.astype("<f4", copy=False))
