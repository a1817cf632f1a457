"""Records from and to Kafka, and what the broker says: the one door to its client library."""

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from freshet.stream.kafka.admin import (
    LogOffsets,
    admin,
    ensure_topics,
    timestamp_types,
    topic_configs,
    topic_ids,
)
from freshet.stream.kafka.client import (
    Cluster,
    Key,
    Taken,
    broker_errors,
    broker_question,
    cluster,
    consumer,
    headers_of,
    log_range,
    partitions_of,
    producer,
    shard_of,
    take,
)
from freshet.stream.kafka.delivery import Delivery, give_up, send
from freshet.stream.kafka.fenced import Acknowledged, Fenced, FencedError, Writes
from freshet.stream.kafka.publisher import (
    Headers,
    Outgoing,
    Publisher,
    RecordsRefusedError,
)
from freshet.stream.kafka.questions import append_time_ms, group_members
from freshet.stream.kafka.security import AIOKAFKA, FAUST, SignIn, sign_in
from freshet.stream.kafka.table import Silence, TableReader, TableRecord
from freshet.stream.kafka.tokens import TokenProvider
from freshet.stream.kafka.transactions import (
    AtLeastOnce,
    Commits,
    ExactlyOnce,
    NotTheOwnerError,
)

__all__ = [
    "AIOKAFKA",
    "FAUST",
    "OFFSET_END",
    "Acknowledged",
    "AtLeastOnce",
    "Cluster",
    "Commits",
    "Consumer",
    "Delivery",
    "ExactlyOnce",
    "Fenced",
    "FencedError",
    "Headers",
    "KafkaException",
    "Key",
    "LogOffsets",
    "Message",
    "NotTheOwnerError",
    "Outgoing",
    "Producer",
    "Publisher",
    "RecordsRefusedError",
    "SignIn",
    "Silence",
    "TableReader",
    "TableRecord",
    "Taken",
    "TokenProvider",
    "TopicPartition",
    "Writes",
    "admin",
    "append_time_ms",
    "broker_errors",
    "broker_question",
    "cluster",
    "consumer",
    "ensure_topics",
    "give_up",
    "group_members",
    "headers_of",
    "log_range",
    "partitions_of",
    "producer",
    "send",
    "shard_of",
    "sign_in",
    "take",
    "timestamp_types",
    "topic_configs",
    "topic_ids",
]
