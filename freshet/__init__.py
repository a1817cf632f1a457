"""Streaming, real-time sales forecasts: the public names, each imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from freshet.automodel import register_when_loaded

if TYPE_CHECKING:
    from freshet.model.tables.told import TableWarning
    from freshet.model.training.forecaster import Forecaster
    from freshet.stream.config import Settings
    from freshet.stream.errors import FreshetError
    from freshet.stream.read.reader import WindowReader

__version__ = "0.1.0"
__all__ = ["Forecaster", "FreshetError", "Settings", "TableWarning", "WindowReader", "__version__"]

_PUBLIC = {
    "Forecaster": "freshet.model.training.forecaster",
    "FreshetError": "freshet.stream.errors",
    "Settings": "freshet.stream.config",
    "TableWarning": "freshet.model.tables.told",
    "WindowReader": "freshet.stream.read.reader",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it.

    Raises:
        AttributeError: there is no such name.
    """
    if name not in _PUBLIC:
        raise AttributeError(
            f"module 'freshet' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """The public names, for completion in a shell or notebook."""
    return list(__all__)


register_when_loaded()
