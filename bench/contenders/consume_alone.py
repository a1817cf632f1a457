"""Ceiling: read the two topics as ingest does, in slices, and look at nothing."""

from __future__ import annotations

import sys

from confluent_kafka import Consumer, TopicPartition
from stopwatch import Stopwatch

SLICE_RECORDS = 2_000


def main(servers: str, orders: str, clicks: str, warm_up: int, total: int) -> None:
    client = Consumer(
        {"bootstrap.servers": servers, "group.id": "alone", "auto.offset.reset": "earliest"}
    )
    known = client.list_topics(timeout=10).topics
    places = [
        TopicPartition(topic, number, 0)
        for topic in (orders, clicks)
        for number in known[topic].partitions
    ]
    client.assign(places)
    watch = Stopwatch(warm_up, total)
    while True:
        watch.count(len(client.consume(SLICE_RECORDS, 1)))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]))
