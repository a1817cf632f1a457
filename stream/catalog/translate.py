"""Records of the shop's tables as the shop sends them, to records of ours, before they are used.

Ingest keeps in Redis what comes out here, so that whoever reads there need not translate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.event_settings import MappedKind
from freshet.stream.events.formats.opening import opener_of
from freshet.stream.events.map.tables import TableMap
from freshet.stream.schemas import ShopTable

Headers = Sequence[tuple[str, bytes | None]]

MAPPED: Final[tuple[MappedKind, ...]] = ("catalog", "promotions", "inventory")
"""Tables that a shop may keep as it likes; covariates are made for us."""

_encode = msgspec.json.Encoder().encode


class Told(NamedTuple):
    """A record in our own words; a null value is a tombstone."""

    key: bytes | None
    value: bytes | None


class Translator:
    """Translates the records of all tables; what is ours already passes as it is.

    Raises:
        ConfigError: A map cannot be compiled, or a format's schema cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        events = settings.events
        sections = {kind: events.section(kind) for kind in MAPPED}
        self._openers = {
            kind: opener_of(section, settings.kafka, of_table=True)
            for kind, section in sections.items()
        }
        self._maps = {
            kind: TableMap(kind, events)
            for kind, section in sections.items()
            if section.fields or section.keep_when or section.skip_when
        }

    def read(
        self,
        table: ShopTable,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int = 0,
        headers: Headers = (),
    ) -> Told | None:
        """A record in our own words; None where it is none of ours.

        Raises:
            EventError: It is not what the settings say.
            SchemaRegistryAwayError: A schema is not known yet, and nobody answers.
        """
        if table == "covariates":
            return Told(key, value)
        opener = self._openers[table]
        if opener is not None:
            opened = opener.open([value], [key], [headers])
            if opened.skipped:
                return None
            if opened.refused:
                raise EventError(opened.refused[0][1])
            key, value = opened.keys[0], opened.values[0]
        if value is None or table not in self._maps:
            return Told(key, value)
        fields = self._maps[table].read(value, key, timestamp_ms, headers)
        return None if fields is None else Told(key, _encode(fields))
