"""The door to Redis on a real server: claims, writes, refusals, and what each error says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from pydantic import SecretStr

from freshet.stream.config import RedisSettings
from freshet.stream.errors import (
    FingerprintError,
    StoreError,
    StoreUnavailableError,
    StoreUnfitError,
)
from freshet.stream.store import layout
from freshet.stream.store import redis as redis_module
from freshet.stream.store.connection import check_fit, connect
from freshet.stream.store.layout import (
    Answer,
    Header,
    MinuteAppend,
    OrderWrites,
    TileWrites,
    Update,
)
from freshet.stream.store.redis import WindowStore
from freshet.stream.store.script import Script

TOPIC = "freshet.orders.v1"


@pytest.fixture
def client(redis_server: str) -> Iterator[redis.Redis]:
    client = connect(RedisSettings(url=SecretStr(redis_server)))
    yield client
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "0")
    client.close()


@pytest.fixture
def store(client: redis.Redis) -> WindowStore:
    return WindowStore(client, 0)


def update(claim: Header, start: int, end: int, **fields: object) -> Update:
    values = {
        "topic": TOPIC,
        "partition": 3,
        "epoch": claim.epoch,
        "owner": claim.owner,
        "expected_offset": start,
        "next_offset": end,
        "watermark_ms": None,
        "header": {"first_offset": 0, "read": end, "applied": end, "items": 0},
        "items_before": 0,
    }
    return Update(**(values | fields))


def everything(client: redis.Redis) -> dict[bytes, bytes]:
    return {key: client.dump(key) for key in client.keys("*")}


def test_a_claim_lists_the_partition_raises_the_epoch_and_gives_the_header(
    store: WindowStore,
) -> None:
    first = store.claim(TOPIC, 3, '{"a":1}')
    second = store.claim(TOPIC, 3, '{"a":1}')
    assert (first.epoch, second.epoch) == (1, 2)
    assert first.owner != second.owner
    assert second.next_offset is None
    assert store.partitions() == [(TOPIC, 3)]
    assert store.header(TOPIC, 3) == second
    assert store.header(TOPIC, 4) is None


def test_other_settings_are_refused_with_the_difference_and_the_way_out(store: WindowStore) -> None:
    header = store.claim(TOPIC, 3, '{"windows.allowed_lateness_ms":900000}')
    assert store.apply(update(header, 0, 5)) is Answer.APPLIED
    with pytest.raises(
        FingerprintError, match=r"allowed_lateness_ms was 900000, is 1; .*--from-beginning --into 1"
    ):
        store.claim(TOPIC, 3, '{"windows.allowed_lateness_ms":1}')
    assert store.header(TOPIC, 3).epoch == header.epoch


def test_each_outcome_of_apply_writes_only_when_it_says_applied(
    client: redis.Redis, store: WindowStore
) -> None:
    old = store.claim(TOPIC, 3, "{}")
    header = store.claim(TOPIC, 3, "{}")
    assert (
        store.apply(update(header, 5, 9)) is Answer.GAP
    )  # It would not be the state's first batch.
    assert store.apply(update(header, 0, 5)) is Answer.APPLIED
    before = everything(client)
    assert store.apply(update(header, 0, 5)) is Answer.ALREADY
    assert store.apply(update(header, 0, 4)) is Answer.GAP
    assert store.apply(update(header, 7, 9)) is Answer.GAP
    assert store.apply(update(old, 5, 9)) is Answer.FENCED
    newer = Header(epoch=header.epoch + 1, owner="x")
    assert store.apply(update(newer, 5, 9)) is Answer.GAP
    other = Header(epoch=header.epoch, owner="x")
    assert store.apply(update(other, 5, 9)) is Answer.FENCED
    assert everything(client) == before


def test_apply_writes_tiles_dictionary_minutes_index_and_books_together(
    client: redis.Redis, store: WindowStore
) -> None:
    header = store.claim(TOPIC, 3, "{}")
    tiles = TileWrites(
        60_000, ["7:0", "7:1", "8:0"], [b"a", b"b", b"c"], [540_000, 540_000, 600_000]
    )
    items = [f"s{n}" for n in range(1_026)]
    books = {
        "first_offset": 0,
        "read": 9,
        "applied": 9,
        "items": len(items),
        "frontier_ms": 480_000,
    }
    first = update(
        header,
        0,
        9,
        header=books,
        new_items=items,
        minutes=[MinuteAppend(7, 1_000_000, 0, b"12345678")],
        tiles=[tiles],
    )
    assert store.apply(first) is Answer.APPLIED
    keys = store.keys(TOPIC, 3)
    assert store.read([keys.tile(60_000, 7, 1), keys.tile(60_000, 9, 0), keys.minute(7)]) == [
        b"b",
        None,
        b"12345678",
    ]
    assert store.dictionary(TOPIC, 3, 1_026) == items
    assert client.hget(keys.dictionary(1), "1") == b"s1025"
    assert client.zrange(keys.index(60_000), 0, -1, withscores=True) == [
        (b"7:0", 9.0),
        (b"7:1", 9.0),
        (b"8:0", 9.0),
    ]
    retained = dict(client.zrange(keys.retained, 0, -1, withscores=True))
    assert retained == {b"60000:7:0": 540_000.0, b"60000:8:0": 600_000.0, b"u:7": 1_000_000.0}
    stored = store.header(TOPIC, 3)
    assert (stored.next_offset, stored.items, stored.frontier_ms, stored.applied) == (
        9,
        1_026,
        480_000,
        9,
    )


def test_tiles_leave_exactly_when_the_watermark_reaches_their_expiry(
    client: redis.Redis, store: WindowStore
) -> None:
    header = store.claim(TOPIC, 3, "{}")
    tiles = TileWrites(60_000, ["7:0", "8:0"], [b"a", b"c"], [540_000, 600_000])
    items = {"header": {"first_offset": 0, "items": 1}}
    first = update(header, 0, 1, new_items=["s"], tiles=[tiles], watermark_ms=539_999, **items)
    assert store.apply(first) is Answer.APPLIED
    keys = store.keys(TOPIC, 3)
    assert store.read([keys.tile(60_000, 7, 0)]) == [b"a"]
    assert (
        store.apply(update(header, 1, 2, items_before=1, watermark_ms=540_000, **items))
        is Answer.APPLIED
    )
    assert store.read([keys.tile(60_000, 7, 0), keys.tile(60_000, 8, 0)]) == [None, b"c"]
    assert client.zrange(keys.index(60_000), 0, -1) == [b"8:0"]


def test_one_call_removes_a_bounded_number_of_keys(
    client: redis.Redis, store: WindowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MAX_REMOVED_KEYS", 3)
    header = store.claim(TOPIC, 3, "{}")
    tiles = TileWrites(
        1_000, [f"{n}:0" for n in range(8)], [b"x"] * 8, [n * 1_000 + 2_000 for n in range(8)]
    )
    items = {"header": {"first_offset": 0, "items": 1}}
    store.apply(update(header, 0, 1, new_items=["s"], tiles=[tiles], watermark_ms=0, **items))
    left = []
    for n in range(1, 4):
        assert (
            store.apply(update(header, n, n + 1, items_before=1, watermark_ms=10**9, **items))
            is Answer.APPLIED
        )
        left.append(len(client.keys("*:w:*")))
    assert left == [5, 2, 0]


def test_the_index_is_bounded_and_its_floor_says_below_what_it_knows_nothing(
    client: redis.Redis, store: WindowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "MAX_INDEX_TILES", 2)
    header = store.claim(TOPIC, 3, "{}")
    for n in range(5):
        tiles = TileWrites(1_000, [f"{n}:0"], [b"x"], [n * 1_000 + 9_000])
        assert store.apply(update(header, n, n + 1, tiles=[tiles])) is Answer.APPLIED
    index = client.zrange(store.keys(TOPIC, 3).index(1_000), 0, -1, withscores=True)
    assert index == [(b"3:0", 4.0), (b"4:0", 5.0)]
    assert store.header(TOPIC, 3).index_floor == 3
    assert store.apply(update(header, 5, 6)) is Answer.APPLIED
    assert store.header(TOPIC, 3).index_floor == 3, "it never falls"
    two = [TileWrites(1_000, ["8:0", "8:1"], [b"x"] * 2, [10**9] * 2)]
    assert store.apply(update(header, 6, 7, tiles=two)) is Answer.APPLIED
    assert store.header(TOPIC, 3).index_floor == 5, "the newest of those that it forgot"
    three = TileWrites(60_001, ["9:0", "9:1", "9:2"], [b"x"] * 3, [10**9] * 3)
    both = [TileWrites(width, ["9:0", "9:1"], [b"x"] * 2, [10**9] * 2) for width in (60_000, 1_000)]
    assert store.apply(update(header, 7, 8, tiles=[three, *both])) is Answer.APPLIED
    assert store.header(TOPIC, 3).index_floor == 8, "the worst of all resolutions"


def test_minutes_grow_and_leave_at_their_expiry_and_redrive_headers_never_do(
    client: redis.Redis, store: WindowStore
) -> None:
    header = store.claim(TOPIC, 3, "{}")
    keys = store.keys(TOPIC, 3)
    for start, data in ((0, b"12345678"), (8, b"abcdefgh")):
        batch = update(
            header,
            start,
            start + 8,
            minutes=[MinuteAppend(7, 540_000, start, data), MinuteAppend(8, 600_000, start, data)],
            redrives=[b"r%d" % start, b"again"],
            watermark_ms=539_999,
        )
        assert store.apply(batch) is Answer.APPLIED
    whole = b"12345678abcdefgh"
    assert store.read([keys.minute(7), keys.minute(8)]) == [whole, whole]
    assert store.minutes(TOPIC, 3) == [7, 8] and store.minutes(TOPIC, 4) == []
    assert store.apply(update(header, 16, 17, watermark_ms=540_000)) is Answer.APPLIED
    assert store.read([keys.minute(7), keys.minute(8)]) == [None, whole]
    assert store.minutes(TOPIC, 3) == [8]
    assert client.zrange(keys.retained, 0, -1) == [b"u:8"]
    assert client.smembers(keys.redrives) == {b"r0", b"r8", b"again"}


def test_states_of_orders_are_written_whole_and_leave_when_the_last_of_their_day_does(
    client: redis.Redis, store: WindowStore
) -> None:
    header = store.claim(TOPIC, 3, "{}")
    keys = store.keys(TOPIC, 3)
    names = [b"%08d" % n for n in range(2_500)]
    many = OrderWrites(20, 600_000, names, [b"s%d" % n for n in range(2_500)])
    other = OrderWrites(21, 540_000, [b"\0" * 8], [b"x"])
    assert store.apply(update(header, 0, 1, orders=[many, other])) is Answer.APPLIED
    asked = [(keys.orders(20), [names[0], b"unknown", names[2_499]]), (keys.orders(21), [b"no"])]
    assert store.read_fields(asked) == [[b"s0", None, b"s2499"], [None]]
    # An earlier expiry moves nothing; a later one does.
    changed = [OrderWrites(20, 500_000, names[:1], [b"t"]), OrderWrites(21, 541_000, [b"y"], [b""])]
    assert store.apply(update(header, 1, 2, orders=changed)) is Answer.APPLIED
    assert dict(client.zrange(keys.retained, 0, -1, withscores=True)) == {
        b"o:20": 600_000.0,
        b"o:21": 541_000.0,
    }
    assert store.read_fields([(keys.orders(20), names[:2])]) == [[b"t", b"s1"]]
    assert store.apply(update(header, 2, 3, watermark_ms=541_000)) is Answer.APPLIED
    assert (client.hlen(keys.orders(20)), client.hlen(keys.orders(21))) == (2_500, 0)
    assert store.apply(update(header, 3, 4, watermark_ms=600_000)) is Answer.APPLIED
    assert client.hlen(keys.orders(20)) == 0


def test_many_fields_are_read_in_calls_of_a_bounded_size(
    store: WindowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "MAX_FIELDS_A_CALL", 2)
    header = store.claim(TOPIC, 3, "{}")
    names = [b"%d" % n for n in range(5)]
    store.apply(update(header, 0, 1, orders=[OrderWrites(20, 1, names, names)]))
    key = store.keys(TOPIC, 3).orders(20)
    assert store.read_fields([(key, names), (key, []), (key, names[3:])]) == [names, [], names[3:]]
    assert store.read_fields([]) == []


@pytest.mark.parametrize(("at_once", "expected"), [(300, [588, 76, 0]), (256, [844, 588, 332])])
def test_a_bucket_of_many_chunks_is_indexed_whole_and_leaves_group_by_group(
    client: redis.Redis,
    store: WindowStore,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    expected: list[int],
) -> None:
    monkeypatch.setattr(layout, "MAX_REMOVED_KEYS", at_once)
    header = store.claim(TOPIC, 3, "{}")
    keys = store.keys(TOPIC, 3)
    num_chunks = 1_100
    names = [f"7:{chunk}" for chunk in range(num_chunks)]
    tiles = TileWrites(1_000, names, [b"x"] * num_chunks, [9_000] * num_chunks)
    books = {"first_offset": 0, "items": num_chunks * 1_024}
    first = update(header, 0, 1, header=books, tiles=[tiles], watermark_ms=8_999)
    assert store.apply(first) is Answer.APPLIED
    assert client.zcard(keys.index(1_000)) == num_chunks
    assert dict(client.zrange(keys.retained, 0, -1, withscores=True)) == {
        b"1000:7:%d" % group: 9_000.0 for group in range(5)
    }
    left = []
    for offset in range(1, 4):
        books = {"header": books, "items_before": num_chunks * 1_024} if offset == 1 else books
        assert store.apply(update(header, offset, offset + 1, watermark_ms=9_000, **books)) is (
            Answer.APPLIED
        )
        left.append((client.zcard(keys.index(1_000)), len(client.keys("*:w:1000:*"))))
    # Groups of 256 chunks leave whole, and no further one is begun once so many keys are gone.
    assert left == [(count, count) for count in expected]
    assert client.zcard(keys.retained) == -(-expected[-1] // 256)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (
            lambda client, keys: client.set(keys.minute(7), b"1234567890123456"),
            "has 16 bytes, expected 8",
        ),
        (lambda client, keys: client.set(keys.minute(7), b"1234"), "has 4 bytes, expected 8"),
        (
            lambda client, keys: (client.delete(keys.minute(7)), client.rpush(keys.minute(7), "x")),
            "is not a string",
        ),
        (lambda client, keys: client.set(keys.index(1_000), b"x"), "is not a sorted set"),
        (lambda client, keys: client.set(keys.retained, b"x"), "r is not a sorted set"),
        (lambda client, keys: client.set(keys.redrives, b"x"), "v is not a set"),
        (lambda client, keys: client.set(keys.dictionary(0), b"x"), "is not a hash"),
        (lambda client, keys: client.set(keys.orders(20), b"x"), "o:20 is not a hash"),
        (lambda client, keys: client.hset(keys.header, "items", 5), "has 5 items, expected 0"),
    ],
)
def test_damage_is_found_before_anything_is_written(
    client: redis.Redis, store: WindowStore, spoil: object, text: str
) -> None:
    header = store.claim(TOPIC, 3, "{}")
    store.apply(update(header, 0, 1, minutes=[MinuteAppend(7, 10**9, 0, b"12345678")]))
    for key in (store.keys(TOPIC, 3).index(1_000), store.keys(TOPIC, 3).dictionary(0)):
        client.delete(key)
    spoil(client, store.keys(TOPIC, 3))
    before = everything(client)
    tiles = TileWrites(1_000, ["4:0"], [b"x"], [13_000])
    wanted = update(
        header,
        1,
        2,
        new_items=["s"],
        tiles=[tiles],
        minutes=[MinuteAppend(7, 10**9, 8, b"12345678")],
        orders=[OrderWrites(20, 10**9, [b"n"], [b"s"])],
    )
    with pytest.raises(StoreError, match=text):
        store.apply(wanted)
    assert everything(client) == before


def test_new_items_get_the_slots_after_those_there_are_over_the_edge_of_a_chunk(
    client: redis.Redis, store: WindowStore
) -> None:
    header = store.claim(TOPIC, 3, "{}")
    keys = store.keys(TOPIC, 3)
    items = [f"s{n}" for n in range(1_023)]
    books = {"header": {"first_offset": 0, "items": 1_023}}
    assert store.apply(update(header, 0, 1, new_items=items, **books)) is Answer.APPLIED
    more = {"items_before": 1_023, "new_items": ["last", "first"]}
    more["header"] = {"first_offset": 0, "items": 1_025}
    client.set(keys.dictionary(1), b"x")
    before = everything(client)
    with pytest.raises(StoreError, match="d:1 is not a hash"):
        store.apply(update(header, 1, 2, **more))
    assert everything(client) == before
    client.delete(keys.dictionary(1))
    assert store.apply(update(header, 1, 2, **more)) is Answer.APPLIED
    assert store.dictionary(TOPIC, 3, 1_025) == [*items, "last", "first"]
    assert client.hgetall(keys.dictionary(1)) == {b"0": b"first"}


@pytest.mark.parametrize(
    ("name", "expiry", "more", "text"),
    [
        ("4-0", 13_000, [], "no tile is named 4-0"),
        ("4:0:1", 13_000, [], "no tile is named 4:0:1"),
        ("4:0", "soon", [], "no tile is named 4:0"),
        ("4:0", 13_000, ["more"], "the call has 34 arguments, expected 33"),
    ],
)
def test_a_call_that_is_not_understood_writes_nothing(
    client: redis.Redis, store: WindowStore, name: str, expiry: object, more: list[str], text: str
) -> None:
    header = store.claim(TOPIC, 3, "{}")
    before = everything(client)
    tiles = TileWrites(1_000, ["3:0", name], [b"x"] * 2, [12_000, expiry])
    keys = store.keys(TOPIC, 3)
    arguments = update(header, 0, 1, tiles=[tiles]).arguments(keys.prefix) + more
    with pytest.raises(redis.ResponseError, match=text):
        Script(client, "apply")([keys.header], arguments)
    assert everything(client) == before


def test_a_full_redis_is_said_and_nothing_is_written(
    client: redis.Redis, store: WindowStore
) -> None:
    header = store.claim(TOPIC, 3, "{}")
    client.config_set("maxmemory", "1")
    with pytest.raises(StoreUnavailableError, match="full"):
        store.apply(update(header, 0, 1))
    client.config_set("maxmemory", "0")
    assert store.header(TOPIC, 3) == header


def test_idle_rises_under_the_epoch_and_leaves_the_offset(store: WindowStore) -> None:
    old = store.claim(TOPIC, 3, "{}")
    assert store.declare_idle(TOPIC, 3, old, 50) is Answer.APPLIED
    header = store.claim(TOPIC, 3, "{}")
    assert store.declare_idle(TOPIC, 3, old, 900) is Answer.FENCED
    assert store.declare_idle(TOPIC, 3, header, 40) is Answer.APPLIED
    assert store.header(TOPIC, 3).idle_frontier_ms == 50
    assert store.apply(update(header, 0, 1)) is Answer.APPLIED
    assert (
        store.declare_idle(TOPIC, 3, header, 60) is Answer.GAP
    )  # It stands before the first batch.
    moved = store.header(TOPIC, 3)
    assert store.declare_idle(TOPIC, 3, moved, 60) is Answer.APPLIED
    assert store.header(TOPIC, 3).idle_frontier_ms == 60
    assert store.header(TOPIC, 3).next_offset == 1


def test_a_dictionary_with_a_hole_is_damage(client: redis.Redis, store: WindowStore) -> None:
    header = store.claim(TOPIC, 3, "{}")
    books = {"first_offset": 0, "items": 2}
    store.apply(update(header, 0, 1, header=books, new_items=["a", "b"]))
    client.hdel(store.keys(TOPIC, 3).dictionary(0), "1")
    with pytest.raises(StoreError, match="lacks slot 1, expected 2"):
        store.dictionary(TOPIC, 3, 2)


def test_generations_share_nothing(client: redis.Redis, store: WindowStore) -> None:
    store.claim(TOPIC, 3, "{}")
    other = WindowStore(client, 1)
    assert other.partitions() == []
    assert other.claim(TOPIC, 0, "{}").epoch == 1
    assert store.partitions() == [(TOPIC, 3)]


def test_a_missing_redis_is_named_without_its_password() -> None:
    settings = RedisSettings(url=SecretStr("redis://me:secret@127.0.0.1:1/0"), timeout_ms=200)
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1 does not answer") as caught:
        connect(settings)
    assert "secret" not in str(caught.value)
    assert caught.value.retriable


def test_an_address_that_is_none_is_named_without_its_password() -> None:
    with pytest.raises(StoreError, match="http://shop:80") as caught:
        connect(RedisSettings(url=SecretStr("http://me:secret@shop:80")))
    assert "secret" not in str(caught.value)


def test_a_redis_that_evicts_is_unfit_and_a_good_one_is_fit(client: redis.Redis) -> None:
    check_fit(client)
    client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreUnfitError, match="set maxmemory-policy noeviction"):
        check_fit(client)


def test_a_redis_without_scripts_is_unfit(client: redis.Redis, redis_server: str) -> None:
    client.acl_setuser(
        "plain", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-eval", "-@scripting"]
    )
    address = redis_server.removeprefix("redis://")
    plain = connect(RedisSettings(url=SecretStr(f"redis://plain:x@{address}")))
    try:
        with pytest.raises(StoreUnfitError, match="allow EVAL"):
            check_fit(plain)
    finally:
        plain.close()
        client.acl_deluser("plain")


def test_a_connection_never_retries_by_itself(client: redis.Redis) -> None:
    connection = client.connection_pool.make_connection()
    assert connection.retry.get_retries() == 0
