"""A script of ours in Redis: whole or not at all, and loaded again where Redis has forgotten it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import redis

_LUA = Path(__file__).parent / "lua"


class Script:
    """One file of `lua/`, called by the hash of its text."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._client = client
        self._text = (_LUA / f"{name}.lua").read_text("utf-8")
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: list[str], args: list[Any]) -> Any:
        try:
            return self._client.evalsha(self._sha, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            self._client.script_load(self._text)
            return self._client.evalsha(self._sha, len(keys), *keys, *args)
