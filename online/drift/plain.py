"""State that is a plain value: objects of numbers and arrays, read out, put back and widened.

Detectors keep all they know in attributes that are numbers, arrays, or such objects again. An array
whose name ends with N has one place a stream in its last dimension.
"""

from __future__ import annotations

from typing import Any

import numpy as np

State = dict[str, Any]


def state_of(thing: object) -> State:
    """Everything an object holds, in dicts, numbers and copies of arrays."""
    found: State = {}
    for name, value in vars(thing).items():
        if isinstance(value, np.ndarray):
            found[name] = value.copy()
        elif hasattr(value, "__dict__"):
            found[name] = state_of(value)
        else:
            found[name] = value
    return found


def put_back(thing: object, state: State) -> None:
    """Make an object of the same class hold just that."""
    for name, value in state.items():
        if isinstance(value, dict):
            put_back(getattr(thing, name), value)
        else:
            setattr(thing, name, value.copy() if isinstance(value, np.ndarray) else value)


def widen(thing: object, more: int) -> None:
    """Add streams of which nothing is known to every array that ends with N."""
    for name, value in vars(thing).items():
        if isinstance(value, np.ndarray) and name.endswith("N"):
            sides = [(0, 0)] * (value.ndim - 1) + [(0, more)]
            setattr(thing, name, np.pad(value, sides))
        elif hasattr(value, "__dict__"):
            widen(value, more)
