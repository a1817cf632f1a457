"""The only door to Redis for writing windows: keys, header, and three atomic calls (claim, apply,
declare idle).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from freshet.stream.config import RedisSettings
from freshet.stream.errors import (
    FingerprintError,
    LogLostError,
    StoreError,
    StoreUnavailableError,
    StoreUnfitError,
)
from freshet.stream.store.layout import (
    Answer,
    Header,
    Keys,
    MinuteAppend,
    TileWrites,
    Update,
    partitions_key,
)
from freshet.stream.store.tiles import CHUNK_ITEMS

__all__ = [
    "Answer",
    "Header",
    "Keys",
    "MinuteAppend",
    "TileWrites",
    "Update",
    "WindowStore",
    "check_fit",
    "connect",
    "partitions_key",
    "translated",
]

GENERATION_KEY: Final = "freshet:generation"
NEW_GENERATION_HINT: Final = (
    "fold what the log still holds into new windows with `freshet ingest --from-beginning "
    "--into GENERATION`, "
    "or bring back the Redis or the topic that belong together"
)
MINIMUM_VERSION: Final = (6, 2)
MAX_KEYS_A_READ: Final = 512
_LUA = Path(__file__).parent / "lua"


def connect(settings: RedisSettings) -> redis.Redis:
    """A checked connection without retries: the expected offset decides what a lost answer meant.

    To a Redis Cluster it is another class that is used the same: all keys of a partition share a
    slot, and what reads several partitions asks each node for its own.

    Raises:
        StoreUnavailableError: Redis does not answer; the message shows the address without its
            password.
    """
    url = settings.url.get_secret_value()
    timeout_s = settings.timeout_ms / 1_000
    try:
        client = _client(url, timeout_s, cluster=settings.cluster)
    except ValueError as error:
        raise StoreError(f"redis.url {_address(url)!r} is not a Redis address: {error}") from None
    except redis.exceptions.RedisClusterException as error:
        raise StoreUnavailableError(
            f"the Redis Cluster at {_address(url)} does not answer: {error}",
            hint="is it running, is redis.url one of its nodes, and is redis.cluster right?",
        ) from None
    with translated(client):
        client.ping()
    return client


def _client(url: str, timeout_s: float, *, cluster: bool) -> redis.Redis:
    timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    none = Retry(NoBackoff(), 0)
    if cluster:
        return cast(
            redis.Redis, redis.RedisCluster.from_url(url, **timeouts, retry=none, protocol=2)
        )
    return redis.Redis.from_url(url, **timeouts, retry=none, retry_on_error=[], protocol=2)


def check_fit(client: redis.Redis) -> None:
    """Say whether windows may live in this Redis.

    Raises:
        StoreUnfitError: It is too old, evicts keys, or runs no scripts.
        StoreUnavailableError: It does not answer.
    """
    with translated(client):
        cluster = _cluster(client)
        for info in (
            [client.info()] if cluster is None else cluster.info(target_nodes="all").values()
        ):
            _check_node(info)
        try:
            client.eval("return 1", 0)
        except redis.ResponseError as error:
            raise StoreUnfitError(
                f"Redis runs no scripts ({error})",
                hint="allow EVAL, EVALSHA and SCRIPT LOAD to this user",
            ) from None


def current_generation(client: redis.Redis, configured: int) -> int:
    """The generation that readers read: the newest that was built beside another and made current,
    or as configured.

    Raises:
        StoreError: The key holds something else.
    """
    with translated(client):
        said: Any = client.get(GENERATION_KEY)
    return later_generation(said, configured)


def later_generation(said: bytes | None, configured: int) -> int:
    """The later of the one that is configured and the one that the key in Redis names.

    >>> later_generation(b"3", 0), later_generation(None, 2)
    (3, 2)
    """
    if said is not None and not said.isdigit():
        raise StoreError(
            f"Redis key {GENERATION_KEY} holds {said[:40]!r}",
            hint="set it to a generation's number",
        )
    return max(configured, int(said or 0))


def make_current(client: redis.Redis, generation: int) -> None:
    """Switch readers to a generation, all with their next look; a later generation stays
    current.
    """
    with translated(client):
        client.eval(_RAISE, 1, GENERATION_KEY, generation)


_RAISE = (_LUA / "raise.lua").read_text("utf-8")


def _check_node(info: dict[str, Any]) -> None:
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_VERSION:
        raise StoreUnfitError(
            f"Redis {version} is too old", hint="use Redis 6.2 or newer, or Valkey"
        )
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise StoreUnfitError(
            f"Redis evicts keys (maxmemory-policy {policy}), so windows could vanish",
            hint="set maxmemory-policy noeviction",
        )


class WindowStore:
    """Windows of one generation, as their one writer sees them. Every call blocks for one round
    trip.
    """

    def __init__(self, client: redis.Redis, generation: int) -> None:
        self.generation = generation
        self._client = client
        self._scripts = {name: _Script(client, name) for name in ("claim", "apply", "idle")}

    def keys(self, topic: str, partition: int) -> Keys:
        return Keys(self.generation, topic, partition)

    def claim(self, topic: str, partition: int, fingerprint: str, topic_id: str = "") -> Header:
        """Become the partition's owner: the epoch rises and all earlier owners are fenced.

        Durable effects, in order: the partition is listed, then the header is claimed.

        Raises:
            FingerprintError: Its windows were folded under other settings; nothing was claimed.
            LogLostError: They were folded from another topic of that name, deleted since; nothing
                was claimed.
        """
        keys = self.keys(topic, partition)
        with translated(self._client):
            self._client.sadd(partitions_key(self.generation), f"{topic}:{partition}")
            reply = self._scripts["claim"](
                [keys.header], [fingerprint, secrets.token_hex(8), topic_id]
            )
        if reply[0] == b"REFUSED":
            raise _other_settings(topic, partition, reply[1].decode(), fingerprint, self.generation)
        if reply[0] == b"RECREATED":
            raise _other_topic(topic, partition, reply[1].decode(), topic_id)
        return Header.parse(dict(zip(reply[1::2], reply[2::2], strict=True)))

    def check(
        self, topic: str, partition: int, fingerprint: str, topic_id: str = ""
    ) -> Header | None:
        """The stored header, refused for the same reasons as `claim` refuses it; changes nothing.

        Raises:
            FingerprintError, LogLostError: See `claim`.
        """
        header = self.header(topic, partition)
        if header is None or header.next_offset is None:
            return header
        if header.fingerprint != fingerprint:
            raise _other_settings(
                topic, partition, header.fingerprint, fingerprint, self.generation
            )
        if topic_id and header.topic_id and topic_id != header.topic_id:
            raise _other_topic(topic, partition, header.topic_id, topic_id)
        return header

    def apply(self, update: Update) -> Answer:
        """Write one batch, whole or not at all; calling again with the same update is harmless.

        Raises:
            StoreUnavailableError: No answer; the write may or may not have happened, so call again
                or claim again.
            StoreError: The stored windows are damaged; nothing was written.
        """
        keys = self.keys(update.topic, update.partition)
        with translated(self._client):
            return Answer(
                self._scripts["apply"]([keys.header], update.arguments(keys.prefix)).decode()
            )

    def declare_idle(
        self, topic: str, partition: int, header: Header, idle_frontier_ms: int
    ) -> Answer:
        """Raise the idle frontier under the header's epoch; never lowers it, never moves the
        offset.
        """
        offset = "" if header.next_offset is None else header.next_offset
        args = [header.epoch, header.owner, offset, idle_frontier_ms]
        with translated(self._client):
            return Answer(
                self._scripts["idle"]([self.keys(topic, partition).header], args).decode()
            )

    def header(self, topic: str, partition: int) -> Header | None:
        """The stored header, or None when the partition was never claimed."""
        with translated(self._client):
            fields: dict[Any, Any] = self._client.hgetall(self.keys(topic, partition).header)
        return Header.parse(fields) if fields else None

    def partitions(self) -> list[tuple[str, int]]:
        """Every partition that was ever claimed, sorted."""
        with translated(self._client):
            members: set[Any] = self._client.smembers(partitions_key(self.generation))
        named = [member.decode().rpartition(":") for member in members]
        return sorted((topic, int(partition)) for topic, _, partition in named)

    def dictionary(self, topic: str, partition: int, items: int) -> list[str]:
        """The first `items` item ids, in slot order.

        Raises:
            StoreError: Some are not there.
        """
        keys = self.keys(topic, partition)
        item_ids: list[str] = []
        for chunk in range(-(-items // CHUNK_ITEMS)):
            with translated(self._client):
                slots: dict[Any, Any] = self._client.hgetall(keys.dictionary(chunk))
            wanted = min(CHUNK_ITEMS, items - chunk * CHUNK_ITEMS)
            try:
                item_ids += [slots[b"%d" % slot].decode() for slot in range(wanted)]
            except KeyError as error:
                place = f"{keys.dictionary(chunk)} lacks slot {error}"
                raise StoreError(
                    f"the item dictionary is damaged: {place}, expected {wanted} slots"
                ) from None
        return item_ids

    def redriven(self, topic: str, partition: int, names: Sequence[bytes]) -> set[bytes]:
        """Which of these redrive headers were judged before."""
        if not names:
            return set()
        with translated(self._client):
            found = self._client.smismember(self.keys(topic, partition).redrives, list(names))
        return {name for name, known in zip(names, found, strict=True) if known}

    def memory_bytes(self) -> int:
        """What this Redis uses in all, by its own account; 0 where it does not say."""
        with translated(self._client):
            found: dict[str, Any] = self._client.info("memory")
        return int(found.get("used_memory", 0))

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """Values of string keys, None where there is none, in bounded calls."""
        values: list[bytes | None] = []
        for start in range(0, len(keys), MAX_KEYS_A_READ):
            with translated(self._client):
                values += self._client.mget(keys[start : start + MAX_KEYS_A_READ])  # type: ignore[arg-type]
        return values


class _Script:
    """EVALSHA, loading the text again where Redis has forgotten it."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self._client = client
        self._text = (_LUA / f"{name}.lua").read_text("utf-8")
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: list[str], args: list[Any]) -> Any:
        try:
            return self._client.evalsha(self._sha, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            self._client.script_load(self._text)
            return self._client.evalsha(self._sha, len(keys), *keys, *args)


@contextmanager
def translated(client: redis.Redis) -> Iterator[None]:
    """Redis' errors as ours."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailableError(
            f"Redis at {_address_of(client)} does not answer: {error}",
            hint="is it running, and is redis.url right?",
        ) from None
    except redis.exceptions.OutOfMemoryError as error:
        raise StoreUnavailableError(
            f"Redis at {_address_of(client)} is full: {error}",
            hint="raise maxmemory; nothing was written",
        ) from None
    except redis.exceptions.ReadOnlyError as error:
        raise StoreUnavailableError(
            f"Redis at {_address_of(client)} is a replica now: {error}"
        ) from None
    except (redis.exceptions.ClusterDownError, redis.exceptions.TryAgainError) as error:
        raise StoreUnavailableError(
            f"Redis at {_address_of(client)} moves its keys: {error}"
        ) from None
    except redis.RedisError as error:
        raise StoreError(f"Redis at {_address_of(client)} refused a call: {error}") from None


def _address_of(client: redis.Redis) -> str:
    cluster = _cluster(client)
    if cluster is not None:
        return "the cluster of " + ", ".join(sorted(node.name for node in cluster.get_nodes()))  # type: ignore[no-untyped-call]
    options = client.connection_pool.connection_kwargs
    return str(
        options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    )


def _cluster(client: Any) -> redis.RedisCluster | None:
    return client if isinstance(client, redis.RedisCluster) else None


def _address(url: str) -> str:
    """An address without user and password.

    >>> _address("redis://me:secret@shop:6379/0")
    'redis://shop:6379/0'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _other_settings(
    topic: str, partition: int, stored: str, ours: str, generation: int
) -> FingerprintError:
    return FingerprintError(
        f"the windows of {topic} partition {partition} were folded under other settings: "
        f"{_difference(stored, ours)}",
        hint=f"`freshet ingest --from-beginning --into {generation + 1}` folds the log anew "
        "under these settings while "
        "the old windows stay in use; or take the settings back",
    )


def _other_topic(topic: str, partition: int, stored: str, ours: str) -> LogLostError:
    return LogLostError(
        f"{topic}:{partition}: the windows were folded from topic id {stored}, and {topic} is "
        f"now {ours}: "
        "it was deleted and made again, so offsets no longer mean the same records",
        hint=NEW_GENERATION_HINT,
    )


def _difference(stored: str, ours: str) -> str:
    try:
        then, now = json.loads(stored), json.loads(ours)
    except ValueError:
        return f"stored {stored!r}, ours {ours!r}"
    changed = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    return ", ".join(f"{name} was {then.get(name)}, is {now.get(name)}" for name in changed)
