"""A second generation is built beside the live one, and readers go over to it in one look."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.stream.config import Settings
from freshet.stream.errors import ConfigError, FingerprintError
from freshet.stream.ingest.generations import drop_generation
from freshet.stream.ingest.process import run
from freshet.stream.kafka import ensure_topics
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.store.connection import connect
from freshet.stream.store.generation import GENERATION_KEY, current_generation, make_current
from freshet.stream.units import HOUR_MS
from freshet.stream.verify.verify import verify
from tests.integration.shop import (
    START_MS,
    order,
    read,
    running,
    send,
    settings_for,
    store_of,
    wait_for,
)


@pytest.fixture
def settings(mock_broker: str, redis_server: str, request: pytest.FixtureRequest) -> Settings:
    return settings_for(mock_broker, redis_server, request.node.name)


def changed(settings: Settings, **windows: Any) -> Settings:
    return settings.model_copy(update={"windows": settings.windows.model_copy(update=windows)})


def units(reader: WindowReader) -> int:
    end_ms = START_MS // HOUR_MS * HOUR_MS + HOUR_MS
    return int(reader.sums(end_ms, 1)[:, 0].sum())


def test_other_settings_name_the_way_and_the_way_works(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    late = order(50, event_time_ms=START_MS - 2 * HOUR_MS)
    send(settings, [*(order(n) for n in range(50)), late, b"broken"])
    run(settings, until_end=True)
    wider = changed(settings, allowed_lateness_ms=5 * HOUR_MS)
    with pytest.raises(FingerprintError, match="--from-beginning --into 1"):
        run(wider, until_end=True)
    run(wider, until_end=True, into=1)
    assert current_generation(connect(settings.redis), 0) == 1
    report = verify(wider)
    assert report.agrees and report.generation == 1, report.as_text()
    topic = settings.kafka.topics.orders
    new, old = (store_of(with_generation(settings, n)).header(topic, 0) for n in (1, 0))
    assert new is not None and old is not None
    assert (old.applied, old.late_dropped, old.dead_letter) == (50, 1, 1)
    assert (new.applied, new.late_dropped, new.dead_letter) == (51, 0, 1)
    assert len(read(settings, dead_letter_topic(topic))) == 1, (
        "what the first generation told of is not told again"
    )
    with pytest.raises(FingerprintError):
        run(settings, until_end=True)
    with pytest.raises(ConfigError, match="is current"):
        drop_generation(wider, 1)
    assert drop_generation(wider, 0) > 5
    assert verify(wider).agrees
    assert not [key for key in connect(settings.redis).keys("*") if b"g0:" in key]


def with_generation(settings: Settings, generation: int) -> Settings:
    return settings.model_copy(
        update={"redis": settings.redis.model_copy(update={"generation": generation})}
    )


def test_a_reader_goes_over_when_the_builder_has_caught_up_and_the_old_writer_ends(
    settings: Settings,
) -> None:
    ensure_topics(settings, live=False)
    send(settings, [order(n) for n in range(40)])
    fewer = changed(settings, out_of_order_ms=1_000)
    rules = ReadRules.of(settings, HOUR_MS)
    reader = WindowReader(connect(settings.redis), 0, HOUR_MS, 48, rules=rules)
    with running(settings) as old:
        wait_for(lambda: reader.refresh().moved and units(reader) == 80_000)
        seen = []
        with running(fewer, into=1) as new:
            wait_for(
                lambda: (
                    seen.append((reader.refresh().changed_rows.tolist(), units(reader)))
                    or reader.generation
                )
            )  # type: ignore[func-returns-value]
            wait_for(lambda: old.parts.health.stop.is_set())
            send(settings, [order(n) for n in range(40, 45)])
            wait_for(lambda: reader.refresh().moved and units(reader) == 90_000)
            assert not new.parts.generations.building
    assert {held for _, held in seen} == {80_000}, "no look showed half of the new generation"
    assert seen[-1][0] == [0], "every row is told of as changed"
    assert reader.rules.out_of_order_ms == 1_000
    assert reader.item_ids == ["a|north"]


def test_a_switch_that_fails_half_way_leaves_the_reader_as_it_was(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_topics(settings, live=False)
    send(settings, [order(n) for n in range(10)])
    run(settings, until_end=True)
    coarse = changed(settings, resolutions=settings.windows.resolutions[:2])
    coarse = coarse.model_copy(
        update={"worker": settings.worker.model_copy(update={"resolution_ms": 60_000})}
    )
    reader = WindowReader(
        connect(settings.redis), 0, HOUR_MS, 48, rules=ReadRules.of(settings, HOUR_MS)
    )
    reader.refresh()
    run(coarse, until_end=True, into=1)
    with pytest.raises(FingerprintError, match="not kept at 3600000 ms"):
        reader.refresh()
    assert reader.generation == 0 and units(reader) == 20_000
    connect(settings.redis).delete(GENERATION_KEY)
    reader.refresh()
    assert units(reader) == 20_000


def test_a_generation_is_raised_and_never_lowered(settings: Settings) -> None:
    client = connect(settings.redis)
    for wanted, found in ((2, 2), (1, 2), (10, 10)):
        make_current(client, wanted)
        assert current_generation(client, 0) == found
    assert current_generation(client, 11) == 11
    with pytest.raises(ConfigError, match="generation 3 is older than 10"):
        run(settings, into=3)


def test_a_killed_builder_goes_on_and_switches_when_it_is_done(settings: Settings) -> None:
    ensure_topics(settings, live=False)
    send(settings, [order(n) for n in range(60)])
    run(settings, until_end=True)
    wider = changed(settings, allowed_lateness_ms=HOUR_MS)
    small = wider.model_copy(
        update={"ingest": wider.ingest.model_copy(update={"batch_max_records": 20})}
    )
    topic = settings.kafka.topics.orders
    with running(small, into=1):
        wait_for(lambda: half_built(settings, topic))
    run(wider, until_end=True, into=1)
    header = store_of(with_generation(settings, 1)).header(topic, 0)
    assert header is not None and header.applied == 60
    assert verify(wider).generation == 1


def half_built(settings: Settings, topic: str) -> bool:
    header = store_of(with_generation(settings, 1)).header(topic, 0)
    return header is not None and header.read > 0


def test_the_command_needs_both_options() -> None:
    from typer.testing import CliRunner

    from freshet.cli.main import app

    for arguments in (["ingest", "--from-beginning"], ["ingest", "--into", "1"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2 and "go together" in result.output
