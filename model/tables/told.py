"""What a table holds that cannot be used: said with a count, or refused where that is asked for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from freshet.stream.arrays import Bools
from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

# Returns and slips of the pen are a few rows in a thousand; a column of another kind is most rows.
ODD_SHARE = 0.02
NEGATIVE_SHARE = 0.1
ODD_ROWS_OFF = 0.1


class TableWarning(UserWarning):
    """Something of a table was left out, changed or taken for something: what, and how often."""


def tell(text: str) -> None:
    """Warn of a table, without the line of code that noticed."""
    warnings.warn(text, TableWarning, stacklevel=2)


@dataclass(frozen=True, slots=True)
class Oddities:
    """How much of a table may be odd before it is refused.

    Attributes:
        strict: nothing may be.
    """

    strict: bool = False

    def tolerate(
        self, odd_R: Bools, message: str, *, done: str, hint: str, share: float = ODD_SHARE
    ) -> bool:
        """Whether some rows are odd, after saying so.

        Raises:
            InvalidInputError: `message`, where nothing odd may be, or more than a slip is.
        """
        count = int(odd_R.sum())
        if not count:
            return False
        if self.strict or count > max(1.0, share * len(odd_R)) or count == len(odd_R):
            raise InvalidInputError(message, hint=hint)
        tell(f"{message}: {done}")
        return True

    def without(self, frame: pd.DataFrame, odd_R: Bools, message: str, hint: str) -> pd.DataFrame:
        """The frame without odd rows."""
        if not self.tolerate(odd_R, message, done="left out", hint=hint):
            return frame
        return frame[~np.asarray(odd_R)]
