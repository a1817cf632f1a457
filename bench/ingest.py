"""The same shop events through freshet and four streaming frameworks: CPU-seconds an event.

freshet runs as it ships (`freshet ingest`): exactly once into Redis, duplicates, dead letters, late
records, four widths of window. The others do the nearest thing each can, with their own windows and
state, each in its own process. What each did not do stands in the result. A real Kafka where
KAFKA_HOME names one, else the broker inside librdkafka. CPU is the process's own, all its threads,
as the OS counts it, after a warm-up. Beside them: orders by a shop's own names, nested as Shopify
sends them, and as states; and another checkout's ingest over the same topics, in turns with ours.

Run: python -m bench.ingest [--events N] [--only freshet,quix] [--cache FOLDER] [--against CHECKOUT]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import psutil

from bench.maps import MAPPED, SHOPIFY, START_MS, Record, default, flat, shopify
from bench.report import write_result
from bench.shop_log import ChangingOrders, Kind, ShopLog, publish
from freshet.stream.config import EventSettings, Settings, load
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.ingest.poll import SLICE_RECORDS
from freshet.stream.ingest.process import GC_THRESHOLDS
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.kafka.servers import EmbeddedBroker, RealKafka
from freshet.stream.schemas import ClickEvent, OrderEvent
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import OUTCOMES
from freshet.stream.store.redis import WindowStore
from freshet.stream.store.server import EmbeddedRedis

HERE = Path(__file__).parent
MOCK_EVENTS = 120_000  # The broker inside librdkafka keeps 5 MB a partition.
LONGEST_S = 600.0
LOOK_S = 0.02
DECODED_EVENTS = 200_000
SHAPES_GENERATION, AGAINST_GENERATION = 90, 100
SHAPED_EVENTS = 200_000
TURNS = 3


@dataclass(frozen=True, slots=True)
class Contender:
    """A framework: its script, what it needs, how many events it gets, what it leaves undone."""

    name: str
    script: str
    requirements: tuple[str, ...]
    warm_up: int
    events: int
    did_not: str


CONTENDERS = (
    Contender(
        "pathway",
        "pathway_windows.py",
        ("pathway==0.33.0",),
        warm_up=100_000,
        events=500_000,
        did_not="one width of window instead of four; nothing in Redis, state in memory only; "
        "no duplicates removed; no lateness; a bad record is logged and gone",
    ),
    Contender(
        "quix",
        "quix_windows.py",
        ("quixstreams==3.28.1",),
        warm_up=20_000,
        events=120_000,
        did_not="one width of window instead of four, by message key instead of item; "
        "nothing in Redis, RocksDB and changelog topics; no duplicates removed; "
        "a bad record stops it",
    ),
    Contender(
        "bytewax",
        "bytewax_windows.py",
        ("bytewax[kafka]==0.21.1",),
        warm_up=10_000,
        events=50_000,
        did_not="one width of window instead of four; "
        "nothing in Redis, snapshots in SQLite, output at least once; no duplicates removed; "
        "a bad record stops it",
    ),
    Contender(
        "faust",
        "faust_windows.py",
        (),
        warm_up=2_000,
        events=12_000,
        did_not="one width of window instead of four; "
        "nothing in Redis, memory and a changelog topic, at least once; no duplicates removed; "
        "windows expire by wall clock; a bad record is acknowledged and gone",
    ),
)


@dataclass(frozen=True, slots=True)
class Servers:
    """What a run talks to."""

    settings: Settings
    environ: dict[str, str]
    broker: str
    events: int


# Contenders ---------------------------------------------------------------------------------------


def interpreter(contender: Contender, cache: Path) -> Path:
    """A Python that has what the contender needs: its own environment, kept in the cache."""
    if not contender.requirements:
        return Path(sys.executable)
    folder = cache / contender.name
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *contender.requirements]
        subprocess.run(command, check=True, capture_output=True, text=True)
        (folder / "installed").write_text("\n".join(contender.requirements))
    return python


def script(python: Path, name: str, servers: Servers, warm_up: int, events: int) -> dict[str, Any]:
    """What a script of bench/contenders measured of itself.

    Raises:
        subprocess.SubprocessError: It failed, or took too long.
        ValueError: It ended without a measurement.
    """
    topics = servers.settings.kafka.topics
    places = [servers.settings.kafka.bootstrap_servers, topics.orders, topics.clicks]
    command = [str(python), name, *places, str(warm_up), str(events)]
    # The scripts know nothing of freshet, so its folder is kept off their path.
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=HERE / "contenders",
        env=environ,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"events"')]
    if not lines:
        raise ValueError(f"no measurement; it ended with: {(done.stderr or done.stdout)[-300:]}")
    measured: dict[str, Any] = json.loads(lines[-1])
    return measured


def run_contender(contender: Contender, servers: Servers, cache: Path) -> dict[str, Any]:
    """Its figures, or the reason why there are none."""
    events = min(contender.events, servers.events)
    warm_up = min(contender.warm_up, events // 4)
    try:
        python = interpreter(contender, cache)
        measured = script(python, contender.script, servers, warm_up, events)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        reason = str(getattr(error, "stderr", "") or error).strip()
        return {"name": contender.name, "skipped": reason[-400:]}
    return {"name": contender.name, **figures(measured), "did_not": contender.did_not}


def figures(measured: dict[str, Any]) -> dict[str, Any]:
    """Events a CPU-second and microseconds an event."""
    events, cpu_s, wall_s = measured["events"], measured["cpu_s"], measured["wall_s"]
    return {
        "events": events,
        "events_a_cpu_second": round(events / cpu_s),
        "cpu_us_an_event": round(1e6 * cpu_s / events, 3),
        "wall_us_an_event": round(1e6 * wall_s / events, 3),
    }


# freshet ------------------------------------------------------------------------------------------


def run_freshet(servers: Servers, warm_up: int, generation: int) -> dict[str, Any]:
    """The real command from an empty state to the log's end; CPU from the warm-up to its end."""
    environ = servers.environ | {"FRESHET_REDIS__GENERATION": str(generation)}
    environ["FRESHET_KAFKA__GROUP_PREFIX"] = f"bench{generation}"
    client = connect(servers.settings.redis)
    store = WindowStore(client, generation)
    redis_before = _redis_cpu_s(client)
    child = psutil.Popen(
        [sys.executable, "-m", "freshet", "ingest", "--until-end"],
        env={**os.environ, **environ},
        stderr=subprocess.DEVNULL,
    )
    started: tuple[int, float, float] | None = None
    while started is None:
        time.sleep(LOOK_S)
        cpu_s, wall_s, read = sum(child.cpu_times()[:2]), time.monotonic(), books(store)["read"]
        if read >= warm_up:
            started = read, cpu_s, wall_s
        assert child.poll() is None, "freshet ingest ended before the warm-up was over"
    _, status, used = os.wait4(child.pid, 0)
    assert status == 0, f"freshet ingest ended with {status}"
    wall_s, counted = time.monotonic() - started[2], books(store)
    assert sum(counted[name] for name in OUTCOMES) == counted["read"] == servers.events, counted
    measured = {
        "events": counted["read"] - started[0],
        "wall_s": wall_s,
        "cpu_s": used.ru_utime + used.ru_stime - started[1],
    }
    redis_us = 1e6 * (_redis_cpu_s(client) - redis_before) / servers.events
    client.close()
    return {
        "name": "freshet",
        **figures(measured),
        "books": counted,
        "redis_cpu_us_an_event": round(redis_us, 3),
    }


@dataclass(frozen=True, slots=True)
class Shape:
    """Orders of one form on a topic of their own, and what ingest must be told of it."""

    name: str
    topic: str
    orders: dict[str, Any]
    make: Callable[[int], Iterator[Keyed]]


Keyed = tuple[bytes, bytes, int]
"""Key, value, timestamp in ms."""


def made_by(form: Callable[[int, random.Random], Record]) -> Callable[[int], Iterator[Keyed]]:
    """Records of one of bench/maps' forms, keyed by their number."""

    def records(events: int) -> Iterator[Keyed]:
        draw = random.Random(1)
        for number in range(events):
            at_ms = START_MS + number
            yield b"%012d" % number, json.dumps(form(number, draw)).encode(), at_ms

    return records


def changing(events: int) -> Iterator[Keyed]:
    """Orders that say what they are, a third of them changes."""
    return ChangingOrders(events).records()


SHAPES = (
    Shape("orders of default fields", "bench.default", {}, made_by(default)),
    Shape("orders by a flat map", "bench.flat", {"fields": MAPPED}, made_by(flat)),
    Shape(
        "orders as Shopify nests them",
        "bench.shopify",
        {"fields": SHOPIFY, "skip_when": {"test": True}},
        made_by(shopify),
    ),
    Shape("orders as states", "bench.states", {"mode": "state"}, changing),
)


def run_shape(servers: Servers, shape: Shape, generation: int) -> dict[str, Any]:
    """What the real command spends on orders of this shape; no clicks."""
    environ = servers.environ | {
        "FRESHET_KAFKA__TOPICS__ORDERS": shape.topic,
        "FRESHET_KAFKA__TOPICS__CLICKS": "bench.none",
    }
    for name, value in shape.orders.items():
        text = value if isinstance(value, str) else json.dumps(value)
        environ[f"FRESHET_EVENTS__ORDERS__{name.upper()}"] = text
    settings = load(environ=environ).settings
    ensure_topics(settings, live=False)
    events, num_bytes = min(servers.events, SHAPED_EVENTS), 0
    with Publisher(settings) as publisher:
        for key, value, at_ms in shape.make(events):
            publisher.produce(shape.topic, value, key=key, timestamp_ms=at_ms)
            num_bytes += len(value)
        publisher.flush()
    own = Servers(settings, environ, servers.broker, events)
    row = run_freshet(own, events // 5, generation)
    mean_bytes = num_bytes / events
    row |= {"name": shape.name, "bytes_a_record": round(mean_bytes, 1)}
    return row | {"mb_a_second": round(mean_bytes / row["wall_us_an_event"], 2)}


def run_against(servers: Servers, checkout: Path) -> dict[str, Any]:
    """CPU of whole runs over the same topics, start and all, in turns with another checkout's."""
    spent: dict[str, list[float]] = {"here": [], "there": []}
    for turn in range(TURNS):
        for place, folder in (("here", HERE.parent), ("there", checkout)):
            generation = AGAINST_GENERATION + 2 * turn + (place == "there")
            spent[place].append(_whole_run_s(servers, folder, generation))
    rounded = {place: [round(each, 2) for each in times] for place, times in spent.items()}
    ratio = round(min(spent["here"]) / min(spent["there"]), 3)
    return {"cpu_s": rounded, "here_over_there": ratio, "events": servers.events}


def _whole_run_s(servers: Servers, folder: Path, generation: int) -> float:
    environ = {**os.environ, **servers.environ, "PYTHONPATH": f"{folder}/build/links:{folder}"}
    environ["FRESHET_REDIS__GENERATION"] = str(generation)
    environ["FRESHET_KAFKA__GROUP_PREFIX"] = f"against{generation}"
    command = [sys.executable, "-P", "-m", "freshet", "ingest", "--until-end"]
    child = subprocess.Popen(command, cwd=folder, env=environ, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    assert status == 0, f"freshet ingest of {folder} ended with {status}"
    return used.ru_utime + used.ru_stime


def books(store: WindowStore) -> dict[str, int]:
    """The books of all partitions together."""
    names = ("read", *OUTCOMES)
    headers = [header for place in store.partitions() if (header := store.header(*place))]
    return {name: sum(getattr(header, name) for header in headers) for name in names}


def _redis_cpu_s(client: Any) -> float:
    used = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


# Ceilings -----------------------------------------------------------------------------------------


def decode_alone(log: ShopLog) -> list[dict[str, Any]]:
    """One typed decode a record and nothing else; and freshet's whole way from bytes to columns."""
    values: dict[Kind, list[bytes | None]] = {"orders": [], "clicks": []}
    for kind, _, value, _ in log.records():
        values[kind].append(value)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    found = []
    for name, work in (("decode alone", typed), ("decode to columns", to_columns)):
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        work(values)
        spent = {"cpu_s": time.process_time() - cpu_s, "wall_s": time.perf_counter() - wall_s}
        found.append({"name": name, **figures({"events": log.events, **spent})})
    return found


def typed(values: dict[Kind, list[bytes | None]]) -> None:
    """Decode each record into an object, a thousand at a time."""
    for kind, event in (("orders", OrderEvent), ("clicks", ClickEvent)):
        decode = msgspec.json.Decoder(event).decode
        column = values[kind]
        for start in range(0, len(column), 1_000):
            list(map(decode, column[start : start + 1_000]))


def to_columns(values: dict[Kind, list[bytes | None]]) -> None:
    """Decode records into columns, as many at a time as ingest polls."""
    for kind, column in values.items():
        decoder = EventDecoder(kind, EventSettings())
        for start in range(0, len(column), SLICE_RECORDS):
            part = column[start : start + SLICE_RECORDS]
            decoder.decode(part, [None] * len(part))


# The run ------------------------------------------------------------------------------------------


def start(stack: ExitStack, folder: Path, events: int) -> Servers:
    """A broker with the stream in its topics, and an empty Redis."""
    home = os.environ.get("KAFKA_HOME")
    broker: RealKafka | EmbeddedBroker = (
        RealKafka(Path(home), folder / "kafka") if home else EmbeddedBroker()
    )
    stack.enter_context(broker)
    redis = stack.enter_context(EmbeddedRedis(folder / "redis"))
    environ = {
        "FRESHET_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "FRESHET_REDIS__URL": redis.url,
    }
    settings = load(environ=environ).settings
    ensure_topics(settings, live=False)
    events = events if home else min(events, MOCK_EVENTS)
    publish(ShopLog(events), settings)
    return Servers(settings, environ, "Apache Kafka" if home else "librdkafka's mock", events)


def measure(servers: Servers, only: list[str], cache: Path, repeats: int) -> list[dict[str, Any]]:
    """All rows; freshet before and after the others, so that a machine that slows down is seen."""
    warm_up = servers.events // 5
    rows = decode_alone(ShopLog(min(servers.events, DECODED_EVENTS)))
    alone = script(Path(sys.executable), "consume_alone.py", servers, warm_up, servers.events)
    rows.append({"name": "consume alone", **figures(alone)})
    rows += [run_freshet(servers, warm_up, generation) for generation in range(repeats)]
    chosen = [contender for contender in CONTENDERS if not only or contender.name in only]
    for contender in chosen:
        rows.append(run_contender(contender, servers, cache))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    rows += [
        run_freshet(servers, warm_up, generation) for generation in range(repeats, 2 * repeats)
    ]
    rows += [run_shape(servers, shape, SHAPES_GENERATION + n) for n, shape in enumerate(SHAPES)]
    return rows


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How many times as many events a CPU-second freshet folds; its own slowest run counts."""
    mine = min(row["events_a_cpu_second"] for row in rows if row["name"] == "freshet")
    others = [row for row in rows if "did_not" in row]
    return {row["name"]: round(mine / row["events_a_cpu_second"], 2) for row in others}


def table(rows: list[dict[str, Any]], found: dict[str, float]) -> str:
    """For people."""
    lines = [f"{'':18} {'events/CPU-s':>13} {'us/event':>9}  freshet is"]
    for row in rows:
        if "skipped" in row:
            lines.append(f"{row['name']:18} skipped: {row['skipped'].splitlines()[-1]}")
            continue
        times = f"{found[row['name']]:.1f} x" if row["name"] in found else ""
        lines.append(
            f"{row['name']:18} {row['events_a_cpu_second']:13,} {row['cpu_us_an_event']:9.2f}  "
            f"{times}"
        )
    return "\n".join(lines)


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[], help="contenders; all by default"
    )
    parser.add_argument(
        "--repeats", type=int, default=2, help="runs of freshet before, and again after the others"
    )
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "freshet-bench")
    parser.add_argument("--against", type=Path, help="a checkout whose links are made")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measure, print and write bench/results/ingest.json."""
    arguments = options()
    with ExitStack() as stack, TemporaryDirectory() as folder:
        servers = start(stack, Path(folder), arguments.events)
        rows = measure(servers, arguments.only, arguments.cache, arguments.repeats)
        against = run_against(servers, arguments.against) if arguments.against else None
    found = ratios(rows)
    numbers = {
        "broker": servers.broker,
        "events": servers.events,
        "log": "10,000 items, 30 % orders (5 % of them whole), 5 % duplicates, 2 % late, epoch ms, "
        "4 partitions a topic",
        "rows": rows,
        "freshet_is_times": found,
        "against_another_checkout": against,
    }
    libraries = ["confluent-kafka", "msgspec", "numpy", "redis", "faust-streaming"]
    path = write_result("ingest", numbers, libraries)
    if arguments.json:
        print(json.dumps(numbers, indent=2))
    else:
        print(f"{table(rows, found)}\nwrote {path}")


if __name__ == "__main__":
    main()
