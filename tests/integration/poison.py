"""What a broken or spiteful producer may send: thirty kinds of record that nobody can use."""

from __future__ import annotations

import json
from typing import Any

from freshet.stream.units import DAY_MS

YEAR_MS = 365 * DAY_MS


def poisons(good: dict[str, Any], times: tuple[str, ...], now_ms: int) -> list[bytes | None]:
    """Thirty kinds of value made from a good record of a topic.

    Args:
        good: A good record's fields.
        times: Names of those that say when something happened.
        now_ms: The shop's clock.
    """
    encoded = json.dumps(good).encode()
    found: list[bytes | None] = [
        b"",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"{}",
        b"{" * 5_000,
        b"[" * 100_000,
        encoded[:-1],
        encoded + encoded,
        b"\xff\xfe" + encoded,
        b"\x00\x00\x00\x00\x07" + encoded,
        encoded.replace(b'"', b"'"),
        b"<order/>",
        None,
        json.dumps(good | dict.fromkeys(good)).encode(),
        json.dumps({name: [value] for name, value in good.items()}).encode(),
        json.dumps({name: {"value": value} for name, value in good.items()}).encode(),
        json.dumps({name: str(value) * 3 for name, value in good.items()}).encode(),
        _every_number(good, "1e400"),
        _every_number(good, "NaN"),
        _every_number(good, "9" * 400),
        _every_number(good, "-1e308"),
        _first_text(good, "x" * 600_000),
        _every_text(good, 2**70),
    ]
    wrong_ms = (10**30, now_ms * 1_000, now_ms + YEAR_MS, -1, 2**63)
    found += [json.dumps(good | dict.fromkeys(times, time)).encode() for time in wrong_ms]
    return found


def _every_number(good: dict[str, Any], number: str) -> bytes:
    named = {name: "@" if _is_number(value) else value for name, value in good.items()}
    return json.dumps(named).replace('"@"', number).encode()


def _first_text(good: dict[str, Any], text: str) -> bytes:
    texts = [name for name, value in good.items() if isinstance(value, str)]
    name = next(iter(texts or good))
    return json.dumps(good | {name: text}).encode()


def _every_text(good: dict[str, Any], text: Any) -> bytes:
    changed = {name: text if isinstance(value, str) else value for name, value in good.items()}
    return json.dumps(changed).encode()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
