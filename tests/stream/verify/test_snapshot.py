"""Which stored buckets are looked at, resolution by resolution."""

from __future__ import annotations

import pytest

from freshet.stream.config import Resolution, Settings, WindowSettings
from freshet.stream.errors import StoreError
from freshet.stream.store.grid import Grid
from freshet.stream.store.layout import Keys
from freshet.stream.units import DAY_MS, HOUR_MS
from freshet.stream.verify.snapshot import MAX_RETRIES, read_snapshots
from tests.stream.read.fake_windows import FakePipeline, FakeRedis

KEYS = Keys(0, "o", 3)
SLACK_MS = 1_000


def configured(*resolutions: Resolution) -> Settings:
    windows = WindowSettings(out_of_order_ms=SLACK_MS, resolutions=resolutions)
    return Settings(
        windows=windows,
        calendar={"time_zone": "Europe/Berlin"},
        worker={"resolution_ms": HOUR_MS},
    )


def stored(**header: int) -> FakeRedis:
    client = FakeRedis()
    fields = {"first_offset": 0, "next_offset": 9, "items": 1} | header
    client.values[KEYS.header] = {name.encode(): b"%d" % at for name, at in fields.items()}
    client.values[KEYS.dictionary(0)] = {b"0": b"a"}
    return client


def asked(client: FakeRedis, *resolutions: Resolution) -> list[list[int]]:
    """The buckets of each snapshot that were asked for."""
    snapshots = read_snapshots(client, KEYS, configured(*resolutions))
    return [sorted(bucket for bucket, _ in snapshot.tiles) for snapshot in snapshots]


HOURS = Resolution(resolution_ms=HOUR_MS, buckets=3)


@pytest.fixture(autouse=True)
def keep_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tile that is asked for is there, so that what is asked can be read off."""
    monkeypatch.setattr(FakeRedis, "mget", lambda _, keys: [b"tile"] * len(keys))


def test_all_that_is_retained_is_read_from_the_first_event_to_the_newest_one() -> None:
    times = {"first_event_ms": 100 * HOUR_MS, "origin_ms": 101 * HOUR_MS}
    young = stored(**times, frontier_ms=102 * HOUR_MS, last_event_ms=102 * HOUR_MS)
    assert asked(young, HOURS) == [[100, 101, 102]]
    # A redriven record may be ahead of the frontier.
    ahead = stored(**times, frontier_ms=102 * HOUR_MS, last_event_ms=104 * HOUR_MS)
    assert asked(ahead, HOURS) == [[100, 101, 102, 103, 104]]


@pytest.mark.parametrize(("past_ms", "oldest"), [(SLACK_MS - 1, 106), (SLACK_MS, 107)])
def test_the_oldest_bucket_leaves_when_the_watermark_is_three_hours_after_its_end(
    past_ms: int, oldest: int
) -> None:
    frontier_ms = 110 * HOUR_MS + past_ms
    old = stored(
        first_event_ms=HOUR_MS, origin_ms=HOUR_MS, frontier_ms=frontier_ms, last_event_ms=HOUR_MS
    )
    # Of days one more stays: in Berlin, an hour ahead, day 3 ends at 95 hours and leaves at 119.
    days = Resolution(resolution_ms=DAY_MS, buckets=1)
    assert asked(old, HOURS, days) == [list(range(oldest, 111)), [3, 4]]


def test_a_partition_without_an_applied_record_is_read_as_nothing() -> None:
    assert asked(stored(frontier_ms=HOUR_MS), HOURS) == [[]]
    assert asked(stored(), HOURS) == [[]]


def test_days_are_those_of_the_shops_own_calendar() -> None:
    # 23:30 on 1970-01-11 in Greenwich is the twelfth in Berlin.
    late_ms = 10 * DAY_MS + 23 * HOUR_MS + HOUR_MS // 2
    client = stored(
        first_event_ms=late_ms, origin_ms=late_ms, frontier_ms=late_ms, last_event_ms=late_ms
    )
    days = Resolution(resolution_ms=DAY_MS, buckets=3)
    (of_hours, of_days) = read_snapshots(client, KEYS, configured(HOURS, days))
    assert of_days.grid == Grid(DAY_MS, "Europe/Berlin")
    assert [sorted(tiles) for tiles in (of_hours.tiles, of_days.tiles)] == [[(263, 0)], [(11, 0)]]
    assert (of_days.offset, of_days.item_ids) == (9, ["a"])


def test_snapshots_come_in_the_order_of_their_offsets_although_ingest_goes_on() -> None:
    client = stored(frontier_ms=HOUR_MS)
    offsets = iter((30, 40))

    def moved_on() -> None:
        client.values[KEYS.header][b"next_offset"] = b"%d" % next(offsets)

    client.before_transaction = moved_on
    days = Resolution(resolution_ms=DAY_MS, buckets=3)
    snapshots = read_snapshots(client, KEYS, configured(HOURS, days))
    assert [snapshot.offset for snapshot in snapshots] == [30, 40]


def test_snapshots_come_in_the_order_of_their_offsets_although_redis_fell_back() -> None:
    client = stored(frontier_ms=HOUR_MS)
    offsets = iter((40, 30))

    def fell_back() -> None:
        client.values[KEYS.header][b"next_offset"] = b"%d" % next(offsets, 30)

    client.before_transaction = fell_back
    days = Resolution(resolution_ms=DAY_MS, buckets=3)
    snapshots = read_snapshots(client, KEYS, configured(HOURS, days))
    assert [snapshot.offset for snapshot in snapshots] == [30, 40]


def test_a_header_that_is_away_for_a_moment_is_looked_for_again() -> None:
    client = stored(first_event_ms=HOUR_MS, origin_ms=HOUR_MS, frontier_ms=HOUR_MS)
    header = client.values.pop(KEYS.header)
    looks: list[bool] = []

    def look(transaction: bool) -> FakePipeline:
        looks.append(transaction)
        if looks.count(False) == 3:
            client.values[KEYS.header] = header
        return FakePipeline(client)

    client.pipeline = look  # type: ignore[method-assign]
    assert asked(client, HOURS) == [[1]]


def test_windows_that_are_gone_or_never_hold_still_are_said_to_be_so() -> None:
    with pytest.raises(StoreError, match=f"o:3 would not hold still in {MAX_RETRIES} reads"):
        read_snapshots(FakeRedis(), KEYS, configured(HOURS))
