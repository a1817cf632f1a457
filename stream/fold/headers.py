"""What a partition's header says: the settings it is folded under, and how a batch changes it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from freshet.stream.config import UTC, Settings, WindowSettings
from freshet.stream.events.decoder import EventKind
from freshet.stream.events.map.canonical import canonical
from freshet.stream.fold.batches import Counts
from freshet.stream.fold.frontier import NEVER_MS, AheadRow, Reach
from freshet.stream.fold.verdicts import Verdicts
from freshet.stream.store.layout import WINDOWS_FORMAT, Header

_YOUNGER: Final = frozenset({"frontier_rank", "max_step_ms", "max_ahead_ms", "history_before"})


def fingerprint(kind: EventKind, settings: Settings) -> str:
    """The settings that decide what tiles hold, as canonical JSON.

    `windows.idle_ms` decides nothing. What is as it was before it became a setting is left out, so
    that windows folded then are still good.
    """
    windows = settings.windows.model_dump(mode="json", exclude={"idle_ms"})
    for name in _YOUNGER & windows.keys():
        if windows[name] == WindowSettings.model_fields[name].default:
            del windows[name]
    parts: dict[str, Any] = {f"windows.{name}": value for name, value in windows.items()}
    parts |= {
        "format": WINDOWS_FORMAT,
        "kind": kind,
        "events.series_by": list(settings.events.series_by),
    }
    parts |= canonical(kind, settings.events)
    has_history = settings.windows.history_before is not None
    if has_history and kind == "orders" and settings.events.orders.mode == "state":
        parts["events.orders.history"] = "counts when made"
    if settings.events.time_unit != "ms":
        parts["events.time_unit"] = settings.events.time_unit
    if settings.calendar.time_zone != UTC:
        parts["calendar.time_zone"] = settings.calendar.time_zone
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


def kind_of(header: Header) -> str:
    """What the windows of a header hold: orders or clicks; empty where it does not say."""
    return str(json.loads(header.fingerprint).get("kind", "")) if header.fingerprint else ""


def header_after(before: Header, next_offset: int, counts: Counts, verdicts: Verdicts) -> Header:
    """The header once a batch is in."""
    first_event_ms, last_event_ms = _event_span(before, verdicts)
    return replace(
        before,
        first_offset=before.next_offset if before.first_offset is None else before.first_offset,
        next_offset=next_offset,
        **reach_fields(verdicts.times.reach),
        origin_ms=verdicts.times.first_ms if before.origin_ms is None else before.origin_ms,
        first_event_ms=first_event_ms,
        last_event_ms=last_event_ms,
        read=before.read + counts.read,
        applied=before.applied + counts.applied,
        duplicate=before.duplicate + counts.duplicate,
        late_dropped=before.late_dropped + counts.late_dropped,
        dead_letter=before.dead_letter + counts.dead_letter,
        skipped=before.skipped + counts.skipped,
        lines_dead=before.lines_dead + counts.lines_dead,
        conflicting=before.conflicting + counts.conflicting,
        items=before.items + len(verdicts.new_items),
    )


def reach_of(header: Header) -> Reach:
    """What the frontier's rule goes on from."""
    top_ms = tuple(map(int, header.top_ms.split(","))) if header.top_ms else ()
    ahead = AheadRow(header.ahead_events, header.ahead_first_ms, header.ahead_last_ms)
    frontier_ms = NEVER_MS if header.frontier_ms is None else header.frontier_ms
    doubted_ms = NEVER_MS if header.doubted_ms is None else header.doubted_ms
    return Reach(frontier_ms, top_ms, ahead, doubted_ms)


def reach_fields(reach: Reach) -> dict[str, Any]:
    """The same as fields of a header."""
    return {
        "frontier_ms": None if reach.frontier_ms == NEVER_MS else reach.frontier_ms,
        "top_ms": ",".join(map(str, reach.top_ms)),
        "ahead_events": reach.ahead.events,
        "ahead_first_ms": reach.ahead.first_ms,
        "ahead_last_ms": reach.ahead.last_ms,
        "doubted_ms": None if reach.doubted_ms == NEVER_MS else reach.doubted_ms,
    }


def _event_span(before: Header, verdicts: Verdicts) -> tuple[int | None, int | None]:
    """The first and the last moment at which an applied record counts, this batch's included."""
    span_ms = [at for at in (before.first_event_ms, before.last_event_ms) if at is not None]
    times_ms = verdicts.applied_times_ms
    if len(times_ms):
        span_ms += (int(times_ms.min()), int(times_ms.max()))
    return min(span_ms, default=None), max(span_ms, default=None)
