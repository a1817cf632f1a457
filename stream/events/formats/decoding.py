"""The decoder of a topic behind its format: columns of what came, whatever it was wrapped in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from freshet.stream.arrays import Ints
from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.events.columns import Decoded
from freshet.stream.events.decoder import EventDecoder, EventKind
from freshet.stream.events.formats import debezium
from freshet.stream.events.formats.compressed import second_look, unpacked
from freshet.stream.events.formats.opening import Opened, Opener, opener_of
from freshet.stream.events.limits import Refusal, Skipped
from freshet.stream.events.lone_lines import in_own_fields
from freshet.stream.events.redrive import NO_HEADERS, Headers

Values = Sequence[bytes | None]


class DecodedRecords(NamedTuple):
    """Columns, and the keys as the format has them."""

    decoded: Decoded
    keys: Values


class FormatDecoder:
    """Decodes one kind of event in the format of its topic.

    Raises:
        ConfigError: The format's schema cannot be used, or a library is missing.
    """

    def __init__(self, kind: EventKind, settings: Settings) -> None:
        self._kind = kind
        self._max_bytes = settings.kafka.max_record_bytes
        self._opener = opener_of(settings.events.section(kind), settings.kafka)
        self.decoder = EventDecoder(kind, settings.events, self._max_bytes)

    def decode(
        self,
        values: Values,
        keys: Values,
        timestamps_ms: Ints | None = None,
        headers: Mapping[int, Headers] = NO_HEADERS,
    ) -> DecodedRecords:
        """Columns of the good records.

        Raises:
            SchemaRegistryAwayError: A schema is not known yet, and nobody answers.
        """
        if self._opener is None:
            return DecodedRecords(self._plain(values, keys, timestamps_ms, headers), keys)
        opened = self._open(self._opener, values, keys, headers)
        decoded = self.decoder.decode(opened.values, opened.keys, timestamps_ms, headers)
        return DecodedRecords(_corrected(decoded, opened), opened.keys)

    def as_json(
        self, values: Values, keys: Values, headers: Mapping[int, Headers] = NO_HEADERS
    ) -> tuple[Values, Values]:
        """Values and keys as the map sees them, for people; what cannot be opened is no JSON.

        Raises:
            SchemaRegistryAwayError: A schema is not known yet, and nobody answers.
        """
        if self._opener is None:
            return [self._unpacked(value) for value in values], keys
        opened = self._open(self._opener, values, keys, headers)
        return opened.values, opened.keys

    def _unpacked(self, value: bytes | None) -> bytes | None:
        try:
            return unpacked(value, self._max_bytes) or value if value else value
        except EventError:
            return value

    def _open(
        self, opener: Opener, values: Values, keys: Values, headers: Mapping[int, Headers]
    ) -> Opened:
        """All that came in the topic's format; what has our own fields is JSON as it is."""
        places = [n for n in range(len(values)) if not in_own_fields(headers.get(n, ()))]
        found = opener.open(
            [values[n] for n in places],
            [keys[n] for n in places],
            [_as_bytes(headers.get(n, ())) for n in places],
        )
        if len(places) == len(values):
            return found
        opened = Opened(list(values), list(keys), {}, {})
        for place, n in enumerate(places):
            opened.values[n], opened.keys[n] = found.values[place], found.keys[place]
        refused = {places[n]: why for n, why in found.refused.items()}
        return replace(
            opened,
            refused=refused,
            skipped={places[n]: why for n, why in found.skipped.items()},
        )

    def _plain(
        self,
        values: Values,
        keys: Values,
        timestamps_ms: Ints | None,
        headers: Mapping[int, Headers],
    ) -> Decoded:
        """JSON as it is; only what could not be read is looked at again."""
        decoded = self.decoder.decode(values, keys, timestamps_ms, headers)
        if not decoded.refusals:
            return decoded
        look = second_look(values, decoded.refusals, self._kind, self._max_bytes)
        if look is None:
            return decoded
        if look.values:
            unpacked = [look.values.get(n, value) for n, value in enumerate(values)]
            decoded = self.decoder.decode(unpacked, keys, timestamps_ms, headers)
        better = [look.refusals.get(bad.index, bad) for bad in decoded.refusals]
        return replace(decoded, refusals=better)


def _as_bytes(headers: Headers) -> list[tuple[str, bytes | None]]:
    return [(name, said.encode() if isinstance(said, str) else said) for name, said in headers]


def _corrected(decoded: Decoded, opened: Opened) -> Decoded:
    """With what the format says of records that the decoder was not shown."""
    if not opened.refused and not opened.skipped and not decoded.refusals:
        return decoded
    refusals = []
    for bad in decoded.refusals:
        if bad.index in opened.refused:
            refusals.append(Refusal(bad.index, *opened.refused[bad.index]))
        elif bad.index not in opened.skipped:
            refusals.append(_explained(bad, opened))
    skipped = [*decoded.skipped, *(Skipped(n, why) for n, why in opened.skipped.items())]
    skipped.sort(key=lambda one: one.index)
    return replace(decoded, refusals=refusals, skipped=skipped)


def _explained(bad: Refusal, opened: Opened) -> Refusal:
    """With the reason why a deleted row lacks a field, which the map cannot know."""
    value, key = opened.values[bad.index], opened.keys[bad.index]
    if bad.error_class != "MissingField" or not debezium.only_key(value, key):
        return bad
    return replace(bad, message=f"{bad.message}; {debezium.ONLY_KEY}")
