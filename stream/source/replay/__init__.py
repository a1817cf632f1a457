"""A parquet or CSV file and a preset or column map in; its events, in the order of time, out."""

from __future__ import annotations

from freshet.stream.source.replay.open import PRESETS, open_replay, parse_map
from freshet.stream.source.replay.rows import ReplayFile

__all__ = ["PRESETS", "ReplayFile", "open_replay", "parse_map"]
