"""A shop that sends to freshet's topics, and a program that reads its forecasts."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from confluent_kafka import Consumer, Producer

from bench.foreign.cases import Case

LEVELS = tuple(round(tenth / 10, 1) for tenth in range(1, 10))
LONGEST_S, SILENT_S = 300.0, 25.0
TILL = "till"


def place(name: str) -> dict[str, str]:
    """The sku and region of a series."""
    sku, _, region = name.partition("|")
    return {"sku": sku, "region": region or "-"}


def ms(at: pd.Timestamp) -> int:
    """Epoch milliseconds."""
    return int(at.value // 1_000_000)


def wide_of(case: Case, frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column by time and series, on every step."""
    return frame.pivot(index="timestamp", columns="id", values=column).asfreq(case.step)


def spans(case: Case, wide: pd.DataFrame) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Each run of one known value, by series; of no series where all agree."""
    alike = (wide.nunique(axis=1) <= 1).all()
    lines = {None: wide.bfill(axis=1).iloc[:, 0]} if alike else dict(wide.items())
    for name, line in lines.items():
        values = line.to_numpy(float)
        moves = np.flatnonzero(np.diff(values, prepend=np.nan) != 0)
        for begin, end in zip(moves, [*moves[1:], len(values)], strict=True):
            if np.isfinite(values[begin]):
                starts_at, ends_at = (
                    wide.index[begin],
                    wide.index[begin] + case.step * (end - begin),
                )
                times = {"starts_at": ms(starts_at), "ends_at": ms(ends_at)}
                yield name, {**times, "value": float(values[begin])}


def tables(case: Case, frame: pd.DataFrame) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Topic, key and record of all that is announced, before the first sale."""
    told = {"announced_at": ms(frame.timestamp.min())}
    # An article is listed from its first row on, not before it is thought of.
    listed = frame.groupby("id").timestamp.min()
    for name, row in frame.groupby("id").first().iterrows():
        sku = place(str(name))["sku"]
        about = {column: str(row[column]) for column in case.static if pd.notna(row[column])}
        entry = {"sku": sku, "title": " ".join([sku, *about.values()]), "attributes": about}
        entry |= {"category": about.get(case.category, ""), "announced_at": ms(listed[name])}
        yield "catalog", sku, entry
    if case.promotion:
        yield from promotions(case, frame, told)
    for column, covariate in {**case.flags, **case.numbers}.items():
        wide = wide_of(case, frame, column)
        if covariate == "closed" and case.shut_where_missing:
            # Neither before the first row of a series nor after its last one.
            between = wide.notna().cummax() & wide.notna()[::-1].cummax()
            wide = wide.where(wide.notna() | ~between, 1.0)
        for name, span in spans(case, wide):
            if span["value"] or column in case.numbers:
                key = f"{covariate}-{name or 'all'}-{span['starts_at']}"
                scope = place(name) if name else {}
                record = {"covariate_id": key, "name": covariate, "scope": scope}
                yield "covariates", key, {**record, **span, **told}


def promotions(
    case: Case, frame: pd.DataFrame, told: Mapping[str, int]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each run of promoted days; those of all items, by category, since no promotion is of all."""
    categories = sorted(frame[case.category].dropna().unique())
    for name, span in spans(case, wide_of(case, frame, case.promotion)):
        if not span.pop("value"):
            continue
        whom = [{"category": category} for category in categories]
        if name:
            whom = [{"sku": place(name)["sku"]}]
        for one in whom:
            key = f"{next(iter(one.values()))}-{span['starts_at']}"
            yield "promotions", key, {"promotion_id": key, "discount": 0.2, **span, **one, **told}


def orders(case: Case, frame: pd.DataFrame) -> pd.DataFrame:
    """One order a series and step with sales, in time's order."""
    sold = frame[frame.target > 0].sort_values("timestamp", kind="stable")
    at = (sold.timestamp + case.step / 2).astype("datetime64[ms]").astype("int64")
    price = sold.unit_price if "unit_price" in sold else 1.0
    names = sold.id.astype(str)
    return pd.DataFrame({"id": names, "at": at, "units": sold.target, "price": price})


class Shop:
    """Sends records to the topics, and counts them."""

    def __init__(self, servers: str) -> None:
        config = {"bootstrap.servers": servers, "queue.buffering.max.messages": 1_000_000}
        self._producer = Producer({**config, "linger.ms": 20, "compression.type": "lz4"})
        self.sent: Counter[str] = Counter()

    def announce(self, case: Case, frame: pd.DataFrame) -> None:
        """Everything that is known in advance."""
        for topic, key, record in tables(case, frame):
            self._send(topic, key, record)
        self.flush()

    def sell(self, lines: pd.DataFrame) -> None:
        """Orders, one a line."""
        for line in lines.itertuples():
            number = self.sent["orders"]
            ids = {"event_id": f"e{number}", "order_id": f"o{number}", "event_time": int(line.at)}
            what = {"quantity": float(line.units), "unit_price": float(line.price)}
            self._send("orders", line.id, {**ids, **what, **place(line.id)})
        self.flush()

    def open_till(self, at: pd.Timestamp) -> None:
        """An order in every partition a minute after a cutoff, which shows that it has passed."""
        topic = self._producer.list_topics("freshet.orders.v1", 30).topics["freshet.orders.v1"]
        for partition in topic.partitions:
            ids = {"event_id": f"{TILL}-{ms(at)}-{partition}", "order_id": TILL}
            what = {"event_time": ms(at) + 60_000, "quantity": 1.0, "unit_price": 1.0}
            record = {**ids, **what, "sku": TILL, "region": "-"}
            self._send("orders", TILL, record, partition)
        self.flush()

    def flush(self) -> None:
        """Wait until the broker has everything."""
        assert self._producer.flush(120) == 0

    def _send(self, topic: str, key: str, record: dict[str, Any], partition: int = -1) -> None:
        value = json.dumps(record).encode()
        while True:
            try:
                self._producer.produce(f"freshet.{topic}.v1", value, key, partition)
                break
            except BufferError:
                self._producer.poll(0.2)
        self.sent[topic] += 1
        if self.sent[topic] % 1_000 == 0:
            self._producer.poll(0)


class Reader:
    """A program that reads committed forecasts, and rounds to know when there are no more."""

    def __init__(self, servers: str) -> None:
        config = {"bootstrap.servers": servers, "group.id": "foreign"}
        config |= {"auto.offset.reset": "earliest", "isolation.level": "read_committed"}
        self._consumer = Consumer(config)
        self._consumer.subscribe(["freshet.forecasts.v1", "freshet.rounds.v1"])
        self.found: dict[int, dict[str, np.ndarray]] = {}
        self.status: dict[int, Counter[str]] = {}
        self._shards: dict[int, set[int]] = {}
        self._num_shards = 0

    def wait(self, cutoff_ms: int, expected: int) -> tuple[float, float]:
        """Seconds to the first and the last forecast of a cutoff."""
        began_s = time.monotonic()
        first_s = last_s = float("nan")
        while (now_s := time.monotonic() - began_s) < LONGEST_S:
            had = len(self.found.get(cutoff_ms, ()))
            for message in self._consumer.consume(2_000, 0.3):
                self._take(message)
            count = len(self.found.get(cutoff_ms, ()))
            if count > had:
                last_s = time.monotonic() - began_s
                first_s = first_s if had else last_s
            ended = len(self._shards.get(cutoff_ms, ())) == self._num_shards > 0
            if count >= expected or ended or (count and now_s - last_s > SILENT_S):
                break
        return first_s, last_s

    def _take(self, message: Any) -> None:
        if message.error():
            return
        record = json.loads(message.value())
        cutoff_ms = record["cutoff_ms"]
        if message.topic() == "freshet.rounds.v1":
            self._num_shards = record["num_shards"]
            if record["complete"]:
                self._shards.setdefault(cutoff_ms, set()).add(record["shard"])
            return
        if record["sku"] == TILL:
            return
        self.status.setdefault(cutoff_ms, Counter())[record["status"]] += 1
        if record["quantiles"]:
            name = record["item_id"].removesuffix("|-")
            quantiles = at_levels(np.array(record["quantiles"]), record["quantile_levels"])
            self.found.setdefault(cutoff_ms, {})[name] = quantiles


def at_levels(quantiles: np.ndarray, levels: list[float]) -> np.ndarray:
    """Quantiles at `LEVELS`; between two that are there, as if those were of a normal.

    >>> at_levels(np.array([[0.0, 1.0, 2.0]]), [0.1, 0.5, 0.9]).round(2).tolist()
    [[0.0, 0.34, 0.59, 0.8, 1.0, 1.2, 1.41, 1.66, 2.0]]
    """
    score = NormalDist().inv_cdf
    there = [score(level) for level in levels]
    wanted = [score(level) for level in LEVELS]
    return np.array([np.interp(wanted, there, row) for row in quantiles])
