"""Real files as events: presets for known data sets, a column map for any other parquet or CSV."""

from __future__ import annotations

from freshet.stream.source.replay.open import PRESETS, open_replay, parse_map
from freshet.stream.source.replay.rows import ReplayFile

__all__ = ["PRESETS", "ReplayFile", "open_replay", "parse_map"]
