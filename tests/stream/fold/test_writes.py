"""What a batch writes of tiles and dedupe minutes, by hand, and what of Redis is read for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from freshet.stream.config import Resolution, Settings, WindowSettings
from freshet.stream.errors import StoreError
from freshet.stream.fold.additions import Additions
from freshet.stream.fold.dedupe import UNSEEN, Entries
from freshet.stream.fold.writes import MinuteLog, TileFolder
from freshet.stream.store.layout import Keys, MinuteAppend, TileWrites
from freshet.stream.store.tiles import encode
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

KEYS = Keys(0, "o", 3)


@dataclass
class Stored:
    """Strings by key; `asked` are the keys that were read."""

    strings: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        self.asked += keys
        return [self.strings.get(key) for key in keys]


# Tiles --------------------------------------------------------------------------------------------


def configured(*resolutions: tuple[int, int], time_zone: str = "UTC") -> Settings:
    sizes = tuple(Resolution(resolution_ms=width, buckets=count) for width, count in resolutions)
    return Settings(
        windows=WindowSettings(resolutions=sizes),
        worker={"resolution_ms": resolutions[0][0]},
        calendar={"time_zone": time_zone},
    )


def additions(*lines: tuple[int, int, int, int]) -> Additions:
    """Of (item, time, channel, value)."""
    return Additions(*np.array(lines, np.int64).T)


def tile(*cells: tuple[int, int, int]) -> bytes:
    """Of (channel, item, value)."""
    values_CN = np.zeros((8, 4), np.int64)
    for channel, item, value in cells:
        values_CN[channel, item] = value
    return encode(values_CN)


BY_SECOND_AND_MINUTE = configured((1_000, 4), (MINUTE_MS, 2))
# The second 4 leaves when the watermark is 9,000, the minute 0 at 180,000.
HALF = 2**61


@pytest.mark.parametrize(
    ("stored", "values"),
    [
        (None, (HALF, HALF)),
        (None, (2**61, 2**61, 2**61, 2**61, 2**61, 2**61, 2**61, 2**61, 5)),
        (HALF, (HALF,)),
        (2**62 - 1, (1,)),
    ],
    ids=["in one batch", "around the corner to 5", "with what was stored", "by one"],
)
def test_a_sum_that_leaves_its_integers_is_refused_and_does_not_wrap(
    stored: int | None, values: tuple[int, ...]
) -> None:
    redis = Stored()
    if stored is not None:
        redis.strings[KEYS.tile(1_000, 12, 0)] = tile((0, 0, stored))
    folder = TileFolder(redis.read, KEYS, configured((1_000, 4)))
    lines = additions(*((0, 12_000, 0, value) for value in values))
    with pytest.raises(StoreError, match="o:3: what is sold of one item in one bucket is more"):
        folder.fold(lines, newest_ms=12_999, watermark_ms=0)


def test_the_largest_sum_that_fits_is_kept() -> None:
    redis = Stored({KEYS.tile(1_000, 12, 0): tile((0, 0, HALF))})
    folder = TileFolder(redis.read, KEYS, configured((1_000, 4)))
    writes, _ = folder.fold(additions((0, 12_000, 0, HALF - 1)), newest_ms=12_999, watermark_ms=0)
    assert writes[0].data == [tile((0, 0, 2**62 - 1))]


LINES = additions((0, 12_000, 0, 5), (1, 13_500, 2, 1), (0, 4_500, 0, 9))
WRITES = [
    TileWrites(1_000, ["12:0", "13:0"], [tile((0, 0, 105)), tile((2, 1, 1))], [17_000, 18_000]),
    TileWrites(MINUTE_MS, ["0:0"], [tile((0, 0, 1_014), (2, 1, 1), (7, 3, 2))], [180_000]),
]


def stored_tiles() -> Stored:
    return Stored(
        {
            KEYS.tile(1_000, 12, 0): tile((0, 0, 100)),
            KEYS.tile(1_000, 13, 0): b"never read: it begins after the newest time",
            KEYS.tile(MINUTE_MS, 0, 0): tile((0, 0, 1_000), (7, 3, 2)),
        }
    )


def test_lines_are_added_to_the_tiles_that_redis_has_each_with_its_own_expiry() -> None:
    stored = stored_tiles()
    folder = TileFolder(stored.read, KEYS, BY_SECOND_AND_MINUTE)
    writes, _ = folder.fold(LINES, newest_ms=12_345, watermark_ms=9_000)
    assert writes == WRITES
    assert stored.asked == [KEYS.tile(1_000, 12, 0), KEYS.tile(MINUTE_MS, 0, 0)]


def test_tiles_are_known_once_they_were_written_and_not_before() -> None:
    stored = stored_tiles()
    folder = TileFolder(stored.read, KEYS, BY_SECOND_AND_MINUTE)
    folder.fold(LINES, newest_ms=12_345, watermark_ms=9_000)
    again, changed = folder.fold(LINES, newest_ms=12_345, watermark_ms=9_000)
    assert again == WRITES and len(stored.asked) == 4
    folder.remember(changed)
    later, _ = folder.fold(additions((0, 13_000, 2, 7)), newest_ms=13_500, watermark_ms=9_000)
    assert later == [
        TileWrites(1_000, ["13:0"], [tile((2, 0, 7), (2, 1, 1))], [18_000]),
        TileWrites(
            MINUTE_MS, ["0:0"], [tile((0, 0, 1_014), (2, 0, 7), (2, 1, 1), (7, 3, 2))], [180_000]
        ),
    ]
    assert len(stored.asked) == 4


def test_a_batch_without_lines_writes_and_reads_no_tile() -> None:
    stored = Stored()
    folder = TileFolder(stored.read, KEYS, BY_SECOND_AND_MINUTE)
    nothing = Additions(*np.zeros((4, 0), np.int64))
    writes, changed = folder.fold(nothing, newest_ms=0, watermark_ms=0)
    assert (writes, changed, stored.asked) == (
        [TileWrites(1_000, [], [], []), TileWrites(MINUTE_MS, [], [], [])],
        [],
        [],
    )


def test_days_are_those_of_the_shops_calendar_and_leave_at_its_midnight() -> None:
    settings = configured((HOUR_MS, 3), (DAY_MS, 2), time_zone="Europe/Berlin")
    folder = TileFolder(Stored().read, KEYS, settings)
    # 23:30 on 1970-01-11 in Greenwich is the twelfth in Berlin, an hour ahead.
    late_ms = 10 * DAY_MS + 23 * HOUR_MS + HOUR_MS // 2
    writes, _ = folder.fold(additions((0, late_ms, 0, 1)), newest_ms=0, watermark_ms=0)
    assert [(write.names, write.expiries_ms) for write in writes] == [
        (["263:0"], [(263 + 1 + 3) * HOUR_MS]),
        (["11:0"], [(11 + 1 + 2) * DAY_MS - HOUR_MS]),
    ]


# Minutes ------------------------------------------------------------------------------------------

LATENESS_MS = MINUTE_MS


def hashes(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint64)


def data(*numbers: int) -> bytes:
    """Entries of hashes that said 5 more than each hash."""
    parts = [
        number.to_bytes(8, "little") + (number + 5).to_bytes(4, "little") for number in numbers
    ]
    return b"".join(parts)


def entries(numbers: list[int], minutes: list[int]) -> Entries:
    names = hashes(*numbers)
    return Entries(names, np.array(minutes, np.int64), (names + np.uint64(5)).astype(np.uint32))


def loaded(first_ms: int = 3 * MINUTE_MS) -> tuple[MinuteLog, Stored]:
    """Minutes 3 to 6, of which 3 is over when the watermark is 300,000."""
    stored = Stored({KEYS.minute(n): data(10 * n, 10 * n + 1) for n in (3, 4, 6)})
    log = MinuteLog(stored.read, KEYS, LATENESS_MS, lambda: [])
    log.load(first_ms, newest_ms=6 * MINUTE_MS + 10, watermark_ms=300_000)
    return log, stored


def test_the_minutes_that_make_duplicates_still_are_loaded_from_the_first_event_on() -> None:
    log, stored = loaded()
    assert stored.asked == [KEYS.minute(n) for n in (4, 5, 6)]
    found = log.seen.known(hashes(30, 40, 41, 60, 61, 62))
    assert found.minutes.tolist() == [UNSEEN, 4, 4, 6, 6, UNSEEN]
    assert found.contents[[1, 2, 3, 4]].tolist() == [45, 46, 65, 66]
    _, young = loaded(first_ms=5 * MINUTE_MS + 7)
    assert young.asked == [KEYS.minute(n) for n in (5, 6)]


def test_of_an_event_decades_ahead_only_the_minutes_that_there_are_are_asked_for() -> None:
    far = 60 * 365 * 24 * 60
    kept = (3, 4, 6, far, far + 7)
    stored = Stored({KEYS.minute(n): data(10 * n) for n in kept})
    log = MinuteLog(stored.read, KEYS, LATENESS_MS, lambda: kept)
    log.load(3 * MINUTE_MS, newest_ms=far * MINUTE_MS, watermark_ms=300_000)
    assert stored.asked == [KEYS.minute(n) for n in (4, 6, far)]
    assert log.seen.known(hashes(40, 10 * far, 10 * far + 70)).minutes.tolist() == [4, far, UNSEEN]


def test_applied_records_are_appended_to_their_minutes_in_log_order_where_replaying_would() -> None:
    log, _ = loaded()
    applied = entries([1, 2, 3, 4, 5, 6, 7], [6, 3, 4, 6, 7, 4, 6])
    appends = log.appends(applied, watermark_ms=300_000)
    assert appends == [
        MinuteAppend(4, 360_000, 24, data(3, 6)),
        MinuteAppend(6, 480_000, 24, data(1, 4, 7)),
        MinuteAppend(7, 540_000, 0, data(5)),
    ]
    before = log.seen.known(hashes(1, 3)).minutes.tolist()
    assert before == [UNSEEN, UNSEEN], "not before it is written"
    log.remember(appends, watermark_ms=360_000)
    found = log.seen.known(hashes(1, 3, 4, 5, 2))
    assert found.minutes.tolist() == [6, 4, 6, 7, UNSEEN]
    assert found.contents[:4].tolist() == [6, 8, 9, 10]
    # Minute 4 has left with that watermark, and minute 5 is the oldest.
    more = log.appends(entries([8, 9, 10], [4, 6, 5]), watermark_ms=360_000)
    assert more == [MinuteAppend(5, 420_000, 0, data(10)), MinuteAppend(6, 480_000, 60, data(9))]
    assert log.appends(entries([], []), watermark_ms=360_000) == []


def test_a_minute_that_left_is_forgotten_and_one_that_stays_keeps_its_size() -> None:
    log, _ = loaded()
    log.remember([], watermark_ms=420_000)
    # Going back cannot happen; it shows what is still known of minutes 5 and 6.
    again = log.appends(entries([1, 2], [4, 6]), watermark_ms=300_000)
    assert [append.num_bytes_before for append in again] == [0, 24]
    log.remember([], watermark_ms=480_000)
    again = log.appends(entries([2], [6]), watermark_ms=420_000)
    assert [append.num_bytes_before for append in again] == [0]
