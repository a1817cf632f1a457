"""The faults, each a few lines: what is done to a shop while it ingests."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

from tests.integration.faults.world import Broker, HurtRedis, World, wait_for
from tests.integration.test_ingest_kill import START_MS, order_value

Fault = Callable[[World], None]
FAILPOINTS = ("after_dead_letters", "before_apply", "after_apply", "before_notice")
PARTS = 4
RECORDS = 600


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
    world.send(RECORDS)
    with world.ingesting() as zombie:
        world.send(RECORDS)
        zombie.signal(signal.SIGSTOP)
        world.send(RECORDS)
        before = world.read()
        world.start(FRESHET_KAFKA__GROUP_INSTANCE_ID="b")
        wait_for(lambda: world.read() > before)
        owners = {header.owner for header in world._headers()}
        zombie.signal(signal.SIGCONT)
        world.send(RECORDS)
        wait_for(lambda: world.read() >= before + RECORDS)
        world.notes["owners"] = len(owners)


def two_forced_owners(world: World) -> None:
    """Two processes in two groups own every partition at once: the newer claim must win, and
    nothing count twice.
    """
    world.send(RECORDS)
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
    world.send(RECORDS)
    with world.ingesting():
        for _ in range(2):
            world.send(RECORDS)
            world.redis.kill()
            time.sleep(world.rng.uniform(0, 0.5))
            world.redis.start()


def redis_file_truncated(world: World) -> None:
    """Redis dies and its append-only file ends at a random byte."""
    world.send(RECORDS)
    with world.ingesting():
        world.send(RECORDS)
        wait_for(lambda: world.read() > RECORDS)
        world.redis.kill()
        world.notes["lost_bytes"] = world.redis.truncate(world.rng)
        world.redis.start()
        world.send(RECORDS)


def redis_flushall(world: World) -> None:
    """Somebody empties Redis."""
    world.send(RECORDS)
    with world.ingesting():
        world.send(RECORDS)
        world.redis.client().flushall()
        world.send(RECORDS)


def redis_stall(world: World) -> None:
    """Redis does not answer for three seconds, three times its clients' patience."""
    world.send(RECORDS)
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
        world.send(RECORDS)
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
    world.send(RECORDS)
    with world.ingesting():
        for _ in range(3):
            world.send(RECORDS)
            world.proxy.cut()
            time.sleep(world.rng.uniform(0.1, 1.0))
            world.proxy.mend()


def redis_out_of_memory(world: World) -> None:
    """Redis reaches maxmemory; ingest waits until there is more."""
    world.send(RECORDS)
    with world.ingesting() as child:
        world.redis.client().config_set("maxmemory", "1mb")
        world.send(2 * RECORDS)
        wait_for(lambda: child.said("is full") > 0)
        world.redis.client().config_set("maxmemory", "0")


def broker_sigkill(world: World) -> None:
    """Kafka is killed by SIGKILL and started again."""
    world.send(RECORDS)
    with world.ingesting():
        world.broker.restart()
        world.send(2 * RECORDS)


def broker_stall(world: World) -> None:
    """Kafka does not answer for four seconds."""
    world.send(RECORDS)
    with world.ingesting():
        world.broker.signal(signal.SIGSTOP)
        time.sleep(4)
        world.broker.signal(signal.SIGCONT)
        world.send(2 * RECORDS)


def rebalance_storm(world: World) -> None:
    """A second process joins and leaves again and again."""
    world.send(RECORDS)
    own = {"FRESHET_KAFKA__GROUP_INSTANCE_ID": ""}
    with world.ingesting(**own):
        for _ in range(3):
            other = world.start(**own)
            world.send(RECORDS)
            time.sleep(2)
            other.signal(signal.SIGTERM)
            other.process.wait(60)


def poison(world: World) -> None:
    """Half of the log is random bytes and mutated events; not one may fail its batch."""

    def bad(rng: object) -> bytes | None:
        assert rng is world.rng
        kind = world.rng.random()
        if kind < 0.3:
            return world.rng.randbytes(world.rng.randrange(200))
        value = bytearray(
            order_value(
                world.rng, world.rng.randrange(10**6), START_MS + world.rng.randrange(10**7)
            )
        )
        for _ in range(world.rng.randint(1, 4)):
            value[world.rng.randrange(len(value))] = world.rng.randrange(256)
        if kind < 0.5:
            del value[world.rng.randrange(len(value)) :]
        return bytes(value)

    world.send(RECORDS, bad)
    with world.ingesting():
        world.send(3 * RECORDS, bad)
        wait_for(lambda: world.read() >= 4 * RECORDS)


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        *(sigkill_at_random, sigkill_at_failpoints, zombie_after_sigstop, two_forced_owners),
        *(
            redis_sigkill,
            redis_file_truncated,
            redis_flushall,
            redis_stall,
            replica_promoted_with_lag,
        ),
        *(
            redis_network_cut,
            redis_out_of_memory,
            broker_sigkill,
            broker_stall,
            rebalance_storm,
            poison,
        ),
    )
}


def fill_disk(world: World, broker: Broker, mount: str) -> None:
    """The broker's disk, a file system of its own, is full; somebody makes room, and it is started
    again.
    """
    world.send(RECORDS)
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
    from freshet.stream.errors import BrokerError
    from freshet.stream.kafka import Publisher

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
