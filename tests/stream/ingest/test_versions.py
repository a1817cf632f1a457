"""Which records of the shop's tables are kept, and what is written of them; the store remembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from freshet.stream.codec import MAX_TIME_MS, encode
from freshet.stream.config import Settings
from freshet.stream.errors import LogLostError
from freshet.stream.ingest.versions import PartitionVersions, check_inside
from freshet.stream.kafka import Message
from freshet.stream.schemas import (
    CatalogEntry,
    Covariate,
    InventoryLevel,
    Promotion,
    Record,
    ShopTable,
)
from freshet.stream.settings import (
    BY_DAY,
    BY_HOUR,
    CovariateSettings,
    Resolution,
    WindowSettings,
    WorkerSettings,
)
from freshet.stream.store.layout import Answer
from freshet.stream.store.versions import Append, Version, VersionHeader, VersionStore, kept_ms
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.integration.side import Told

NOW_MS = 1_000 * DAY_MS


@dataclass
class Remembers:
    """A store that takes everything, or answers as it is told."""

    appends: list[Append] = field(default_factory=list)
    answer: Answer = Answer.APPLIED

    def append(self, topic: str, partition: int, append: Append) -> tuple[Answer, VersionHeader]:
        self.appends.append(append)
        taken = self.answer is Answer.APPLIED
        return self.answer, append.header if taken else VersionHeader()


@dataclass
class Rig:
    """A claimed partition of a table, whose log begins at 3."""

    table: ShopTable = "catalog"
    settings: Settings = field(default_factory=Settings)
    store: Remembers = field(default_factory=Remembers)
    now_ms: int = NOW_MS
    reached_ms: int = MAX_TIME_MS

    def __post_init__(self) -> None:
        self.versions = PartitionVersions(
            cast("VersionStore", self.store),
            self.table,
            ("shop", 0),
            self.settings,
            lambda: self.now_ms,
            VersionHeader(epoch=1, owner="0a"),
            lambda: self.reached_ms,
        )
        self.versions.start_at(3)

    def judge(self, *messages: Told) -> tuple[list[Version], list[str]]:
        batch = self.versions.judge(cast("list[Message]", list(messages)))
        return list(batch.versions), [f"{place}: {error}" for place, error in batch.dead]

    def append(self, *messages: Told) -> Answer:
        return self.versions.append(self.versions.judge(cast("list[Message]", list(messages))))


def told(offset: int, record: Record | bytes | None, at_ms: int = 70, key: bytes = b"k") -> Told:
    value = encode(record) if isinstance(record, Record) else record
    return Told(key, value, offset, at_ms)


# Judging ------------------------------------------------------------------------------------------


def test_a_usable_record_is_kept_as_it_came_and_in_force_from_its_timestamp() -> None:
    entry = CatalogEntry(sku="a", unit_price=2.0)
    versions, dead = Rig().judge(told(4, entry), told(9, None, at_ms=80))
    assert versions == [
        Version(4, 70, 70, b"k", encode(entry)),
        Version(9, 80, 80, b"k", None),
    ]
    assert dead == []


@pytest.mark.parametrize(
    ("table", "record", "from_ms"),
    [
        ("catalog", CatalogEntry(sku="a", announced_at=20), 20),
        (
            "promotions",
            Promotion(promotion_id="p", sku="a", starts_at=0, ends_at=9, discount=0),
            70,
        ),
        ("inventory", InventoryLevel(sku="a", on_hand=1, as_of=30), 30),
        ("inventory", InventoryLevel(sku="a", on_hand=1, as_of=30, announced_at=60), 30),
        ("covariates", Covariate(covariate_id="c", name="closed", starts_at=0, ends_at=1), 70),
    ],
)
def test_from_when_on_it_is_in_force(table: ShopTable, record: Record, from_ms: int) -> None:
    (version,), dead = Rig(table).judge(told(4, record))
    assert (version.as_of_ms, version.timestamp_ms, dead) == (from_ms, 70, [])


@pytest.mark.parametrize(
    ("table", "record", "said"),
    [
        ("catalog", b"{", "not a CatalogEntry"),
        ("catalog", CatalogEntry(sku="a", unit_price=0.0), "unit_price 0.0; expected a positive"),
        ("inventory", InventoryLevel(sku="a", on_hand=1, as_of=NOW_MS + 1), "has not reached"),
        (
            "promotions",
            Promotion(promotion_id="p", sku="a", starts_at=5, ends_at=5, discount=0.1),
            "not after its start",
        ),
        (
            "covariates",
            Covariate(covariate_id="c", name="rain", starts_at=0, ends_at=1),
            "expected one of",
        ),
    ],
)
def test_what_cannot_be_used_is_dead_and_marked_and_those_behind_it_have_their_turn(
    table: ShopTable, record: Record | bytes, said: str
) -> None:
    versions, dead = Rig(table).judge(told(4, record), told(5, None))
    assert versions[0] == Version(4, 70, 70, b"k", None, dead=True)
    assert not versions[1].dead
    assert len(dead) == 1 and dead[0].startswith("0: ") and said in dead[0]


def test_a_covariate_may_have_a_name_of_the_settings() -> None:
    names = CovariateSettings(numbers={"rain": "free_1"})
    rain = Covariate(covariate_id="c", name="rain", starts_at=0, ends_at=1, value=7.5)
    _, dead = Rig("covariates", Settings(covariates=names)).judge(told(4, rain))
    assert dead == []


def test_a_record_without_a_key_is_dead_since_nothing_could_supersede_it() -> None:
    versions, dead = Rig().judge(Told(None, encode(CatalogEntry(sku="a")), 4, 70))
    assert versions[0].dead and versions[0].key == b""
    assert "without a key" in dead[0]


# Appending ----------------------------------------------------------------------------------------


def test_a_batch_moves_offset_and_books_together() -> None:
    rig = Rig()
    good = CatalogEntry(sku="a")
    assert rig.append(told(5, good, at_ms=90), told(7, b"{", at_ms=95)) is Answer.APPLIED
    (append,) = rig.store.appends
    assert append.expected_offset is None and append.horizon_ms == 0
    header = append.header
    assert (header.first_offset, header.next_offset, header.frontier_ms) == (3, 8, 90)
    assert (header.read, header.applied, header.dead_letter, header.reached_end) == (2, 1, 1, 0)
    rig.append(told(8, good, at_ms=60))
    header = rig.store.appends[1].header
    assert rig.store.appends[1].expected_offset == 8
    assert (header.read, header.applied, header.frontier_ms) == (3, 2, 90)


@pytest.mark.parametrize("answer", [Answer.GAP, Answer.FENCED])
def test_what_was_not_written_is_not_remembered(answer: Answer) -> None:
    rig = Rig()
    rig.store.answer = answer
    before = rig.versions.header
    assert rig.append(told(5, None)) is answer
    assert rig.versions.header == before


def test_standing_at_the_logs_end_is_written_when_it_says_something_new() -> None:
    rig = Rig()
    rig.versions.stand_at(3)
    assert rig.store.appends[0].header.reached_end == 1
    assert rig.versions.next_offset == 3
    rig.versions.stand_at(3)
    assert len(rig.store.appends) == 1
    # Control records lie behind the last one of a table.
    rig.versions.stand_at(5)
    assert rig.versions.next_offset == 5
    rig.append(told(6, None))
    rig.versions.stand_at(6)
    assert rig.versions.next_offset == 7


# What leaves --------------------------------------------------------------------------------------


def small_settings(hours: int = 100) -> Settings:
    return Settings(
        windows=WindowSettings(
            out_of_order_ms=10,
            allowed_lateness_ms=5,
            resolutions=(
                Resolution(resolution_ms=HOUR_MS, buckets=hours),
                Resolution(resolution_ms=DAY_MS, buckets=2),
            ),
        ),
        worker=WorkerSettings(
            resolutions=(
                BY_HOUR.model_copy(update={"context_length": 100}),
                BY_DAY.model_copy(update={"context_length": 2}),
            )
        ),
    )


def test_versions_are_kept_for_the_longest_context_a_week_and_lateness() -> None:
    assert kept_ms(small_settings()) == 268 * HOUR_MS + 15


def test_versions_are_kept_for_all_of_the_windows_that_shared_effects_are_learnt_from() -> None:
    assert kept_ms(small_settings(hours=200)) == 368 * HOUR_MS + 15
    # Days are kept for 800 days, though a context holds 512 of them.
    assert kept_ms(Settings()) == 807 * DAY_MS + 905_000


def test_the_horizon_lies_behind_the_events_too_while_history_is_loaded() -> None:
    rig = Rig(settings=small_settings())
    rig.reached_ms = NOW_MS - 400 * DAY_MS
    rig.append(told(5, None, at_ms=NOW_MS))
    assert rig.store.appends[-1].horizon_ms == NOW_MS - 400 * DAY_MS - 268 * HOUR_MS - 15


def test_the_horizon_lies_behind_the_newest_record_but_never_behind_the_clock() -> None:
    rig = Rig(settings=small_settings())
    rig.append(told(5, None, at_ms=NOW_MS - DAY_MS))
    assert rig.store.appends[-1].horizon_ms == NOW_MS - DAY_MS - 268 * HOUR_MS - 15
    rig.append(told(6, None, at_ms=NOW_MS + 9_999 * DAY_MS))
    assert rig.store.appends[-1].horizon_ms == NOW_MS - 268 * HOUR_MS - 15
    # A dead letter's timestamp moves nothing.
    rig = Rig(settings=small_settings())
    rig.append(told(5, b"{", at_ms=NOW_MS))
    assert rig.store.appends[-1].horizon_ms == 0


def test_dropping_asks_for_so_many_and_moves_nothing() -> None:
    rig = Rig()
    rig.append(told(5, None))
    before = rig.versions.header
    rig.versions.drop(40)
    assert rig.store.appends[-1].drop == 40
    assert rig.store.appends[-1].header == replace(before, next_offset=6)


@pytest.mark.parametrize(("position", "inside"), [(2, False), (3, True), (9, True), (10, False)])
def test_versions_end_inside_their_log_or_it_is_lost(position: int, inside: bool) -> None:
    if inside:
        check_inside(("shop", 1), position, 3, 9)
        return
    with pytest.raises(LogLostError, match=r"shop:1: the versions .* holds 3 to 9.*forget shop"):
        check_inside(("shop", 1), position, 3, 9)


@pytest.mark.parametrize(
    ("stored", "answer"),
    [
        ({}, Answer.ALREADY),
        ({"versions": 7}, Answer.ALREADY),
        ({"next_offset": 4}, Answer.GAP),
        ({"epoch": 0, "owner": "", "next_offset": None}, Answer.GAP),
        ({"epoch": 2}, Answer.FENCED),
        ({"owner": "0b"}, Answer.FENCED),
    ],
)
def test_a_look_at_the_stored_header_says_what_an_append_would(
    stored: dict[str, int | str | None], answer: Answer
) -> None:
    rig = Rig()
    rig.append(told(5, None))
    assert rig.versions.compared(replace(rig.versions.header, **stored)) is answer  # type: ignore[arg-type]


def test_a_record_that_is_none_of_ours_is_passed_over_and_a_mapped_one_kept_in_our_words() -> None:
    said = {"events": {"catalog": {"fields": {"sku": "id"}, "skip_when": {"draft": True}}}}
    rig = Rig(settings=Settings.model_validate(said))
    messages = [told(3, b'{"id": 7}'), told(4, b'{"id": 8, "draft": true}')]
    versions, dead = rig.judge(*messages)
    assert [(one.offset, one.value) for one in versions] == [(3, b'{"sku":"7"}')]
    assert not dead
    rig.append(*messages)
    header = rig.store.appends[-1].header
    assert (header.next_offset, header.read, header.applied, header.skipped) == (5, 2, 1, 1)
