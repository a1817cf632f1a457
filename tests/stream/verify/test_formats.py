"""The recount opens records as ingest does, by code of its own: generated envelopes and bytes."""

from __future__ import annotations

import gzip
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.stream.config import FormatSettings, Settings
from freshet.stream.events.formats.compressed import second_look
from freshet.stream.events.formats.opening import opener_of
from freshet.stream.events.limits import Refusal
from freshet.stream.verify.formats import NothingToSayError, opened
from freshet.stream.verify.values import BadRecordError

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**40),
    st.floats(allow_nan=False, allow_infinity=False, width=16),
    st.sampled_from(["", "BNI=", "+y4=", "12.50", "BNI", "a", "{}", '{"id": 1}', "[1]", "é"]),
)
ROWS = st.dictionaries(
    st.sampled_from(["id", "price", "tax", "debezium", "op"]),
    SCALARS | st.fixed_dictionaries({"scale": SCALARS, "value": SCALARS}),
    max_size=3,
)
ROW = ROWS | SCALARS
SOURCES = st.dictionaries(
    st.sampled_from(["lsn", "ts_ms", "file", "pos"]),
    SCALARS | st.sampled_from(["mysql-bin.000007", "x.1234567890", "7"]),
    max_size=4,
)
COLUMNS = st.fixed_dictionaries(
    {"field": st.sampled_from(["price", "tax", "id"])},
    optional={
        "name": st.sampled_from(
            ["org.apache.kafka.connect.data.Decimal", "io.debezium.data.Json", "x"]
        ),
        "parameters": st.sampled_from([None, {"scale": "2"}, {"scale": "x"}, {}]),
    },
)
SCHEMAS = st.one_of(
    SCALARS,
    st.lists(COLUMNS, max_size=3).map(
        lambda fields: {
            "fields": [{"field": side, "fields": fields} for side in ("after", "before")]
        }
    ),
)
CHANGES = st.fixed_dictionaries(
    {"op": st.sampled_from(["c", "r", "u", "d", "t", "m", "x", None, 5])},
    optional={"before": ROW, "after": ROW, "ts_ms": SCALARS, "source": SOURCES | SCALARS},
)
DEBEZIUM = st.one_of(
    CHANGES,
    st.fixed_dictionaries({"schema": SCHEMAS, "payload": CHANGES | SCALARS}),
    SCALARS,
)
EVENTS = st.one_of(
    st.fixed_dictionaries(
        {"specversion": st.just("1.0")},
        optional={
            "id": SCALARS,
            "data": ROW,
            "cloudevent": SCALARS,
            "data_base64": st.sampled_from(["eyJhIjogMX0=", "eyJhIjogMX0", "bm8=", 5, None]),
        },
    ),
    ROW,
)
HEADERS = st.lists(
    st.sampled_from(
        [
            ("ce_specversion", b"1.0"),
            ("ce_id", b"7"),
            ("ce_id", b"\xff"),
            ("ce_type", None),
            ("Content-Type", b"application/cloudevents-batch+json"),
            ("content-type", b"application/json"),
        ]
    ),
    max_size=3,
)
KEYS = st.sampled_from([None, b"k", b"{", b'{"id": 1}', b'{"schema": {}, "payload": {"id": 1}}'])


def as_bytes(record: Any, how: int) -> bytes | None:
    text = json.dumps(record).encode()
    ways = [text, gzip.compress(text), b"\xef\xbb\xbf" + text, text[:-1], gzip.compress(text)[:-4]]
    return [*ways, None, b"", b"no"][how]


def alike(form: FormatSettings, of_table: bool, key: Any, value: Any, headers: Any) -> None:
    config = Settings()
    opener = opener_of(form, config.kafka, of_table=of_table)
    assert opener is not None
    mine = opener.open([value], [key], [headers])
    try:
        found = opened(form, config, key, value, headers, of_table=of_table)
    except NothingToSayError:
        assert mine.skipped
    except BadRecordError:
        assert mine.refused
    else:
        assert not mine.skipped and not mine.refused, mine
        assert found == (mine.keys[0], mine.values[0])


@settings(max_examples=300, deadline=None)
@given(DEBEZIUM, st.sampled_from([0] * 8 + list(range(8))), st.booleans(), KEYS)
def test_debezium_is_opened_alike(record: Any, how: int, of_table: bool, key: Any) -> None:
    form = FormatSettings(envelope="debezium", decimals={"price": 2})
    alike(form, of_table, key, as_bytes(record, how), [])


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.sampled_from([0] * 8 + list(range(8))), HEADERS)
def test_cloudevents_are_opened_alike(record: Any, how: int, headers: Any) -> None:
    alike(FormatSettings(envelope="cloudevents"), False, b"k", as_bytes(record, how), headers)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.integers(0, 7))
def test_plain_records_are_unpacked_alike(record: Any, how: int) -> None:
    value = as_bytes(record, how)
    look = second_look([value], [Refusal(0, "Undecodable", "")], "orders", 1_000_000)
    try:
        _, found = opened(FormatSettings(), Settings(), None, value, [])
    except BadRecordError:
        assert look is not None and look.refusals
        return
    assert found == (look.values[0] if look and look.values else value)
