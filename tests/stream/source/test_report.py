"""The plan file: what a source plans and how far it is, replaced whole."""

from __future__ import annotations

from pathlib import Path

import msgspec

from freshet.stream.source.pump import Progress
from freshet.stream.source.report import PlanFile


def test_the_plan_file_says_what_is_planned_and_how_far_it_is(tmp_path: Path) -> None:
    path, produced = tmp_path / "plan.json", {"freshet.orders.v1": 3}
    file = PlanFile(path, {"drift_at_ms": 7}, produced)
    file.update(Progress("history", 5, history_folded=False))
    produced["freshet.orders.v1"] = 9
    file.update(Progress("history", 6, history_folded=False))
    assert msgspec.json.decode(path.read_bytes())["sent_ms"] == 5
    file.update(Progress("live", 8, history_folded=True))
    assert msgspec.json.decode(path.read_bytes()) == {
        "drift_at_ms": 7,
        "phase": "live",
        "backfill_done": True,
        "waiting_for_ingest": False,
        "sent_ms": 8,
        "produced": {"freshet.orders.v1": 9},
    }
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]
