"""The faults, each a few lines: what is done to a shop while it ingests."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable

from freshet.stream.errors import BrokerError
from freshet.stream.kafka import Publisher
from tests.integration.faults.world import RECORDS, Broker, HurtRedis, World
from tests.integration.messy_log import START_MS, order_value, state_value
from tests.integration.shop import wait_for

Fault = Callable[[World], None]
FAILPOINTS = ("after_dead_letters", "before_apply", "after_apply", "before_notice")
PARTS = 4


def sigkill_at_random(world: World) -> None:
    """Ingest is killed by SIGKILL at random moments while records come."""
    for _ in range(PARTS):
        world.send(RECORDS)
        child = world.start()
        time.sleep(world.rng.uniform(0.9, 2.0))
        child.kill()


def sigkill_at_failpoints(world: World) -> None:
    """Ingest is killed at each named point between two durable effects."""
    for name in FAILPOINTS:
        world.send(RECORDS)
        child = world.start(FRESHET_FAILPOINT=f"{name}:{world.rng.randint(1, 3)}")
        wait_for(lambda child=child: not child.alive)
        assert child.process.returncode == -signal.SIGKILL, world.tail()


def zombie_after_sigstop(world: World) -> None:
    """An ingest is stopped past its session, another takes over, and then the first wakes up."""
    with world.ingesting() as zombie:
        world.send(RECORDS)
        zombie.signal(signal.SIGSTOP)
        world.send(RECORDS)
        before = world.read()
        world.start(FRESHET_KAFKA__GROUP_INSTANCE_ID="b")
        wait_for(lambda: world.read() > before)
        owners = {header.owner for header in world.headers()}
        zombie.signal(signal.SIGCONT)
        world.send(RECORDS)
        wait_for(lambda: world.read() >= before + RECORDS)
        world.notes["owners"] = len(owners)


def two_forced_owners(world: World) -> None:
    """Two processes own every partition, in two groups: the newer claim wins, nothing twice."""
    with world.ingesting():
        other = world.start(
            FRESHET_KAFKA__GROUP_PREFIX=world.environ["FRESHET_KAFKA__GROUP_PREFIX"] + ".other"
        )
        for _ in range(PARTS):
            world.send(RECORDS)
        wait_for(lambda: world.read() >= RECORDS * PARTS)
        wait_for(lambda: other.said("fenced") > 0)


def redis_sigkill(world: World) -> None:
    """Redis dies with up to a second of writes, and comes back older."""
    with world.ingesting():
        for _ in range(2):
            world.send(RECORDS)
            world.redis.kill()
            time.sleep(world.rng.uniform(0, 0.5))
            world.redis.start()


def redis_file_truncated(world: World) -> None:
    """Redis dies and its append-only file ends at a random byte."""
    with world.ingesting():
        world.send(RECORDS)
        wait_for(lambda: world.read() > RECORDS)
        world.redis.kill()
        world.notes["lost_bytes"] = world.redis.truncate(world.rng)
        world.redis.start()
        world.send(RECORDS)


def redis_flushall(world: World) -> None:
    """Somebody empties Redis."""
    with world.ingesting():
        world.send(RECORDS)
        world.redis.client().flushall()
        world.send(RECORDS)


def redis_stall(world: World) -> None:
    """Redis does not answer for three seconds, three times its clients' patience."""
    with world.ingesting():
        world.redis.process.send_signal(signal.SIGSTOP)
        world.send(RECORDS)
        time.sleep(3)
        world.redis.process.send_signal(signal.SIGCONT)


def replica_promoted_with_lag(world: World) -> None:
    """The replica that is promoted has not seen the newest writes."""
    replica = HurtRedis(world.folder / "replica", appendonly="no")
    try:
        replica.client().replicaof("127.0.0.1", world.redis.port)  # type: ignore[no-untyped-call]
        wait_for(lambda: replica.client().info("replication")["master_link_status"] == "up")
        with world.ingesting():
            wait_for(lambda: replica.client().dbsize() > 0)
            replica.client().replicaof("NO", "ONE")  # type: ignore[no-untyped-call]
            world.send(2 * RECORDS)
            wait_for(lambda: world.read() > RECORDS)
            world.proxy.turn(replica.port)
            world.send(RECORDS)
    finally:
        world.redis, old = replica, world.redis
        old.kill()


def redis_network_cut(world: World) -> None:
    """The connection between ingest and Redis breaks at random moments."""
    with world.ingesting():
        for _ in range(3):
            world.send(RECORDS)
            world.proxy.cut()
            time.sleep(world.rng.uniform(0.1, 1.0))
            world.proxy.mend()


def redis_out_of_memory(world: World) -> None:
    """Redis reaches maxmemory; ingest waits until there is more."""
    with world.ingesting() as child:
        world.redis.client().config_set("maxmemory", "1mb")
        world.send(2 * RECORDS)
        wait_for(lambda: child.said("is full") > 0)
        world.redis.client().config_set("maxmemory", "0")


def broker_sigkill(world: World) -> None:
    """Kafka is killed by SIGKILL and started again."""
    with world.ingesting():
        world.broker.restart()
        world.send(2 * RECORDS)


def broker_stall(world: World) -> None:
    """Kafka does not answer for four seconds."""
    with world.ingesting():
        world.broker.signal(signal.SIGSTOP)
        time.sleep(4)
        world.broker.signal(signal.SIGCONT)
        world.send(2 * RECORDS)


def rebalance_storm(world: World) -> None:
    """A second process joins and leaves again and again."""
    own = {"FRESHET_KAFKA__GROUP_INSTANCE_ID": ""}
    with world.ingesting(**own):
        for _ in range(3):
            other = world.start(**own)
            world.send(RECORDS)
            time.sleep(2)
            other.signal(signal.SIGTERM)
            other.process.wait(180)


def poison(world: World) -> None:
    """Half of the log is random bytes and mutated events; not one may fail its batch."""
    with world.ingesting(mutated):
        world.send(3 * RECORDS, mutated)
        wait_for(lambda: world.read() >= 4 * RECORDS)


def mutated(rng: random.Random) -> bytes:
    """Random bytes, or an order with some bytes changed, and perhaps cut."""
    kind = rng.random()
    if kind < 0.3:
        return rng.randbytes(rng.randrange(200))
    make = rng.choice((order_value, state_value))
    value = bytearray(make(rng, rng.randrange(10**6), START_MS + rng.randrange(10**7)))
    for _ in range(rng.randint(1, 4)):
        value[rng.randrange(len(value))] = rng.randrange(256)
    if kind < 0.5:
        del value[rng.randrange(len(value)) :]
    return bytes(value)


FAULTS: tuple[Fault, ...] = (
    sigkill_at_random,
    sigkill_at_failpoints,
    zombie_after_sigstop,
    two_forced_owners,
    redis_sigkill,
    redis_file_truncated,
    redis_flushall,
    redis_stall,
    replica_promoted_with_lag,
    redis_network_cut,
    redis_out_of_memory,
    broker_sigkill,
    broker_stall,
    rebalance_storm,
    poison,
)


def fill_disk(world: World, broker: Broker, mount: str) -> None:
    """The broker's disk is full; somebody makes room, and it is started again.

    Args:
        world: The shop.
        broker: Its broker, with its data on a file system of its own.
        mount: Where that is.
    """
    with world.ingesting():
        filler = f"{mount}/filler"
        free = os.statvfs(mount)
        room = free.f_bavail * free.f_frsize
        subprocess.run(["fallocate", "-l", str(max(room - 200_000, 1)), filler], check=True)
        world.notes["died"] = False
        try:
            _send_until_refused(world, broker)
        finally:
            os.unlink(filler)
        world.notes["died"] = not broker.alive
        broker.restart()
        world.send(RECORDS)


def _send_until_refused(world: World, broker: Broker) -> None:
    topic = world.settings.kafka.topics.clicks
    for number in range(40):
        if not broker.alive:
            return
        try:
            with Publisher(world.settings) as publisher:
                for n in range(20):
                    value = world.rng.randbytes(10_000)
                    publisher.produce(
                        topic, value, partition=0, timestamp_ms=START_MS + number * 20 + n
                    )
                publisher.flush(3_000)
        except BrokerError:
            return
    raise AssertionError("the disk was never full")
