"""What the owner knows of scores, as records for the next one: numbers and arrays, no code in it.

A state that other code wrote, or that is not whole, is not read: the next owner then learns from
the newest scores what is usual.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from freshet.online.drift.alarms import Held
from freshet.online.drift.monitor import DriftMonitor
from freshet.online.drift.plain import State
from freshet.online.owner.calibrating import Calibrator
from freshet.stream.codec import MAX_TIME_MS, decode, encode
from freshet.stream.errors import EventError
from freshet.stream.kafka import Outgoing, TableRecord
from freshet.stream.schemas import OwnerState
from freshet.stream.telemetry import get_logger

PART_BYTES = 384 * 1_024  # of base64 half a megabyte: less than any broker's limit
MAX_BYTES = 32 * 1_024 * 1_024  # beyond it a state is not kept
MAX_UNPACKED_BYTES = 1 << 30
MAX_TENSIONS = 1_000
ARRAY = 1  # number of the extension
LEVELS = "levels"
UNREADABLE = (zlib.error, msgspec.MsgspecError, ValueError, TypeError, KeyError, EOFError)

log = get_logger(__name__)


def pack(state: State) -> bytes:
    """A monitor's state as bytes."""
    return zlib.compress(msgspec.msgpack.encode(state, enc_hook=_as_bytes), 1)


def packed(monitor: DriftMonitor, segment_by: str, calibrator: Calibrator | None) -> bytes:
    """All that the owner knows of scores: of drift, and beside it of levels."""
    levels = b"" if calibrator is None else pack(calibrator.state())
    return pack(monitor.state() | {"segment_by": segment_by, LEVELS: levels})


def restored(
    monitor: DriftMonitor, segment_by: str, calibrator: Calibrator | None, data: bytes
) -> bool:
    """Have both go on from what `packed` made; whether there was a state of drift.

    One of levels that is of other bands, or not there, is begun anew.
    """
    try:
        state = unpack(data, monitor.state() | {"segment_by": segment_by, LEVELS: b""})
        if state["segment_by"] != segment_by:
            raise EventError(f"a state of drift by {state['segment_by']}")
        monitor.restore(state)
    except EventError as error:
        log.warning("drift_learnt_anew", error=str(error))
        return False
    if calibrator is not None and state[LEVELS]:
        try:
            calibrator.restore(_unpacked(state[LEVELS]))
        except UNREADABLE as error:
            log.warning("levels_learnt_anew", error=str(error))
    return True


def unpack(data: bytes, like: State) -> State:
    """The state again.

    Args:
        data: What `pack` made.
        like: A state of today's code, whose form it must have.

    Raises:
        EventError: It is no such state.
    """
    try:
        state = _unpacked(data)
        if LEVELS in like:
            # Owners of version 1 knew nothing of them.
            state.setdefault(LEVELS, b"")
        for part in ("segments", "shop"):
            state[part]["held"] = msgspec.convert(state[part]["held"], dict[int, Held])
    except UNREADABLE as error:
        raise EventError(f"not a state of drift: {error}") from None
    if _form(state) != _form(like):
        raise EventError("a state of drift that other code wrote")
    return state


def _unpacked(data: bytes) -> State:
    whole = zlib.decompressobj().decompress(data, MAX_UNPACKED_BYTES)
    state: State = msgspec.msgpack.decode(whole, ext_hook=_as_array)
    return state


def state_records(
    topic: str,
    state: bytes,
    *,
    resolution_ms: int,
    decided_until_ms: int,
    offsets: Mapping[str, int],
    tensions: Mapping[str, float],
) -> list[Outgoing]:
    """A state in parts that a broker takes."""
    cuts = range(0, len(state), PART_BYTES) if len(state) <= MAX_BYTES else []
    parts = [state[at : at + PART_BYTES] for at in cuts]
    tense = sorted(tensions, key=lambda name: (-tensions[name], name))[:MAX_TENSIONS]
    return [
        Outgoing(
            topic,
            state_key(resolution_ms, number),
            encode(
                OwnerState(
                    resolution_ms=resolution_ms,
                    decided_until_ms=decided_until_ms,
                    offsets=dict(offsets),
                    part=number,
                    parts=len(parts),
                    tensions={} if number else {name: tensions[name] for name in tense},
                    state=base64.b64encode(part).decode(),
                )
            ),
        )
        for number, part in enumerate(parts or [b""])
    ]


def state_key(resolution_ms: int, part: int) -> bytes:
    """Under which a part lies."""
    return f"drift@{resolution_ms}/{part}".encode()


def newest_state(
    records: Iterable[TableRecord], resolution_ms: int, latest_ms: int = MAX_TIME_MS
) -> tuple[OwnerState | None, bytes]:
    """The first part of the newest state, and all of it where it is whole."""
    parts: dict[int, OwnerState] = {}
    newest = {record.key: record for record in records}
    for record in newest.values():
        if record.value is None:
            continue
        try:
            found = decode(OwnerState, record.value, latest_ms=latest_ms)
        except EventError as error:
            place = {"partition": record.partition, "offset": record.offset}
            log.warning("record_not_read", error=str(error), topic=record.topic, **place)
            continue
        if record.key == state_key(resolution_ms, found.part):
            parts[found.part] = found
    first = parts.get(0)
    if first is None:
        return None, b""
    needed = [parts.get(number) for number in range(min(first.parts, len(parts) + 1))]
    whole = all(
        part is not None and part.decided_until_ms == first.decided_until_ms for part in needed
    )
    try:
        pieces = [base64.b64decode(part.state) for part in needed if part is not None]
    except ValueError:
        return first, b""
    return first, b"".join(pieces) if whole else b""


def _as_bytes(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        held = io.BytesIO()
        np.save(held, value, allow_pickle=False)
        return msgspec.msgpack.Ext(ARRAY, held.getvalue())
    raise NotImplementedError(type(value))


def _as_array(code: int, data: memoryview) -> Any:
    if code != ARRAY:
        raise ValueError(f"extension {code}")
    return np.load(io.BytesIO(bytes(data)), allow_pickle=False)


def _form(state: State) -> dict[str, Any]:
    """Names, kinds and dimensions of all parts, but for the number of streams."""
    found: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            dims = value.shape[:-1] if name.endswith("N") else value.shape
            found[name] = (value.dtype.kind, dims)
        elif isinstance(value, dict) and name != "held":
            found[name] = _form(value)
        else:
            found[name] = type(value).__name__
    return found
