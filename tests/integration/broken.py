"""A shop's set-up for each way in which it can be broken, and what the doctor should say of it."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

from freshet.model.checkpoint import BASE_WEIGHTS
from freshet.online.weights.assignment import Assignment
from freshet.online.weights.registry import Registry
from freshet.stream.child import Child
from freshet.stream.config import Settings
from freshet.stream.fold.headers import fingerprint
from freshet.stream.kafka import Publisher
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.store.connection import connect
from freshet.stream.store.redis import WindowStore
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.integration.redis_binary import cluster_port, redis_binary
from tests.stream.events.formats.fake_registry import FakeRegistry, serving

NUM_RECORDS = 40
LETTERS = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "1065536"}
NOWHERE = "127.0.0.1:1"
BAD_REDIS = {"redis": {"url": "redis://127.0.0.1:1/0"}}


@dataclass
class World:
    """The servers that all set-ups share, and what one of them has of its own.

    `ports` are those of the broker's listeners. The broker has all topics of `base`.
    """

    base: dict[str, Any]
    ports: Mapping[str, int]
    folder: Path
    certificates: Path
    own: ExitStack = field(default_factory=ExitStack)

    def settings(self, *over: Mapping[str, Any]) -> Settings:
        """The shared ones, and section by section what is otherwise."""
        merged = self.base
        for one in over:
            merged = _merged(merged, one)
        return Settings.model_validate(merged)

    # Kafka ----------------------------------------------------------------------------------------

    def topic(self, name: str, kind: str = "orders", **config: str) -> dict[str, Any]:
        """Settings with a topic of its own, and the topic."""
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.ports['PLAINTEXT']}"})
        stamped = {"message.timestamp.type": "LogAppendTime", **config}
        asked = [
            NewTopic(name, 1, 1, config=stamped),
            NewTopic(dead_letter_topic(name), 1, 1, config=LETTERS),
        ]
        for made in admin.create_topics(asked, operation_timeout=60).values():
            made.result(60)
        return {"kafka": {"topics": {kind: name}}}

    def delete(self, name: str) -> None:
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.ports['PLAINTEXT']}"})
        admin.delete_topics([name], operation_timeout=60)[name].result(60)

    def send(self, name: str, values: Sequence[Any], **headers: bytes) -> None:
        own = [(header.replace("_", "-"), value) for header, value in headers.items()]
        with Publisher(self.settings()) as publisher:
            for value in values:
                publisher.produce(name, json.dumps(value).encode(), key=b"k", headers=own)
            publisher.flush()

    def orders(self, name: str, *, times: int = 1, **over: Any) -> dict[str, Any]:
        """A topic of orders that happened a minute ago, each with what is otherwise."""
        settings = self.topic(name)
        self.send(name, [order(n, **over) for n in range(NUM_RECORDS)])
        return settings

    def folded(self, name: str, **fields: int | str) -> dict[str, Any]:
        """A topic with orders, and a header in Redis as if all of them were folded."""
        found = self.orders(name)
        settings = self.settings(found)
        client = connect(settings.redis)
        store = WindowStore(client, 0)
        store.claim(name, 0, fingerprint("orders", settings))
        header = {"next_offset": NUM_RECORDS, "read": NUM_RECORDS, "applied": NUM_RECORDS}
        client.hset(store.keys(name, 0).header, mapping=header | fields)
        return found

    # Redis ----------------------------------------------------------------------------------------

    def redis(self, user: str = "", database: int = 0, **options: str) -> dict[str, Any]:
        """Settings with a Redis of its own, made with these options."""
        port = cluster_port()
        folder = self.folder / f"redis-{port}"
        folder.mkdir()
        lines = {"port": port, "save": '""', "dir": folder, **options}
        text = "".join(f"{name.replace('_', '-')} {value}\n" for name, value in lines.items())
        (folder / "redis.conf").write_text(text, "utf-8")
        child = Child([redis_binary(), str(folder / "redis.conf")], log_file=folder / "redis.log")
        self.own.enter_context(child)
        _wait_for(port)
        return {"redis": {"url": f"redis://{user}127.0.0.1:{port}/{database}"}}

    # This machine ---------------------------------------------------------------------------------

    def silent(self) -> int:
        """The port of a server that takes connections and says nothing."""
        return self.own.enter_context(_silent())

    def taken(self) -> int:
        """The port of a program that is not ours, and answers at once."""
        return self.own.enter_context(_taken())

    def registry(self) -> dict[str, Any]:
        return {"learn": {"registry": str(self.folder / "registry")}}

    def champion(self) -> Path:
        """The folder of a version that serves, whose files are those of the shipped weights."""

        def build(folder: Path) -> None:
            for path in BASE_WEIGHTS.iterdir():
                shutil.copy(path, folder)

        registry = Registry(self.folder / "registry")
        version = registry.add(build, parent="base", created_at_ms=0).version
        registry.serve(Assignment(version))
        return registry.path(version)


def order(number: int, **over: Any) -> dict[str, Any]:
    now_ms = time.time_ns() // 1_000_000
    usual = {"event_id": f"e{number}", "sku": "a", "region": "north", "quantity": 1}
    return {**usual, "unit_price": 9.5, "event_time": now_ms - 60_000 + number, **over}


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Tables in tables; of two values the second."""
    both = dict(first)
    for name, value in second.items():
        old = both.get(name)
        inner = isinstance(old, dict) and isinstance(value, dict)
        both[name] = _merged(old, value) if inner else value  # type: ignore[arg-type]
    return both


def _wait_for(port: int) -> None:
    deadline_s = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline_s, "it does not listen"
            time.sleep(0.01)


@contextmanager
def _silent() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def _taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            try:
                while True:
                    client, _ = server.accept()
                    client.sendall(b"220 mail.example.com\r\n")
                    client.close()
            except OSError:
                return

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


# The set-ups --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """One way of being broken: how it is made, and a line that the doctor should say.

    `make` gives the settings; `probes` are looked at, and what they need.
    """

    make: Callable[[World], Settings]
    probes: tuple[str, ...]
    name: str
    state: str
    says: str
    hint: str
    ahead_ms: int = 0


def kafka(world: World, listener: str, **over: Any) -> Settings:
    servers = f"127.0.0.1:{world.ports[listener]}"
    return world.settings({"kafka": {"bootstrap_servers": servers, **over}})


def refused_by_the_schema_registry(world: World) -> Settings:
    fake = FakeRegistry()
    fake.status = 401
    world.own.enter_context(serving(fake))
    return world.settings({"kafka": {"registry": {"url": fake.url}}})


def altered_champion(world: World) -> Settings:
    (world.champion() / "config.json").write_text("{}")
    return world.settings(world.registry())


def half_a_version(world: World) -> Settings:
    half = "v0007-20260101T000000Z-00000000"
    (world.folder / "registry/versions" / half).mkdir(parents=True)
    return world.settings(world.registry())


def below_a_file(world: World) -> Settings:
    (world.folder / "file").write_text("")
    return world.settings({"learn": {"registry": str(world.folder / "file/registry")}})


def cut_weights(world: World) -> Settings:
    shutil.copytree(BASE_WEIGHTS, world.folder / "weights")
    path = world.folder / "weights/model.safetensors"
    path.write_bytes(path.read_bytes()[:1_000])
    return world.settings({"worker": {"weights": str(world.folder / "weights")}})


def made_again(world: World) -> Settings:
    found = world.folded("made_again", topic_id="AAAAAAAAAAAAAAAAAAAAAA")
    return world.settings(found)


def gone(world: World) -> Settings:
    found = world.folded("gone")
    world.delete("gone")
    return world.settings(found)


def mostly_dead(world: World) -> Settings:
    found = world.folded("mostly_dead", applied=10, dead_letter=30)
    said = {"class": b"MissingField", "message": b"the field 'sku' is missing"}
    notes = [(f"freshet.error.{name}", text) for name, text in said.items()]
    with Publisher(world.settings()) as publisher:
        for _ in range(3):
            publisher.produce(dead_letter_topic("mostly_dead"), b"{}", headers=notes)
        publisher.flush()
    return world.settings(found)


def other_database(world: World) -> Settings:
    found = world.redis()
    client = connect(world.settings(found).redis)
    client.set("freshet:generation", 1)
    url = found["redis"]["url"].removesuffix("/0") + "/3"
    return world.settings({"redis": {"url": url}})


def nearly_full(world: World) -> Settings:
    found = world.redis(maxmemory="16mb")
    client = connect(world.settings(found).redis)
    number = 0
    while client.info()["used_memory"] < 0.93 * 16 * 2**20:
        client.set(f"k{number}", b"x" * 200_000)
        number += 1
    return world.settings(found)


def bad_catalogue(world: World) -> Settings:
    found = world.topic("bad_catalogue", "catalog", **{"cleanup.policy": "compact"})
    world.send("bad_catalogue", [{"name": "no sku"}] * 3)
    return world.settings(found)


def missing_topics(world: World) -> Settings:
    topics = {"orders": "never.made", "late": "never.made.late"}
    return world.settings({"kafka": {"topics": topics}})


def misspelt(orders: str) -> dict[str, Any]:
    return {"kafka": {"topics": {"orders": orders}}}


NOW_S = time.time()
BROKEN: dict[str, Broken] = {
    # Kafka
    "no_broker": Broken(
        lambda w: w.settings({"kafka": {"bootstrap_servers": NOWHERE}}),
        ("kafka", "topics", "orders"),
        *("kafka", "problem", "no Kafka broker answers at 127.0.0.1:1", "start one, or set"),
    ),
    "a_broker_of_no_known_name": Broken(
        lambda w: w.settings({"kafka": {"bootstrap_servers": "no-such-host.invalid:9092"}}),
        ("kafka",),
        *("kafka", "problem", "leads nowhere", "kafka.bootstrap_servers"),
    ),
    "a_broker_that_is_silent": Broken(
        lambda w: w.settings({"kafka": {"bootstrap_servers": f"127.0.0.1:{w.silent()}"}}),
        ("kafka",),
        *("kafka", "problem", "no Kafka broker answers", "start one, or set"),
    ),
    "a_wrong_password_of_kafka": Broken(
        lambda w: kafka(
            w,
            "PLAIN",
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username="freshet",
            sasl_password="wrong",
        ),
        ("kafka",),
        *("kafka", "problem", "does not let us in", "kafka.sasl_password"),
    ),
    "no_tls_where_the_broker_wants_it": Broken(
        lambda w: kafka(w, "TLS"),
        ("kafka",),
        *("kafka", "problem", "does not speak as we do", "kafka.security_protocol"),
    ),
    "a_certificate_of_an_unknown_authority": Broken(
        lambda w: kafka(w, "TLS", security_protocol="SSL"),
        ("kafka",),
        *("kafka", "problem", "no TLS with Kafka", "kafka.ssl_ca_location"),
    ),
    "a_broker_that_names_an_address_out_of_reach": Broken(
        lambda w: kafka(w, "FAR"),
        ("kafka",),
        *("kafka", "problem", "says that a broker is at 127.0.0.1:1", "advertised.listeners"),
    ),
    "a_client_that_cannot_follow": Broken(
        lambda w: w.settings(
            {
                "kafka": {
                    "security_protocol": "SSL",
                    "client": {"ssl.keystore.location": "x"},
                }
            }
        ),
        ("sign-in",),
        *("sign-in", "problem", "cannot follow", ""),
    ),
    "missing_topics": Broken(
        missing_topics,
        ("topics", "orders"),
        *("topics", "problem", "missing: never.made", "freshet topics create"),
    ),
    "a_topic_that_is_misspelt": Broken(
        lambda w: w.settings(w.orders("misspelt.orders"), misspelt("misspelt.order")),
        ("topics",),
        *("topics", "problem", "did you mean misspelt.orders, which has", "name it in kafka.to"),
    ),
    "compacted_orders": Broken(
        lambda w: w.settings(w.topic("compacted", **{"cleanup.policy": "compact"})),
        ("topics",),
        *("topics", "problem", "compacted: cleanup.policy", "all but the last of a key"),
    ),
    "retention_shorter_than_windows": Broken(
        lambda w: w.settings(w.topic("a_week", **{"retention.ms": str(7 * DAY_MS)})),
        ("retention",),
        *("retention", "warning", "a_week keeps 7 days, and windows reach back 800", "retention"),
    ),
    "a_clock_that_is_a_minute_ahead": Broken(
        lambda w: w.settings(w.folded("ahead")),
        ("broker's clock",),
        *("clock", "warning", "ahead of the broker's", "same time server"),
        ahead_ms=60_000,
    ),
    "a_clock_that_is_a_minute_behind_redis": Broken(
        lambda w: w.settings(),
        ("clock",),
        *("clock", "warning", "clock is -", "same time server"),
        ahead_ms=-60_000,
    ),
    "nobody_reads": Broken(
        lambda w: w.settings(w.folded("nobody", next_offset=10)),
        ("ingest",),
        *("ingest", "warning", "has no members; 30 records behind", "start `freshet ingest`"),
    ),
    "nobody_has_begun": Broken(
        lambda w: w.settings(w.orders("unread"), w.redis()),
        ("ingest",),
        *("ingest", "warning", "has no members; not begun; 40 records wait", "start `freshet in"),
    ),
    "history_that_was_never_loaded": Broken(
        lambda w: w.settings(w.redis(), {"windows": {"history_before": "2026-01-01"}}),
        ("history",),
        *("history", "warning", "no history is loaded yet: until", "`freshet history load FILE`"),
    ),
    "nobody_forecasts": Broken(
        lambda w: w.settings(),
        ("worker",),
        *("worker", "warning", "none runs", "start `freshet worker`"),
    ),
    # The Schema Registry
    "no_schema_registry": Broken(
        lambda w: w.settings({"kafka": {"registry": {"url": f"http://{NOWHERE}"}}}),
        ("schema registry",),
        *("schema registry", "problem", "does not answer", "kafka.registry"),
    ),
    "a_schema_registry_that_refuses": Broken(
        refused_by_the_schema_registry,
        ("schema registry",),
        *("schema registry", "problem", "does not let us in", "kafka.registry.username"),
    ),
    # Records
    "no_records": Broken(
        lambda w: w.settings(w.topic("no_records")),
        ("orders",),
        *("orders", "warning", "no_records is empty", "does anybody send"),
    ),
    "a_path_that_leads_nowhere": Broken(
        lambda w: w.settings(
            w.orders("nowhere"), {"events": {"orders": {"fields": {"sku": "article"}}}}
        ),
        ("orders",),
        *("orders", "problem", "40 dead_letter; 40 x dead_letter: MissingField", "fields.sku"),
    ),
    "numbers_of_another_country": Broken(
        lambda w: w.settings(w.orders("country", unit_price="9,50")),
        ("orders",),
        *("orders", "problem", "expected a number", "`number` says how it is written"),
    ),
    "seconds_read_as_milliseconds": Broken(
        lambda w: w.settings(w.orders("seconds", event_time=int(NOW_S))),
        ("orders",),
        *("orders", "problem", "are in 1970", 'time = "s"'),
    ),
    "times_of_two_years_ago": Broken(
        lambda w: w.settings(w.orders("old", event_time=int(NOW_S * 1_000) - 730 * DAY_MS)),
        ("orders",),
        *("orders", "problem", "over a year old", ""),
    ),
    "orders_that_stopped_two_days_ago": Broken(
        lambda w: w.settings(w.orders("stopped", event_time=int(NOW_S * 1_000) - 2 * DAY_MS)),
        ("orders",),
        *("orders", "warning", "the newest of stopped happened 48 hours ago", "still run"),
    ),
    "a_zone_that_is_hours_ahead": Broken(
        lambda w: w.settings(w.orders("zone", event_time=int(NOW_S * 1_000) + 5 * HOUR_MS)),
        ("orders",),
        *("orders", "problem", "FutureEvent", "zone"),
    ),
    "a_condition_that_never_holds": Broken(
        lambda w: w.settings(
            w.orders("never"), {"events": {"orders": {"keep_when": {"typ": "order"}}}}
        ),
        ("orders",),
        *("orders", "warning", "40 skipped; keep_when: typ is missing", "events.orders.keep_when"),
    ),
    "a_format_without_a_schema": Broken(
        lambda w: w.settings(
            w.orders("avro"), {"events": {"orders": {"format": "avro", "registry": False}}}
        ),
        ("orders",),
        *("orders", "problem", "without a registry need a schema", "schema_file"),
    ),
    "a_catalogue_without_skus": Broken(
        bad_catalogue,
        ("tables",),
        *("catalog", "problem", "3 of the newest 3 records cannot be used", "events.catalog"),
    ),
    # Windows
    "windows_of_other_settings": Broken(
        lambda w: w.settings(w.folded("other", fingerprint="{}")),
        ("windows",),
        *("windows", "problem", "folded under other settings", "take the settings back"),
    ),
    "windows_past_the_logs_end": Broken(
        lambda w: w.settings(w.folded("past", next_offset=41)),
        ("windows",),
        *("windows", "problem", "end at offset 41, the log holds 0 to 40", "--into 1"),
    ),
    "windows_of_a_topic_that_was_made_again": Broken(
        made_again,
        ("windows",),
        *("windows", "problem", "deleted and made again", "--into 1"),
    ),
    "windows_of_a_topic_that_is_gone": Broken(
        gone,
        ("windows",),
        *("windows", "problem", "there is no such partition", "--into GENERATION"),
    ),
    "books_of_dead_letters": Broken(
        mostly_dead,
        ("books",),
        *(
            "books",
            "warning",
            "40 read = 10 applied + 0 duplicate",
            "3 x MissingField: events.orders",
        ),
    ),
    # Redis
    "no_redis": Broken(
        lambda w: w.settings(BAD_REDIS),
        ("redis", "clock"),
        *("redis", "problem", "Redis at 127.0.0.1:1 does not answer", "redis.url"),
    ),
    "a_redis_that_is_silent": Broken(
        lambda w: w.settings({"redis": {"url": f"redis://127.0.0.1:{w.silent()}/0"}}),
        ("redis",),
        *("redis", "problem", "does not answer", "redis.url"),
    ),
    "a_wrong_password_of_redis": Broken(
        lambda w: w.settings(w.redis(":wrong@", requirepass="right")),
        ("redis",),
        *("redis", "problem", "does not let us in", "redis://USER:PASSWORD@"),
    ),
    "no_password_for_redis": Broken(
        lambda w: w.settings(w.redis(requirepass="right")),
        ("redis",),
        *("redis", "problem", "does not let us in", "redis://USER:PASSWORD@"),
    ),
    "a_database_that_redis_does_not_have": Broken(
        lambda w: w.settings(w.redis(database=99)),
        ("redis",),
        *("redis", "problem", "no such database", "redis.url ends with its number"),
    ),
    "an_empty_database_beside_a_full_one": Broken(
        other_database,
        ("redis",),
        *("redis", "warning", "database 3 is empty, and others are not: 0 (1 keys)", "redis.url"),
    ),
    "a_redis_that_evicts": Broken(
        lambda w: w.settings(w.redis(maxmemory_policy="volatile-ttl")),
        ("redis",),
        *("redis", "problem", "evicts keys (maxmemory-policy volatile-ttl)", "noeviction"),
    ),
    "a_redis_that_keeps_nothing": Broken(
        lambda w: w.settings(w.redis()),
        ("redis",),
        *("redis", "warning", "keeps nothing on disk", "appendonly yes"),
    ),
    "a_redis_that_is_nearly_full": Broken(
        nearly_full,
        ("redis",),
        *("redis", "warning", "of 16 MB are used", "raise maxmemory"),
    ),
    "a_node_of_a_cluster": Broken(
        lambda w: w.settings(w.redis(cluster_enabled="yes")),
        ("redis",),
        *("redis", "problem", "a node of a Redis Cluster", "redis.cluster = true"),
    ),
    "a_cluster_that_is_none": Broken(
        lambda w: w.settings(w.redis(), {"redis": {"cluster": True}}),
        ("redis",),
        *("redis", "problem", "Cluster mode is not enabled", "redis.cluster"),
    ),
    "a_replica": Broken(
        lambda w: w.settings(w.redis(replicaof="127.0.0.1 1", replica_serve_stale_data="yes")),
        ("redis",),
        *("redis", "problem", "this is a replica of 127.0.0.1:1", "name the master"),
    ),
    # This machine
    "a_port_that_is_taken": Broken(
        lambda w: w.settings({"dashboard": {"port": w.taken()}}),
        ("ports",),
        *("ports", "problem", "of dashboard is taken by another program", "another port"),
    ),
    "a_port_that_says_nothing": Broken(
        lambda w: w.settings({"ingest": {"http_port": w.silent()}}),
        ("ports",),
        *("ports", "problem", "of ingest is taken by another program", "another port"),
    ),
    "a_registry_that_cannot_be_written": Broken(
        below_a_file,
        ("registry",),
        *("registry", "problem", "learn cannot write to", "mend the rights"),
    ),
    "half_a_version": Broken(
        half_a_version,
        ("registry",),
        *("registry", "warning", "v0007-20260101T000000Z-00000000 is passed over", "model verify"),
    ),
    "an_altered_champion": Broken(
        altered_champion,
        ("weights",),
        *("weights", "problem", "config.json", ""),
    ),
    "no_weights": Broken(
        lambda w: w.settings({"worker": {"weights": str(w.folder / "none")}}),
        ("weights",),
        *("weights", "problem", "none", ""),
    ),
    "half_a_file_of_weights": Broken(
        cut_weights,
        ("weights",),
        *("weights", "problem", "model.safetensors", ""),
    ),
    "a_horizon_beyond_any_weights": Broken(
        lambda w: w.settings(
            {"worker": {"resolution_ms": HOUR_MS, "prediction_length": 2_000}},
        ),
        ("weights",),
        *("weights", "problem", "2000 steps of 3600000 ms", "prediction_length"),
    ),
    "a_gpu_that_is_not_there": Broken(
        lambda w: w.settings({"worker": {"device": "cuda:7"}}),
        ("device",),
        *("device", "problem", "'cuda:7' was asked for", "worker.device"),
    ),
    "a_device_that_nobody_knows": Broken(
        lambda w: w.settings({"learn": {"device": "gpu"}}),
        ("device",),
        *("device", "problem", "there is no device 'gpu'", "learn.device"),
    ),
}
