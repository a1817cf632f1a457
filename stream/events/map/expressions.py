"""JMESPath, for what a path cannot say."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from freshet.stream.errors import ConfigError

MAX_COMPILED = 256


@lru_cache(MAX_COMPILED)
def compiled(text: str, setting: str) -> Callable[[Any], Any]:
    """What reads a record by an expression; null where the record does not suit it.

    Raises:
        ConfigError: It is no JMESPath.

    >>> compiled("items[?kind=='a'].price | [0]", "")({"items": [{"kind": "a", "price": 3}]})
    3
    """
    try:
        expression = jmespath.compile(text)
    except JMESPathError as error:
        raise ConfigError(f"{setting} is no JMESPath: {error}") from None

    def search(record: Any) -> Any:
        try:
            return expression.search(record)
        except (JMESPathError, TypeError, ValueError, AttributeError, RecursionError):
            return None

    return search
