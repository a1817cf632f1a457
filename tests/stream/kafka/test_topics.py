"""Which topics there are and how they must be set."""

from __future__ import annotations

import pytest

from freshet.stream.config import KafkaSettings, Topics
from freshet.stream.kafka.topics import (
    TopicPlan,
    dead_letter_max_bytes,
    mismatches,
    plan,
    unfit,
)
from freshet.stream.units import DAY_MS


def by_name(settings: KafkaSettings, *, live: bool) -> dict[str, TopicPlan]:
    return {topic.name: topic for topic in plan(settings, live=live)}


def test_live_events_carry_the_brokers_time_and_replayed_ones_their_own() -> None:
    live, replayed = (
        by_name(KafkaSettings(), live=live)["freshet.orders.v1"].config for live in (True, False)
    )
    assert live["message.timestamp.type"] == "LogAppendTime"
    assert "retention.ms" not in live
    assert replayed["message.timestamp.type"] == "CreateTime"
    assert replayed["message.timestamp.after.max.ms"] == "9223372036854775807"
    assert replayed["retention.ms"] == "-1"


@pytest.mark.parametrize("live", [True, False])
def test_the_shops_tables_carry_the_time_at_which_their_sender_told_them(live: bool) -> None:
    plans = by_name(KafkaSettings(), live=live)
    stamps = {
        table: plans[f"freshet.{table}.v1"].config["message.timestamp.type"]
        for table in ("catalog", "promotions", "inventory", "covariates")
    }
    assert set(stamps.values()) == {"CreateTime"}


@pytest.mark.parametrize("live", [True, False])
def test_tables_are_compacted_and_streams_are_not(live: bool) -> None:
    plans = by_name(KafkaSettings(), live=live)
    compacted = {
        name for name, topic in plans.items() if topic.config.get("cleanup.policy") == "compact"
    }
    tables = ("catalog", "promotions", "inventory", "covariates", "models", "effects")
    ours = ("forecasts.latest", "scored", "owner", "decisions")
    assert compacted == {f"freshet.{table}.v1" for table in (*tables, *ours)}


def test_a_dead_letter_topic_takes_whatever_its_source_takes_and_the_headers() -> None:
    settings = KafkaSettings(max_record_bytes=500_000)
    plans = by_name(settings, live=True)
    for source in ("freshet.orders.v1", "freshet.clicks.v1"):
        assert (
            plans[f"{source}.dlq"].config["max.message.bytes"]
            == "565536"
            == str(dead_letter_max_bytes(settings))
        )
        assert int(plans[source].config["max.message.bytes"]) < 565_536


@pytest.mark.parametrize("live", [True, False])
def test_what_could_name_a_person_stays_a_day_longer_than_its_retention_at_most(live: bool) -> None:
    settings = KafkaSettings(dead_letter_retention_ms=14 * DAY_MS)
    plans = by_name(settings, live=live)
    raw = {name: topic.config for name, topic in plans.items() if name.endswith(".dlq")}
    raw["freshet.late.v1"] = plans["freshet.late.v1"].config
    assert len(raw) == 20
    for config in raw.values():
        assert (config["retention.ms"], config["segment.ms"]) == ("1209600000", "86400000")
    hour = by_name(KafkaSettings(dead_letter_retention_ms=3_600_000), live=live)
    assert hour["freshet.orders.v1.dlq"].config["segment.ms"] == "3600000"


def test_a_topic_that_is_turned_off_is_not_planned() -> None:
    settings = KafkaSettings(topics=Topics(forecasts_latest=""))
    assert "" not in by_name(settings, live=True)
    assert len(plan(settings, live=True)) == len(plan(KafkaSettings(), live=True)) - 1


def test_names_and_partitions_are_the_settings_own() -> None:
    plans = by_name(KafkaSettings(partitions=12, topics=Topics(orders="shop.sales")), live=True)
    assert plans["shop.sales"].partitions == plans["shop.sales.dlq"].partitions == 12


def test_more_partitions_larger_limits_and_further_policies_are_no_mismatch() -> None:
    wanted = TopicPlan("t", 4, {"max.message.bytes": "100", "cleanup.policy": "compact"})
    assert (
        mismatches(wanted, 8, {"max.message.bytes": "200", "cleanup.policy": "compact,delete"})
        == ()
    )
    assert mismatches(wanted, 4, {"max.message.bytes": "99", "cleanup.policy": "delete"}) == (
        "max.message.bytes: expected 100, found 99",
        "cleanup.policy: expected compact, found delete",
    )


def test_a_shops_own_choices_are_warnings_and_what_will_not_do_is_not() -> None:
    plans = by_name(KafkaSettings(), live=True)
    own = {
        "message.timestamp.type": "CreateTime",
        "retention.ms": "1000",
        "max.message.bytes": "9",
        "cleanup.policy": "delete",
    }

    def unfit_of(name: str, **config: str) -> list[str]:
        wanted = plans[name]
        found = mismatches(wanted, 3, {**own, **config})
        assert found[0].startswith("partitions")
        return [text for text in found if unfit(wanted, text)]

    orders = "freshet.orders.v1"
    assert unfit_of(orders) == []
    assert unfit_of("freshet.catalog.v1") == []
    assert unfit_of(f"{orders}.dlq")[0].startswith("max.message.bytes")
    assert unfit_of("freshet.late.v1")[0].startswith("max.message.bytes")
    assert unfit_of("freshet.models.v1") == ["cleanup.policy: expected compact, found delete"]
    compacted = {"cleanup.policy": "compact,delete"}
    assert unfit_of(orders, **compacted)[0].startswith("cleanup.policy: expected delete")
    states = {one.name: one for one in plan(KafkaSettings(), live=True, orders_are_states=True)}
    assert not unfit(states[orders], "cleanup.policy: expected delete, found compact")
    assert unfit(states["freshet.clicks.v1"], "cleanup.policy: expected delete, found compact")
