"""A shop's tables by their maps, as the recount reads them; written apart from what ingest uses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

from freshet.stream.config import Settings
from freshet.stream.event_settings import MappedKind
from freshet.stream.schemas import ShopTable
from freshet.stream.verify import values
from freshet.stream.verify.formats import NothingToSayError, opened
from freshet.stream.verify.map import Headers, Map, Place, ours
from freshet.stream.verify.table import StoredTable, Told
from freshet.stream.verify.values import BadRecordError

TEXTS = {
    "catalog": ("sku", "title", "category", "brand"),
    "promotions": ("promotion_id", "kind", "sku", "category"),
    "inventory": ("sku", "region"),
}
NUMBERS = {"catalog": ("unit_price",), "promotions": ("discount",), "inventory": ("on_hand",)}
TIMES = {
    "catalog": ("launched_at", "announced_at"),
    "promotions": ("starts_at", "ends_at", "announced_at"),
    "inventory": ("as_of", "announced_at"),
}
ATTRIBUTE = "attributes."


class TableReading:
    """Reads what the log of one table says, in the words in which it is stored."""

    def __init__(self, table: ShopTable, settings: Settings) -> None:
        self._settings = settings
        self._section = None
        self._mapped = False
        if table != "covariates":
            section = settings.events.section(cast(MappedKind, table))
            self._section = section
            self._mapped = bool(section.fields or section.keep_when or section.skip_when)
            self._map = Map(cast(MappedKind, table), settings.events)

    def told(
        self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Headers
    ) -> Told | None:
        """A record of the log; None where it is none of ours. What cannot be read says nothing."""
        try:
            read = self._read(key, value, timestamp_ms, headers)
        except BadRecordError:
            return Told(key or b"", b"!", timestamp_ms)
        return None if read is None else Told(read[0] or b"", _canonical(read[1]), timestamp_ms)

    def stored(self, stored: StoredTable) -> StoredTable:
        """What Redis holds, spelled as `told` spells it."""
        versions = {
            offset: told._replace(value=_canonical(told.value))
            for offset, told in stored.versions.items()
        }
        return replace(stored, versions=versions)

    def _read(
        self, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Headers
    ) -> tuple[bytes | None, bytes | None] | None:
        if self._section is None:
            return key, value
        section = self._section
        if section.format != "json" or section.envelope != "none":
            try:
                key, value = opened(section, self._settings, key, value, headers, of_table=True)
            except NothingToSayError:
                return None
        if value is None or not self._mapped:
            return key, value
        record = _object(value)
        if section.skip_when and ours(section.skip_when, record, every=False):
            return None
        if section.keep_when and not ours(section.keep_when, record, every=True):
            return None
        fields = self._fields(Place(record, key, headers, timestamp_ms))
        return key, json.dumps(fields).encode()

    def _fields(self, place: Place) -> dict[str, Any]:
        kind = self._map.kind
        found: dict[str, Any] = {name: self._map.text(name, place) for name in TEXTS[kind]}
        found |= {name: self._map.number(name, place) for name in NUMBERS[kind]}
        found |= {name: self._map.time_ms(name, place) for name in TIMES[kind]}
        if kind == "catalog":
            found["attributes"] = self._attributes(place) or None
        return {name: value for name, value in found.items() if value is not None}

    def _attributes(self, place: Place) -> dict[str, str]:
        whole = self._map.value("attributes", place)
        if whole is not None and not isinstance(whole, dict):
            raise BadRecordError("attributes that are no object")
        found = {}
        for name, value in (whole or {}).items():
            try:
                found[name] = values.text(value, flags=True)
            except BadRecordError:
                continue
        for name in self._map.events.fields_of(self._map.kind):
            if name.startswith(ATTRIBUTE):
                said = self._map.text(name, place)
                own = name.removeprefix(ATTRIBUTE)
                found = {**found, own: said} if said is not None else _without(found, own)
        return found


def _without(attributes: dict[str, str], name: str) -> dict[str, str]:
    return {own: value for own, value in attributes.items() if own != name}


def _object(value: bytes) -> dict[str, Any]:
    try:
        record = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadRecordError(str(error)) from None
    if not isinstance(record, dict):
        raise BadRecordError("not an object")
    return record


def _canonical(value: bytes | None) -> bytes | None:
    """The same JSON in one spelling; what is none stays."""
    try:
        return None if value is None else json.dumps(json.loads(value), sort_keys=True).encode()
    except (ValueError, RecursionError):
        return value
