"""A small shop in the middle of a week, as its topics hold it: a sale, a drift, new weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Producer

from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.fold.batches import RawBatch
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.schemas import (
    WIRE_LEVELS,
    CatalogEntry,
    Compute,
    DriftAlert,
    Forecast,
    ForecastRound,
    InventoryLevel,
    ModelEvent,
    Promotion,
    RetrainRequest,
    Score,
    ScoredStep,
    item_id_of,
)
from freshet.stream.store.clock import set_anchor
from freshet.stream.store.connection import connect
from freshet.stream.store.redis import WindowStore
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

NOW_MS = 1_773_238_800_000 + 20 * 60_000  # Wednesday 11 March 2026, 14:20 UTC
FIRST_HOUR = 14
HOURS = 24 * 22
SCORED_HOURS = 24 * 7
STEPS = 24
DAYS_AHEAD = 21
SALE_HOURS = 3
"""Since when the sale of MUGS-11 runs, and its orders come one by one."""
MINUTE_CUTOFFS = 61
MINUTES_AHEAD = 120
DRIFT_AGE = 110
SWAP_AGE = 78
GOODS = (
    ("BOOT-01", "Trail boot, waterproof", "Footwear", "Larch", 139.0, 22.0),
    ("SHOE-07", "Road running shoe", "Footwear", "Kestrel", 119.0, 16.0),
    ("TENT-02", "Two-person tent", "Camping", "Larch", 249.0, 5.0),
    ("STOV-04", "Gas stove, piezo", "Camping", "Ember", 54.0, 9.0),
    ("MUGS-11", "Enamel mug, set of four", "Kitchen", "Hearth", 29.0, 31.0),
    ("PANS-03", "Cast-iron pan 28 cm", "Kitchen", "Hearth", 64.0, 12.0),
    ("LAMP-09", "Head torch 400 lm", "Electronics", "Ember", 45.0, 7.0),
    ("GLOV-05", "Merino glove liner", "Clothing", "Kestrel", 24.0, 0.6),
)
Z = np.array([-2.326, -1.645, -1.282, -0.674, 0, 0.674, 1.282, 1.645, 2.326])
REGIONS = {"north": 1.0, "south": 0.62, "west": 0.34}


@dataclass
class Series:
    """One series' true rate, what was sold, and what each hour's forecast said."""

    item_id: str
    sku: str
    region: str
    category: str
    rate: np.ndarray[Any, Any]
    believed: np.ndarray[Any, Any]
    sold: np.ndarray[Any, Any]


@dataclass
class World:
    """Everything on the topics; `hours[-1]` is the hour that is still open."""

    seed: int = 7
    start_ms: int = NOW_MS // HOUR_MS * HOUR_MS - HOURS * HOUR_MS
    series: list[Series] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        for sku, _, category, _, _, level in GOODS:
            for region, share in REGIONS.items():
                self.series.append(self._series(random, sku, region, category, level * share))

    @property
    def cutoff_ms(self) -> int:
        return self.start_ms + HOURS * HOUR_MS

    def _series(self, random: Any, sku: str, region: str, category: str, level: float) -> Series:
        hour = np.arange(HOURS + STEPS + 1)
        of_day, day = (hour + FIRST_HOUR) % 24, (hour + FIRST_HOUR) // 24
        shape = (
            0.12 + 0.75 * np.exp(-((of_day - 12.5) ** 2) / 11) + np.exp(-((of_day - 20) ** 2) / 6)
        )
        week = np.array([0.92, 0.9, 0.95, 1.0, 1.12, 1.3, 1.18])[(day + 2) % 7]
        believed = level * shape * week * 1.45
        rate = believed * np.exp(random.normal(0, 0.04, len(hour)))
        if category == "Footwear":
            rate[HOURS - DRIFT_AGE :] *= 2.1
            believed[HOURS - SWAP_AGE :] *= 2.05
        if sku == "MUGS-11":
            believed[HOURS - 3 : HOURS + 5] *= 2.4
            rate[HOURS - 3 : HOURS + 5] *= 2.4
        sold = random.poisson(rate * random.gamma(12, 1 / 12, len(hour))).astype(float)
        return Series(item_id_of([sku, region]), sku, region, category, rate, believed, sold)

    def quantiles(self, series: Series, hour: int, steps: int = STEPS) -> np.ndarray[Any, Any]:
        knows = series.believed[hour : hour + steps, None]
        if hour < HOURS - SWAP_AGE and series.category == "Footwear":
            knows = (
                knows
                / np.where(np.arange(hour, hour + steps) >= HOURS - SWAP_AGE, 2.05, 1.0)[:, None]
            )
        spread = np.sqrt(0.25 + knows / 48)
        table: np.ndarray[Any, Any] = np.maximum(0.0, np.sqrt(knows) + Z * spread) ** 2
        return table

    def version_at(self, hour: int) -> str:
        return "v0003-9f2c1a" if hour >= HOURS - SWAP_AGE else "base"

    def forecast(self, series: Series, hour: int) -> Forecast:
        cutoff_ms = self.start_ms + hour * HOUR_MS
        table = [[float(f"{value:.4g}") for value in row] for row in self.quantiles(series, hour)]
        return Forecast(
            forecast_id=f"{series.item_id}@{hour}",
            item_id=series.item_id,
            sku=series.sku,
            region=series.region,
            resolution_ms=HOUR_MS,
            cutoff_ms=cutoff_ms,
            issued_at_ms=cutoff_ms + 900,
            quantile_levels=list(WIRE_LEVELS),
            quantiles=table,
            weights_version=self.version_at(hour),
            weights_sha256="0" * 64,
            offsets={},
            context_sha256="0" * 64,
            compute=Compute(device="cpu", dtype="float32", batch_shape=[24, 512]),
            status="cold_start" if series.sku == "GLOV-05" and series.region == "west" else "ok",
        )

    def day_forecast(self, series: Series) -> Forecast:
        """Days from the last midnight on; of gloves the shop is too young to say any."""
        midnight_ms = NOW_MS // DAY_MS * DAY_MS
        hour = (midnight_ms - self.start_ms) // HOUR_MS
        # Beyond the hours that are known, the last day again.
        known = series.believed[hour:]
        hourly = np.resize(known[: 24 * (len(known) // 24)], 24 * DAYS_AHEAD)
        mean = hourly.reshape(DAYS_AHEAD, 24).sum(1)
        table = self._around(mean, spread=0.5 + mean / 90)
        young = series.sku == "GLOV-05"
        return msgspec.structs.replace(
            self.forecast(series, HOURS),
            forecast_id=f"{series.item_id}@day",
            resolution_ms=DAY_MS,
            cutoff_ms=midnight_ms,
            issued_at_ms=midnight_ms + 2_000,
            quantiles=[] if young else table,
            status="warming_up" if young else "ok",
        )

    def minute_forecasts(self, series: Series) -> list[Forecast]:
        """Of the item on sale, one each minute of the past hour."""
        found = []
        for age in range(MINUTE_CUTOFFS):
            cutoff_ms = NOW_MS - (MINUTE_CUTOFFS - 1 - age) * MINUTE_MS
            starts_ms = cutoff_ms + MINUTE_MS * np.arange(MINUTES_AHEAD)
            mean = series.believed[(starts_ms - self.start_ms) // HOUR_MS] / 60
            forecast = msgspec.structs.replace(
                self.forecast(series, HOURS),
                forecast_id=f"{series.item_id}@minute{age}",
                resolution_ms=MINUTE_MS,
                cutoff_ms=cutoff_ms,
                issued_at_ms=cutoff_ms + 500,
                quantiles=self._around(mean, spread=0.35 + 0 * mean),
            )
            found.append(forecast)
        return found

    def _around(self, mean: np.ndarray[Any, Any], spread: Any) -> list[list[float]]:
        table = np.maximum(0.0, np.sqrt(mean)[:, None] + Z * np.sqrt(spread)[:, None] / 2) ** 2
        return [[float(f"{value:.4g}") for value in row] for row in table]

    def on_sale(self) -> list[Series]:
        return [series for series in self.series if series.sku == "MUGS-11"]

    def other_forecasts(self) -> list[Forecast]:
        """Those by the day and by the minute."""
        by_day = [self.day_forecast(series) for series in self.series]
        return by_day + [one for series in self.on_sale() for one in self.minute_forecasts(series)]

    @property
    def num_forecasts(self) -> int:
        by_hour = len(self.series) * (SCORED_HOURS + 1)
        return by_hour + len(self.other_forecasts())

    def rounds(self) -> list[ForecastRound]:
        """By the minute three were skipped and the newest is not whole; the hours are fine."""
        common: dict[str, Any] = {"shard": 0, "num_shards": 1, "weights_version": "v0003-9f2c1a"}
        whole = ForecastRound(
            resolution_ms=HOUR_MS,
            cutoff_ms=self.cutoff_ms,
            issued_at_ms=self.cutoff_ms + 900,
            complete=True,
            expected=24,
            published=24,
            **common,
        )
        partial = ForecastRound(
            resolution_ms=MINUTE_MS,
            cutoff_ms=NOW_MS,
            issued_at_ms=NOW_MS + 900,
            complete=False,
            expected=3,
            published=2,
            skipped=3,
            skipped_from_ms=NOW_MS - 3 * MINUTE_MS,
            **common,
        )
        return [whole, partial]

    def score(self, series: Series, hour: int) -> Score:
        apart = series.category == "Footwear" and HOURS - 97 <= hour < HOURS - SWAP_AGE
        steps = []
        for step in (1, 24):
            quantiles = self.quantiles(series, hour - step + 1, step)[step - 1]
            miss = series.sold[hour] - quantiles
            pinball = float(
                np.mean(
                    2 * np.maximum(np.array(WIRE_LEVELS) * miss, (np.array(WIRE_LEVELS) - 1) * miss)
                )
            )
            naive = abs(series.sold[hour] - series.sold[hour - 168])
            steps.append(
                ScoredStep(
                    forecast_id=f"{series.item_id}@{hour - step + 1}",
                    weights_version=self.version_at(hour - step + 1),
                    step=step,
                    pinball=pinball,
                    seasonal_naive_pinball=float(naive),
                    pit=float(np.mean(miss > 0)),
                    residual=float(miss[4]) / max(1.0, math.sqrt(series.rate[hour])),
                    covered_80=bool(quantiles[2] <= series.sold[hour] <= quantiles[6]),
                    adjusted=apart,
                )
            )
        start_ms = self.start_ms + hour * HOUR_MS
        return Score(
            item_id=series.item_id,
            segment=series.category,
            resolution_ms=HOUR_MS,
            bucket_start_ms=start_ms,
            scored_at_ms=start_ms + 2 * HOUR_MS,
            actual=float(series.sold[hour]),
            steps=steps,
            unadjusted=[shadow_of(step) for step in steps] if apart else [],
        )

    def orders(self) -> list[tuple[int, bytes]]:
        """(event time, value), in time order: one a series and hour, in a sale some each minute."""
        found = []
        for hour in range(HOURS + 1):
            start_ms = self.start_ms + hour * HOUR_MS
            for series in self.series:
                selling = series.sku == "MUGS-11" and hour >= HOURS - SALE_HOURS
                sold = self.sold_by_minute(series, hour) if selling else self._at_once(series, hour)
                for minute, quantity in sold.items():
                    at_ms = start_ms + minute * MINUTE_MS + 17_000
                    name = f"{series.item_id}@{hour}:{minute}"
                    found.append((at_ms, self._order(name, series, quantity, at_ms)))
        found.sort(key=lambda order: order[0])
        return found

    def _at_once(self, series: Series, hour: int) -> dict[int, int]:
        minute, share = (15, 0.3) if hour == HOURS else (30, 1.0)
        quantity = round(series.sold[hour] * share)
        return {minute: quantity} if quantity else {}

    def sold_by_minute(self, series: Series, hour: int) -> dict[int, int]:
        """An hour's sales spread over its minutes; of the open hour those so far."""
        until, share = (19, 0.3) if hour == HOURS else (60, 1.0)
        random = np.random.default_rng([self.seed, hour, len(series.region)])
        spread = random.multinomial(round(series.sold[hour] * share), np.full(until, 1 / until))
        return {minute: int(units) for minute, units in enumerate(spread) if units}

    def _order(self, name: str, series: Series, quantity: int, at_ms: int) -> bytes:
        price = next(good[4] for good in GOODS if good[0] == series.sku)
        order = {
            "event_id": name,
            "order_id": name,
            "sku": series.sku,
            "region": series.region,
            "event_time": at_ms,
        }
        return json.dumps(order | {"quantity": quantity, "unit_price": price}).encode()

    def shop_records(self) -> Iterator[tuple[str, str, Any]]:
        for sku, title, category, brand, price, _ in GOODS:
            yield (
                "catalog",
                sku,
                CatalogEntry(
                    sku=sku, title=title, category=category, brand=brand, unit_price=price
                ),
            )
        for series in self.series:
            left = {"MUGS-11|north": 350.0, "MUGS-11|south": 190.0, "MUGS-11|west": 240.0}.get(
                series.item_id, 900.0
            )
            level = InventoryLevel(sku=series.sku, region=series.region, on_hand=left, as_of=NOW_MS)
            yield "inventory", f"{series.sku}|{series.region}", level
        yield from self._promotions()

    def _promotions(self) -> Iterator[tuple[str, str, Any]]:
        known = (
            ("mug-rush", "MUGS-11", None, -3, 5, 0.35, "flash_sale"),
            ("tent-dawn", "TENT-02", None, 19, 25, 0.2, "flash_sale"),
            ("kitchen-week", None, "Kitchen", -60, -36, 0.1, "coupon"),
        )
        for name, sku, category, first, last, discount, kind in known:
            starts, ends = self.cutoff_ms + first * HOUR_MS, self.cutoff_ms + last * HOUR_MS
            promotion = Promotion(
                promotion_id=name,
                sku=sku,
                category=category,
                starts_at=starts,
                ends_at=ends,
                discount=discount,
                kind=kind,
            )
            yield "promotions", name, promotion

    def _hours_ago(self, hours: float) -> int:
        return self.cutoff_ms - round(hours * HOUR_MS)

    def events(self) -> Iterator[tuple[str, str, Any]]:
        at = self._hours_ago
        alert: dict[str, Any] = {
            "segment": "Footwear",
            "kind": "level",
            "detector": "ADWIN",
            "weights_version": "base",
        }
        text = "Footwear sells 2.1 times what was forecast, in every region."
        fix = "Level factors are on; new weights are being trained on the newest days."
        for state, age, size, said in (("warning", 102, 0.41, text), ("drift", 97, 0.94, text)):
            record = DriftAlert(
                alert_id=f"f-{state}",
                state=state,  # type: ignore[arg-type]
                detected_at_ms=at(age),
                onset_ms=at(109),
                size=size,
                description=said,
                action=fix,
                **alert,
            )
            yield "drift", "Footwear", record
        yield (
            "drift",
            "Footwear",
            DriftAlert(
                alert_id="f-stable",
                state="stable",
                detected_at_ms=at(38),
                onset_ms=at(109),
                size=0.08,
                description="Footwear is forecast right again since the new weights.",
                action="",
                **alert,
            ),
        )
        lamps = DriftAlert(
            alert_id="e-warning",
            segment="Electronics",
            state="warning",
            kind="spread",
            detector="KSWIN",
            detected_at_ms=at(5),
            onset_ms=at(11),
            size=0.38,
            weights_version="v0003-9f2c1a",
            description="Outcomes of Electronics scatter more than the forecasts say.",
            action="Nothing yet; training starts when the warning becomes drift.",
        )
        yield "drift", "Electronics", lamps
        yield from self._model_events(at)

    def _model_events(self, at: Any) -> Iterator[tuple[str, str, Any]]:
        for name, age in (("r1", 96), ("r2", 80)):
            request = RetrainRequest(
                request_id=name,
                requested_at_ms=at(age),
                reason="drift",
                segments=["Footwear"],
                alert_ids=["f-drift"],
            )
            yield "retrain", name, request
        gate = {
            f"{name}{suffix}": value
            for name, found, limit, ok in (
                ("finite", 1.0, 1.0, True),
                ("blocks", 8.0, 6.0, True),
                ("items", 6.0, 5.0, True),
                ("gain_low", 0.214, 0.01, True),
                ("overall_gain", 0.071, -0.01, True),
                ("coverage_distance", 0.012, 0.066, True),
                ("anchor_loss", 0.004, 0.05, True),
                ("latency_ratio", 1.02, 1.5, True),
            )
            for suffix, value in (("", found), (".threshold", limit), (".ok", ok))
        } | {"gain": 0.264, "days": 2.0}
        worse = gate | {
            "gain": -0.012,
            "gain_low": -0.031,
            "gain_low.ok": False,
            "verdict": "reject",
        }
        common: dict[str, Any] = {"parent": "base", "sha256": "0" * 64}
        plan: tuple[tuple[str, str, float, dict[str, Any]], ...] = (
            ("training", "v0002-4be07d", 95.9, {"request_id": "r1"}),
            (
                "rejected",
                "v0002-4be07d",
                95.5,
                {"request_id": "r1", "gate": worse, "reason": "gain_low -0.031 against 0.01"},
            ),
            ("training", "v0003-9f2c1a", 79.9, {"request_id": "r2"}),
            (
                "promoted",
                "v0003-9f2c1a",
                SWAP_AGE,
                {"request_id": "r2", "gate": gate | {"verdict": "promote"}},
            ),
            ("swapped", "v0003-9f2c1a", SWAP_AGE - 0.05, {"worker": "worker-0", "pause_ms": 0.18}),
        )
        for kind, version, age, more in plan:
            event = ModelEvent(kind=kind, version=version, at_ms=at(age), **common, **more)  # type: ignore[arg-type]
            yield "models", f"{kind}:{version}", event


def shadow_of(step: ScoredStep) -> ScoredStep:
    """What would have been served of it without the adjustment: a quarter more wrong."""
    return msgspec.structs.replace(step, pinball=1.25 * step.pinball, adjusted=False)


def fill_redis(world: World, settings: Settings) -> None:
    """Fold the orders into windows with ingest's own code."""
    client = connect(settings.redis)
    set_anchor(client, NOW_MS, 60.0)
    partition = PartitionWindows.claim(
        WindowStore(client, settings.redis.generation),
        "orders",
        settings.kafka.topics.orders,
        0,
        settings,
    )
    partition.start_at(0)
    orders = world.orders()
    times = np.array([at_ms for at_ms, _ in orders], np.int64)
    batch = RawBatch(
        values=[value for _, value in orders],
        keys=[None] * len(orders),
        timestamps_ms=times,
        offsets=np.arange(len(orders), dtype=np.int64),
        next_offset=len(orders),
    )
    partition.apply(partition.fold(batch))
    client.close()


def fill_topics(world: World, settings: Settings) -> None:
    """Everything the dashboard reads from Kafka, oldest first, a few broken records among them."""
    topics = settings.kafka.topics.model_dump()
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "linger.ms": 20})
    refused: list[Any] = []

    def note(error: Any, _: Any) -> None:
        refused.extend([error] if error else [])

    def send(kind: str, key: str, value: bytes) -> None:
        producer.produce(topics[kind], value, key, on_delivery=note)
        producer.poll(0)

    for kind, key, record in (*world.shop_records(), *world.events()):
        send(kind, key, encode(record))
    for hour in range(HOURS - SCORED_HOURS, HOURS + 1):
        for series in world.series:
            send("forecasts", series.item_id, encode(world.forecast(series, hour)))
            if hour < HOURS - 1:
                send("scores", series.item_id, encode(world.score(series, hour)))
    for forecast in world.other_forecasts():
        send("forecasts", forecast.item_id, encode(forecast))
        key = f"{forecast.item_id}@{forecast.resolution_ms}"
        send("forecasts_latest", key, encode(forecast))
    for done in world.rounds():
        send("rounds", f"{done.shard}@{done.resolution_ms}", encode(done))
    for kind in ("forecasts", "scores", "drift"):
        send(kind, "broken", b"\xff{not json")
    assert producer.flush(30) == 0 and not refused, refused
