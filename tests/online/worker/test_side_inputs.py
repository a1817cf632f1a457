"""Catalogue, promotions and stock go to the shop, announcements to the switch; bad ones nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.online.worker import side_inputs as module
from freshet.online.worker.side_inputs import SideInputs
from freshet.stream.catalog.timeline import BucketSpan
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.kafka import TableRecord
from freshet.stream.schemas import CatalogEntry, InventoryLevel, ModelEvent, Promotion

TOPICS = Settings().kafka.topics


class Reader:
    """Hands over what the test lays out."""

    def __init__(self, _: Settings, topics: list[str]) -> None:
        self.topics, self.records, self.caught_up = topics, list[TableRecord](), False
        self.waited_ms: list[int] = []
        self.closed = False

    def poll(self, max_wait_ms: int) -> list[TableRecord]:
        self.waited_ms.append(max_wait_ms)
        found, self.records = self.records, []
        return found

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[ModelEvent]:
    monkeypatch.setattr(module, "TableReader", Reader)
    return []


def record(topic: str, value: bytes | None, at_ms: int = 50, key: bytes = b"k") -> TableRecord:
    return TableRecord(topic, key, value, at_ms, 0, 0)


def lay_out(inputs: SideInputs, *records: TableRecord) -> Reader:
    reader: Any = inputs._reader
    reader.records = list(records)
    assert isinstance(reader, Reader)
    return reader


def test_each_table_of_the_shop_is_fed_from_its_topic_as_of_the_records_time(
    offered: list[ModelEvent],
) -> None:
    inputs = SideInputs(Settings(), offered.append)
    reader = lay_out(
        inputs,
        record(TOPICS.catalog, encode(CatalogEntry(sku="a", title="Red", unit_price=8.0)), 50),
        record(TOPICS.catalog, encode(CatalogEntry(sku="a", title="Red", unit_price=9.0)), 70),
        record(
            TOPICS.promotions,
            encode(Promotion(promotion_id="p", sku="a", starts_at=0, ends_at=99, discount=0.5)),
            50,
        ),
        record(
            TOPICS.inventory, encode(InventoryLevel(sku="a", region="n", on_hand=0, as_of=0)), 50
        ),
    )
    assert set(reader.topics) == {
        TOPICS.catalog,
        TOPICS.promotions,
        TOPICS.inventory,
        TOPICS.covariates,
        TOPICS.models,
    }
    assert inputs.poll(17) == 4 and reader.waited_ms == [17]
    assert inputs.shop.texts(["a|n"]) == ["Red"] and inputs.shop.skus() == ["a"]
    prices = [inputs.shop.unit_prices(["a|n"], as_of_ms=at_ms).tolist() for at_ms in (60, 80)]
    assert prices == [[8.0], [9.0]]
    assert inputs.shop.in_stock(["a|n"], BucketSpan(50, 1, 10), as_of_ms=60).tolist() == [[0.0]]
    assert inputs.shop.known(["a|n"], BucketSpan(50, 1, 10))[0, 0, 1] > 0, "promoted"
    assert offered == []


def test_every_readable_announcement_is_handed_over_in_order_and_others_are_passed_over(
    offered: list[ModelEvent],
) -> None:
    events = [ModelEvent(kind="promoted", version=f"v{n}", at_ms=n) for n in (1, 2)]
    inputs = SideInputs(Settings(), offered.append)
    values = [b"{", encode(events[0]), None, encode(events[1])]
    lay_out(inputs, *(record(TOPICS.models, value) for value in values))
    assert inputs.poll(0) == 4 and offered == events


def test_a_worker_that_serves_what_it_was_given_hears_no_announcement(
    offered: list[ModelEvent],
) -> None:
    inputs = SideInputs(Settings(), None)
    event = ModelEvent(kind="promoted", version="v1", at_ms=1)
    lay_out(inputs, record(TOPICS.models, encode(event)))
    assert inputs.poll(0) == 1


def test_it_has_caught_up_when_its_reader_has_and_closes_it(offered: list[ModelEvent]) -> None:
    inputs = SideInputs(Settings(), None)
    reader = lay_out(inputs)
    assert not inputs.caught_up
    reader.caught_up = True
    assert inputs.caught_up
    inputs.close()
    assert reader.closed
