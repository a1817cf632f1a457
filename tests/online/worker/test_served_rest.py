"""Where no flash sale is near, there is nothing to hold, and nothing to do until the next look."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import torch

from freshet.online.worker.pace import WAIT_S
from freshet.online.worker.served import Served, Source
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import Settings
from freshet.stream.read.progress import ReadRules
from freshet.stream.settings import BY_MINUTE
from freshet.stream.units import MINUTE_MS


def test_without_a_sale_the_loop_waits_for_the_next_look() -> None:
    rules = ReadRules(MINUTE_MS, 1_440)
    reader: Any = SimpleNamespace(rules=rules, num_buckets=9, resolution_ms=MINUTE_MS, item_ids=[])
    membership: Any = SimpleNamespace(owns=lambda item_id: True)
    source = Source(lambda *_: reader, ShopTables(), membership, torch.device("cpu"))
    served = Served(Settings(), BY_MINUTE, source)
    assert served.pace.due(time.monotonic())
    assert served.refresh(now_ms=0) is None
    now_s = time.monotonic()
    assert not served.pace.due(now_s) and served.pace.wait_ms(now_s) == 1_000 * WAIT_S
