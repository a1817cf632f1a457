"""Records from and to Kafka, and what the broker says: the one door to its client library."""

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from freshet.stream.kafka.admin import LogOffsets, admin, ensure_topics, topic_configs, topic_ids
from freshet.stream.kafka.client import (
    Cluster,
    Key,
    Taken,
    broker_errors,
    cluster,
    consumer,
    headers_of,
    log_range,
    partitions_of,
    producer,
    shard_of,
    take,
)
from freshet.stream.kafka.publisher import Headers, Publisher
from freshet.stream.kafka.table import TableReader, TableRecord

__all__ = [
    "Cluster",
    "Consumer",
    "Headers",
    "Key",
    "LogOffsets",
    "Message",
    "Producer",
    "Publisher",
    "TableReader",
    "TableRecord",
    "Taken",
    "TopicPartition",
    "admin",
    "broker_errors",
    "cluster",
    "consumer",
    "ensure_topics",
    "headers_of",
    "log_range",
    "partitions_of",
    "producer",
    "shard_of",
    "take",
    "topic_configs",
    "topic_ids",
]
