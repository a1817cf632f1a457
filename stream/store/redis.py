"""Windows in Redis, as their one writer sees them: headers, and the calls claim, apply and idle."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

import redis

from freshet.stream.errors import FingerprintError, LogLostError, StoreError
from freshet.stream.store.connection import translated
from freshet.stream.store.format import check_format
from freshet.stream.store.generation import NEW_GENERATION_HINT
from freshet.stream.store.layout import Answer, Header, Keys, Update, partitions_key
from freshet.stream.store.script import Script
from freshet.stream.store.tiles import CHUNK_ITEMS

MAX_KEYS_A_READ: Final = 512
MAX_FIELDS_A_CALL: Final = 5_000


class WindowStore:
    """Windows of one generation, as their one writer sees them.

    Every call blocks for one round trip.
    """

    def __init__(self, client: redis.Redis, generation: int) -> None:
        self.generation = generation
        self._client = client
        self._scripts = {name: Script(client, name) for name in ("claim", "apply", "idle")}

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
            said = self._scripts["apply"]([keys.header], update.arguments(keys.prefix))
        return Answer(said.decode())

    def declare_idle(
        self, topic: str, partition: int, header: Header, idle_frontier_ms: int
    ) -> Answer:
        """Raise the idle frontier under the header's epoch; the offset stays."""
        offset = "" if header.next_offset is None else header.next_offset
        args = [header.epoch, header.owner, offset, idle_frontier_ms]
        with translated(self._client):
            said = self._scripts["idle"]([self.keys(topic, partition).header], args)
        return Answer(said.decode())

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
            for slot in range(wanted):
                item_id = slots.get(b"%d" % slot)
                if item_id is None:
                    place = f"{keys.dictionary(chunk)} lacks slot {slot}"
                    text = f"the item dictionary is damaged: {place}, expected {wanted} slots"
                    raise StoreError(text)
                item_ids.append(item_id.decode())
        return item_ids

    def redriven(self, topic: str, partition: int, names: Sequence[bytes]) -> set[bytes]:
        """Which of these redrive headers were judged before."""
        if not names:
            return set()
        with translated(self._client):
            found = self._client.smismember(self.keys(topic, partition).redrives, list(names))
        return {name for name, known in zip(names, found, strict=True) if known}

    def loaded(self, topic: str, partition: int, loads: Sequence[bytes]) -> dict[bytes, int]:
        """The highest sequence judged of each of these loads of history, where there is one."""
        key = self.keys(topic, partition).loads
        (found,) = self.read_fields([(key, loads)]) if loads else ([],)
        pairs = zip(loads, found, strict=True)
        return {load: int(sequence) for load, sequence in pairs if sequence is not None}

    def minutes(self, topic: str, partition: int) -> list[int]:
        """The dedupe minutes that are stored, sorted."""
        with translated(self._client):
            members: Any = self._client.zrange(self.keys(topic, partition).retained, 0, -1)
        return sorted(int(member[2:]) for member in members if member.startswith(b"u:"))

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

    def read_fields(self, asked: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[bytes | None]]:
        """Values of fields of hashes, None where there is none, in one round trip."""
        if not asked:
            return []
        calls = self._client.pipeline(transaction=False)
        sizes = []
        for key, fields in asked:
            starts = range(0, len(fields), MAX_FIELDS_A_CALL)
            sizes.append(len(starts))
            for start in starts:
                calls.hmget(key, list(fields[start : start + MAX_FIELDS_A_CALL]))
        with translated(self._client):
            replies = iter(calls.execute())
        return [list(chain.from_iterable(islice(replies, size))) for size in sizes]


def _other_settings(
    topic: str, partition: int, stored: str, ours: str, generation: int
) -> StoreError:
    check_format(stored, generation)
    return FingerprintError(
        f"the windows of {topic} partition {partition} were folded under other settings: "
        f"{_difference(stored, ours)}",
        hint=f"`freshet ingest --from-beginning --into {generation + 1}` folds the log anew under "
        "these settings while the old windows stay in use; or take the settings back",
    )


def _other_topic(topic: str, partition: int, stored: str, ours: str) -> LogLostError:
    return LogLostError(
        f"{topic}:{partition}: the windows were folded from topic id {stored}, and {topic} is now "
        f"{ours}: it was deleted and made again, so offsets no longer mean the same records",
        hint=NEW_GENERATION_HINT,
    )


def _difference(stored: str, ours: str) -> str:
    try:
        then, now = json.loads(stored), json.loads(ours)
    except ValueError:
        return f"stored {stored!r}, ours {ours!r}"
    return ", ".join(_changes(then, now))


def _changes(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """What differs, down to the fields of a map."""
    for name in sorted({*then, *now}):
        old, new = then.get(name), now.get(name)
        tables = [one for one in (old, new) if isinstance(one, dict)]
        if tables and all(one is None or isinstance(one, dict) for one in (old, new)):
            yield from _changes(old or {}, new or {}, f"{prefix}{name}.")
        elif old != new:
            was, now_is = ("not set" if one is None else one for one in (old, new))
            yield f"{prefix}{name} was {was}, is {now_is}"
