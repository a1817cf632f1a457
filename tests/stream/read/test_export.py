"""Exported numbers and times, and the three formats."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from freshet.stream.config import Settings
from freshet.stream.errors import InvalidInputError
from freshet.stream.read import export as export_module
from freshet.stream.read.export import export, parse_time_ms
from freshet.stream.read.formats import WRITERS, WindowRows, decimal
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.units import HOUR_MS
from tests.stream.read.fake_windows import RESOLUTION_MS, FakeRedis, Partition

ROWS = WindowRows(
    ['a|"n,', "é|-"],
    np.array([HOUR_MS, 7_200_000]),
    np.array([[1_500, 12_345, 2, 0, 9, 0, 0, 0], [0, 0, 0, 250, 0, 0, 0, 1]]),
    np.array([True, False]),
)
COLUMNS = ["item_id", "bucket_start_ms", "units", "revenue", "orders", "returns"]
COLUMNS += ["views", "carts", "favourites", "checkouts"]
VALUES = [
    ['a|"n,', HOUR_MS, 1.5, 1.2345, 2, 0, 9, 0, 0, 0],
    ["é|-", 7_200_000, 0, 0, 0, 0.25, 0, 0, 0, 1],
]


def written(format: str, include_open: bool, *groups: WindowRows) -> bytes:
    file = io.BytesIO()
    writer = WRITERS[format](file, include_open)
    for group in groups:
        writer.write(group)
    writer.close()
    return file.getvalue()


@pytest.mark.parametrize("include_open", [False, True])
def test_jsonl_has_one_object_a_row(include_open: bool) -> None:
    rows = [json.loads(line) for line in written("jsonl", include_open, ROWS).decode().splitlines()]
    names = COLUMNS + (["closed"] if include_open else [])
    values = [
        [*row, closed] if include_open else row
        for row, closed in zip(VALUES, (True, False), strict=True)
    ]
    assert [list(row) for row in rows] == [names] * 2
    assert [list(row.values()) for row in rows] == values


@pytest.mark.parametrize("include_open", [False, True])
def test_csv_is_read_back_by_a_csv_reader(include_open: bool) -> None:
    header, *rows = csv.reader(io.StringIO(written("csv", include_open, ROWS).decode()))
    assert header == COLUMNS + (["closed"] if include_open else [])
    assert rows[0][:6] == ['a|"n,', "3600000", "1.5", "1.2345", "2", "0"]
    assert (rows[1][10:] == ["false"]) if include_open else (len(rows[1]) == 10)


@pytest.mark.parametrize("groups", [(), (ROWS,), (ROWS, ROWS)])
def test_parquet_is_read_back_with_the_same_schema_however_many_rows(
    groups: tuple[WindowRows, ...],
) -> None:
    table = pq.read_table(io.BytesIO(written("parquet", True, *groups)))
    assert table.column_names == [*COLUMNS, "closed"]
    assert [list(row.values())[:-1] for row in table.to_pylist()] == VALUES * len(groups)
    assert [str(kind) for kind in table.schema.types[:5]] == [
        "string",
        "int64",
        "double",
        "double",
        "int64",
    ]


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from([1, 1_000, 10_000]))
def test_a_printed_number_is_exactly_the_stored_one_and_as_short_as_can_be(
    value: int, scale: int
) -> None:
    text = decimal(value, scale)
    assert Decimal(text) == Decimal(value) / scale
    assert "." not in text or text[-1] not in "0."


def test_times_are_milliseconds_or_rfc_3339() -> None:
    assert parse_time_ms(None, "--to") is None
    assert parse_time_ms("-5", "--to") == -5
    assert parse_time_ms("2026-03-01T00:00:00+01:00", "--to") == 1_772_319_600_000
    with pytest.raises(
        InvalidInputError, match=r"--to 'today' is not a time.*2026-03-01T00:00:00Z"
    ):
        parse_time_ms("today", "--to")


def test_an_unknown_format_and_an_unknown_resolution_are_refused_before_anything_is_read() -> None:
    with pytest.raises(InvalidInputError, match="'xml'; expected one of jsonl, csv, parquet"):
        export(Settings(), resolution_ms=HOUR_MS, format="xml")
    with pytest.raises(
        InvalidInputError, match=r"no windows are kept at 7 ms; expected one of \[1000, 60000"
    ):
        export(Settings(), resolution_ms=7)


def _export_rows(monkeypatch: pytest.MonkeyPatch, rows: Any, output: Path) -> int:
    monkeypatch.setattr(export_module, "window_rows", lambda *_, **__: rows)
    return export(Settings(), resolution_ms=HOUR_MS, output=output)


def test_a_file_appears_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    assert _export_rows(monkeypatch, [ROWS], output) == 2
    assert len(output.read_text("utf-8").splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_file_that_could_not_be_finished_does_not_replace_the_old_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> Any:
        yield ROWS
        raise KeyError("half way")

    output = tmp_path / "out.jsonl"
    output.write_text("old", "utf-8")
    with pytest.raises(KeyError):
        _export_rows(monkeypatch, broken(), output)
    assert output.read_text("utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_place_that_cannot_be_written_is_said_plainly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(
        InvalidInputError, match=r"nowhere.out.jsonl cannot be written: No such file"
    ):
        _export_rows(monkeypatch, [ROWS], tmp_path / "nowhere" / "out.jsonl")


@pytest.mark.parametrize("ahead", [11, 12, 10_000])
def test_events_ahead_of_all_others_push_nothing_out(ahead: int) -> None:
    client = FakeRedis()
    part = Partition(client)
    part.write(5, {(n, 0): {0: n} for n in range(7, 11)}, ["a"], frontier_ms=109)
    part.write(6, {(ahead, 0): {0: ahead}}, last_event_ms=10 * ahead)
    rules = ReadRules(RESOLUTION_MS, 2, "o", "c", out_of_order_ms=0)
    reader = WindowReader(client, 0, RESOLUTION_MS, 4, rules=rules)  # type: ignore[arg-type]
    reader.refresh()
    with capture_logs() as logs:
        rows = export_module._group(reader, None, None, include_open=True)
    assert rows.bucket_start_ms.tolist() == [80, 90, 100]
    assert rows.values_NC[:, 0].tolist() == [8, 9, 10]
    assert logs == []
