"""What arrays of numbers are called in annotations, by what they hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Singles = NDArray[np.float32]
Reals = NDArray[np.floating]
"""Single or double precision."""
Hashes = NDArray[np.uint64]
Digests = NDArray[np.uint32]
Bytes = NDArray[np.uint8]
