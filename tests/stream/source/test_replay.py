"""Replaying files: what the presets count, that maps read any table, and mistakes named."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.config import EventSettings
from freshet.stream.errors import InvalidInputError
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.source.replay import ReplayFile, open_replay, parse_map
from freshet.stream.units import DAY_MS, HOUR_MS

DATA = Path(os.environ.get("FRESHET_DATA") or Path(__file__).parents[4] / "shared" / "data")


def data(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the data set {name} is not in {DATA}")
    return path


def values(
    replay: ReplayFile, slice_ms: int = HOUR_MS
) -> list[tuple[str, bytes, dict[str, Any], int]]:
    """All records, checked to be in time order and inside their batch."""
    found, last_ms = [], replay.start_ms
    for batch in replay.batches(slice_ms):
        assert batch.start_ms == last_ms < batch.end_ms
        assert batch.timestamps_ms == sorted(batch.timestamps_ms)
        assert all(batch.start_ms <= at < batch.end_ms for at in batch.timestamps_ms)
        decoded = [msgspec.json.decode(value or b"") for value in batch.values]
        found += list(zip(batch.kinds, batch.keys, decoded, batch.timestamps_ms, strict=True))
        last_ms = batch.end_ms
    return found


def write(folder: Path, table: dict[str, list[Any]], name: str = "shop.parquet") -> Path:
    pq.write_table(pa.table(table), folder / name)
    return folder / name


# Presets on the real files ------------------------------------------------------------------------


@pytest.mark.slow
def test_online_retail_is_all_goods_with_a_price_once() -> None:
    replay = open_replay(data("online_retail/online_retail_II.parquet"), preset="online_retail")
    assert replay.skipped["second copy of days in both sheets"] == 22_523
    assert len(replay.rows) + sum(replay.skipped.values()) == 1_067_370
    assert len(replay.rows) > 1_030_000
    # 2009-12-01 07:45 and 2011-12-09 12:50 in London, both in winter time.
    assert (replay.start_ms, replay.end_ms - 1) == (1_259_653_500_000, 1_323_435_000_000)
    assert (replay.rows.unit_price > 0).all() and (replay.rows.quantity != 0).all()
    orders = replay.rows.order_id
    assert orders is not None
    returned = replay.rows.keep(replay.rows.quantity < 0)
    assert len(returned) > 15_000 and returned.order_id is not None
    assert all(
        returned.order_id.names[code].startswith("C")
        for code in set(returned.order_id.codes.tolist())
    )
    assert replay.catalog["85123A"].title == "WHITE HANGING HEART T-LIGHT HOLDER"
    assert not {"POST", "M", "DOT", "BANK CHARGES", "gift_0001_20"} & set(replay.catalog)


def test_online_retail_summer_times_are_an_hour_earlier_in_utc(tmp_path: Path) -> None:
    path = write(
        tmp_path, RETAIL | {"ts": [pa.scalar(1_277_978_400_000, pa.timestamp("ms")).as_py()] * 6}
    )
    assert open_replay(path, preset="online_retail").start_ms == 1_277_978_400_000 - HOUR_MS


@pytest.mark.parametrize(
    ("name", "clicks", "orders", "skipped"),
    [
        pytest.param(
            "dense_slice.parquet", 98_361 + 6_063 + 3_383, 2_493, 0, marks=pytest.mark.slow
        ),
        ("user_sample.parquet", 82_690, 1_750, 35),
    ],
)
def test_taobao_is_clicks_and_purchases_of_one(
    name: str, clicks: int, orders: int, skipped: int
) -> None:
    replay = open_replay(data(f"taobao_userbehavior/{name}"), preset="taobao")
    records = values(replay)
    counts = Counter(kind for kind, *_ in records)
    assert (counts["clicks"], counts["orders"], sum(replay.skipped.values())) == (
        clicks,
        orders,
        skipped,
    )
    bought = [value for kind, _, value, _ in records if kind == "orders"]
    assert {(value["quantity"], value["unit_price"], value["region"]) for value in bought} == {
        (1, 0, "-")
    }
    assert {value["kind"] for kind, _, value, _ in records if kind == "clicks"} == {
        "view",
        "cart",
        "favourite",
    }


@pytest.mark.parametrize("name", ["", "order_items.parquet", "orders.parquet"])
def test_olist_joins_items_with_their_orders_whatever_file_is_named(name: str) -> None:
    replay = open_replay(data("olist_sample_10k") / name, preset="olist")
    assert len(replay.rows) + sum(replay.skipped.values()) == 11_252
    assert len(replay.rows) > 11_000
    # 2017-01-05 11:49 and 2017-12-31 in Sao Paulo, two or three hours behind UTC.
    assert (
        1_483_617_000_000 < replay.start_ms < 1_483_630_000_000
        and replay.end_ms < 1_514_779_200_000
    )
    assert any(entry.category == "health_beauty" for entry in replay.catalog.values())


def test_dunnhumby_is_lines_of_stores_at_the_price_paid() -> None:
    replay = open_replay(data("dunnhumby_complete_journey_sample"), preset="dunnhumby")
    assert len(replay.rows) + sum(replay.skipped.values()) == 75_000
    assert len(replay.rows) == 74_584 and (replay.rows.quantity > 0).all()
    records = values(replay, DAY_MS)
    first = next(value for kind, _, value, _ in records if kind == "orders")
    assert first["order_id"] and first["region"].isdigit()
    assert any(
        value["title"] and value["category"] for kind, _, value, _ in records if kind == "catalog"
    )


def test_every_event_of_the_real_files_is_valid() -> None:
    replay = open_replay(data("dunnhumby_complete_journey_sample"), preset="dunnhumby")
    batch = next(iter(replay.batches(400 * DAY_MS)))
    orders = [i for i, kind in enumerate(batch.kinds) if kind == "orders"]
    decoder = EventDecoder("orders", EventSettings())
    assert (
        decoder.decode([batch.values[i] for i in orders], [batch.keys[i] for i in orders]).refusals
        == []
    )


# Presets on a small file --------------------------------------------------------------------------

RETAIL: dict[str, list[Any]] = {
    "ts": [pa.scalar(1_290_000_000_000, pa.timestamp("ms")).as_py()] * 6,
    "invoice": ["1", "C2", "3", "4", "5", "6"],
    "sku": ["85123A", "85123A", "POST", "21000", "22000", "85123A"],
    "description": ["HEART", "HEART", "POSTAGE", "damaged", "DOUBLE", None],
    "quantity": [6, -2, 1, -9, 1, 1],
    "unit_price": [2.55, 2.55, 18.0, 0.0, 1.0, 3.0],
    "country": ["France"] * 6,
    "row": [0, 1, 2, 3, 4, 5],
    "in_overlap": [False, False, False, False, True, False],
}


def test_retail_rows_become_orders_returns_and_named_skips(tmp_path: Path) -> None:
    replay = open_replay(write(tmp_path, RETAIL), preset="online_retail")
    assert sum(replay.skipped.values()) == len(replay.skipped) == 3
    records = values(replay)
    assert [kind for kind, *_ in records] == ["catalog", "orders", "orders", "orders"]
    assert records[0][2]["title"] == "HEART" and records[0][2]["unit_price"] == 2.55
    assert records[1][1:3] == (
        b"85123A",
        {
            "event_id": "online_retail-0",
            "sku": "85123A",
            "region": "France",
            "event_time": 1_290_000_000_000,
            "order_id": "1",
            "quantity": 6,
            "unit_price": 2.55,
        },
    )
    assert (records[2][2]["quantity"], records[2][2]["order_id"]) == (-2, "C2")


def test_a_preset_names_the_column_it_misses_and_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path, {name: column for name, column in RETAIL.items() if name != "country"})
    with pytest.raises(
        InvalidInputError, match=r"no column 'country'.*its columns are ts, invoice, sku"
    ):
        open_replay(path, preset="online_retail")


# Maps ---------------------------------------------------------------------------------------------


def test_a_map_reads_a_csv_with_clicks_and_orders(tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    path.write_text(
        "when,item,what,n,price,place\n"
        "2026-01-05T10:00:02Z,b,Purchase,2,9.5,north\n"
        '2026-01-05T11:00:01+01:00,"a ""quoted""",view,,,\n'
        "2026-01-05T10:00:03Z,a,dance,1,1,north\n"
        "2026-01-05T10:00:04Z,a,order,0,1,north\n"
        "2026-01-05T10:00:05Z,a,order,1,-4,north\n"
        ",a,order,1,1,north\n"
    )
    mapping = parse_map(
        "event_time=when,sku=item,kind=what,quantity=n,unit_price=price,region=place"
    )
    replay = open_replay(path, mapping=mapping)
    assert replay.skipped == {"no time": 1, "unknown kind": 1, "no quantity": 1, "no price": 1}
    (kind, key, view, at_ms), (other, _, order, _) = values(replay)
    assert (kind, other) == ("clicks", "orders")
    assert at_ms == 1_767_607_201_000 and key == b'a "quoted"'
    assert (view["sku"], view["kind"]) == ('a "quoted"', "view")
    assert (order["quantity"], order["unit_price"], order["region"]) == (2, 9.5, "north")


def test_a_map_of_time_and_sku_alone_sells_one_free_unit_each(tmp_path: Path) -> None:
    path = write(tmp_path, {"t": [1_700_000_100, 1_700_000_000], "s": [7, 8]})
    first, second = values(open_replay(path, mapping={"event_time": "t", "sku": "s"}))
    assert first[2] == {
        "event_id": "shop-1",
        "sku": "8",
        "region": "-",
        "event_time": 1_700_000_000_000,
        "quantity": 1,
        "unit_price": 0,
    }
    assert second[3] == 1_700_000_100_000


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"sku": "s"},
            "does not say which column of shop.parquet is 'event_time'; its columns are t, s",
        ),
        (
            {"event_time": "t", "sku": "article"},
            "no column 'article', which --map needs; its columns are t, s",
        ),
        ({"event_time": "s", "sku": "s"}, r"'x' in column 's' \(row 1\) is no time"),
        ({"event_time": "t", "sku": "s", "quantity": "s"}, "column 's' is not numeric"),
    ],
)
def test_a_wrong_map_is_refused_with_the_file_s_columns(
    tmp_path: Path, mapping: dict[str, str], message: str
) -> None:
    path = write(tmp_path, {"t": [1_700_000_000], "s": ["x"]})
    with pytest.raises(InvalidInputError, match=message):
        open_replay(path, mapping=mapping)


def test_a_map_must_be_pairs_of_known_fields() -> None:
    with pytest.raises(InvalidInputError, match="the fields are event_time, sku"):
        parse_map("event_time=t,colour=c")
    with pytest.raises(InvalidInputError, match="'sku' is not field=column"):
        parse_map("sku")


@pytest.mark.parametrize(
    ("preset", "mapping"), [(None, None), ("taobao", {"sku": "s"}), ("groceries", None)]
)
def test_a_replay_needs_one_known_way(
    tmp_path: Path, preset: str | None, mapping: dict[str, str] | None
) -> None:
    with pytest.raises(InvalidInputError):
        open_replay(write(tmp_path, {"s": [1]}), preset=preset, mapping=mapping)


def test_missing_broken_and_empty_files_are_named(tmp_path: Path) -> None:
    mapping = {"event_time": "t", "sku": "s"}
    with pytest.raises(InvalidInputError, match=r"nowhere.parquet does not exist"):
        open_replay(tmp_path / "nowhere.parquet", mapping=mapping)
    (tmp_path / "broken.parquet").write_bytes(b"not a parquet file")
    with pytest.raises(InvalidInputError, match=r"broken.parquet cannot .* named like parquet"):
        open_replay(tmp_path / "broken.parquet", mapping=mapping)
    empty = write(tmp_path, {"t": [None], "s": ["x"]}, "empty.parquet")
    with pytest.raises(InvalidInputError, match=r"no events to replay"):
        open_replay(empty, mapping=mapping)


@given(
    times=st.lists(
        st.integers(1_600_000_000_000, 1_600_000_000_000 + 3 * DAY_MS), min_size=1, max_size=60
    ),
    slice_ms=st.sampled_from([1_000, 60_000, HOUR_MS, DAY_MS]),
)
def test_slices_hold_every_row_once_in_time_order(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], slice_ms: int
) -> None:
    path = write(
        tmp_path_factory.mktemp("rows"), {"t": times, "s": [str(i) for i in range(len(times))]}
    )
    replay = open_replay(path, mapping={"event_time": "t", "sku": "s"})
    records = values(replay, slice_ms)
    assert [at for *_, at in records] == sorted(times)
    assert sorted(value["event_id"] for *_, value, _ in records) == sorted(
        f"shop-{i}" for i in range(len(times))
    )
