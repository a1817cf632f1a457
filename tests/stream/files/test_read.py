"""Small files as shops export them: what each holds, by hand; and what is said of those that hold
nothing."""

from __future__ import annotations

import bz2
import gzip
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.model.tables.files import read_table
from freshet.model.tables.told import TableWarning
from freshet.stream.errors import InvalidInputError
from freshet.stream.files.read import FileStyle, FileTable, read_file
from freshet.stream.source.replay import open_replay

NOON_MS = 1_714_561_200_000  # 2024-05-01 11:00 UTC: noon in London, 13:00 in Berlin.


def written(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


# Separators and numbers ---------------------------------------------------------------------------

PLAIN = [("00123", 2.0, 12.5), ("A1", 1.0, 3.0)]
# Content and what the file needs told; each of these is the rows above.
SPELLINGS: dict[str, tuple[str | bytes, FileStyle]] = {
    "commas": ("sku,qty,price\n00123,2,12.50\nA1,1,3\n", FileStyle()),
    "semicolons and decimal commas": ("sku;qty;price\n00123;2;12,50\nA1;1;3\n", FileStyle()),
    "semicolons and decimal points": ("sku;qty;price\n00123;2;12.50\nA1;1;3\n", FileStyle()),
    "tabs": ("sku\tqty\tprice\n00123\t2\t12,50\nA1\t1\t3,00\n", FileStyle()),
    "bars": ("sku|qty|price\n00123|2|12.50\nA1|1|3\n", FileStyle()),
    "told": ("sku:qty:price\n00123:2:12.50\nA1:1:3\n", FileStyle(separator=":")),
    "a line that says it": ("sep=;\nsku;qty;price\n00123;2;12,50\nA1;1;3\n", FileStyle()),
    "commas in quoted texts": ('sku;qty;price\n"00123";"2";"12,50"\nA1;1;3\n', FileStyle()),
    "decimal commas in quotes": ('sku,qty,price\n00123,2,"12,50"\nA1,1,"3,0"\n', FileStyle()),
    "Excel's texts": ('sku,qty,price\n"=""00123""",2,12.50\nA1,1,3\n', FileStyle()),
    "blanks around names": ("sku , qty, price\n00123,2,12.50\nA1, 1, 3\n", FileStyle()),
    "a separator at the end": ("sku;qty;price\n00123;2;12.50;\nA1;1;3;\n", FileStyle()),
    "currency signs": ("sku;qty;price\n00123;2;€ 12,50\nA1;1;3,00 €\n", FileStyle()),
    "blank lines, CR LF": ("sku,qty,price\r\n\r\n00123,2,12.50\r\n\r\nA1,1,3\r\n\r\n", FileStyle()),
    "old Mac": ("sku,qty,price\r00123,2,12.50\rA1,1,3", FileStyle()),
    "lines of JSON": (
        '{"sku": "00123", "qty": 2, "price": "12.50"}\n\n{"price": 3, "sku": "A1", "qty": 1}\n',
        FileStyle(),
    ),
    "an array of JSON": (
        '[{"sku": "00123", "qty": 2, "price": 12.5},\n{"sku": "A1", "qty": 1, "price": 3}]',
        FileStyle(),
    ),
    "a mark of UTF-8": (b"\xef\xbb\xbfsku,qty,price\n00123,2,12.50\nA1,1,3\n", FileStyle()),
    "gzip": (gzip.compress(b"sku,qty,price\n00123,2,12.50\nA1,1,3\n"), FileStyle()),
    "bzip2": (bz2.compress(b"sku,qty,price\n00123,2,12.50\nA1,1,3\n"), FileStyle()),
    "zstd": (
        pa.compress(b"sku,qty,price\n00123,2,12.50\nA1,1,3\n", "zstd", asbytes=True),
        FileStyle(),
    ),
}
SUFFIXES = {"an array of JSON": ".json", "lines of JSON": ".jsonl"}


@pytest.mark.parametrize("name", SPELLINGS)
def test_one_table_in_many_spellings(tmp_path: Path, name: str) -> None:
    content, style = SPELLINGS[name]
    path = written(tmp_path / f"old{SUFFIXES.get(name, '.csv')}", content)
    file = read_file(path, style)
    assert file.names == ["sku", "qty", "price"] or name == "lines of JSON"
    sku = file.texts("sku")
    rows = zip(sku.map(str, None), file.numbers("qty"), file.numbers("price"), strict=True)
    assert list(rows) == PLAIN and not file.notes
    frame = read_table(path, ["sku", "qty", "price"], "sku", style=style)
    assert list(frame.itertuples(index=False, name=None)) == PLAIN


def test_the_separator_is_the_one_that_header_and_rows_agree_on(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "sku;price, net, in EUR, each\nA;3\nB;4\n")
    assert read_file(path).names == ["sku", "price, net, in EUR, each"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_seen_with_a_mark_and_without(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "wide.csv", "sku\tqty\nKäse\t2\n", encoding)
    assert read_file(path).texts("sku").texts == ["Käse"]


def test_windows_1252_is_recognised_and_said_and_other_encodings_are_told(tmp_path: Path) -> None:
    path = written(tmp_path / "old.csv", "sku,qty\nKäse €,2\n", "cp1252")
    file = read_file(path)
    assert file.texts("sku").texts == ["Käse €"]
    assert file.notes == [
        "old.csv is not UTF-8 (line 2) and was read as Windows-1252; --encoding says another"
    ]
    with pytest.warns(TableWarning, match="Windows-1252"):
        read_table(path, ["sku"])
    assert not read_file(path, FileStyle(encoding="cp1252")).notes
    polish = written(tmp_path / "pl.csv", "sku,qty\nŁódź,2\n", "iso-8859-2")
    assert read_file(polish, FileStyle(encoding="iso-8859-2")).texts("sku").texts == ["Łódź"]


NUMERALS: dict[str, tuple[str, list[float]]] = {
    "thousands by points": ("n;m\n1.299,50;a\n1.299;b\n", [1299.5, 1299.0]),
    "thousands by commas": ('n,m\n"1,299.50",a\n"1,299",b\n', [1299.5, 1299.0]),
    "two groups decide": ('n,m\n"1,299,000",a\n"1,299",b\n', [1_299_000.0, 1299.0]),
    "another column decides": ("n;m\n1.299;12,50\n2;3\n", [1299.0, 2.0]),
    "points where commas separate": ("n,m\n1.299,a\n", [1.299]),
    "zero in front decides": ("n;m\n0.250;a\n1.250;b\n", [0.25, 1.25]),
    "nothing": ("n,m\n,a\nNULL,b\nNA,c\n-3e2,d\n", [np.nan, np.nan, np.nan, -300.0]),
    "blanks between thousands": ("n;m\n1\u00a0299,5;a\n", [1299.5]),
}


@pytest.mark.parametrize("name", NUMERALS)
def test_numbers_are_what_their_writer_meant(tmp_path: Path, name: str) -> None:
    content, expected = NUMERALS[name]
    path = written(tmp_path / "n.csv", content)
    np.testing.assert_equal(read_file(path).numbers("n"), expected)
    np.testing.assert_equal(read_file(path).series("n").to_numpy(float), expected)


def test_a_number_that_may_be_two_is_asked_for(tmp_path: Path) -> None:
    for content, text in {"n;m\n1.299;a\n": "1.299", 'n,m\n"1,299",a\n': "1,299"}.items():
        path = written(tmp_path / "n.csv", content)
        with pytest.raises(InvalidInputError, match=f"'{text}' may be 1.299 or 1299") as told:
            read_file(path).numbers("n")
        assert "--decimal" in told.value.hint
    assert read_file(path, FileStyle(decimal=",")).numbers("n").tolist() == [1.299]
    assert read_file(path, FileStyle(decimal=".")).numbers("n").tolist() == [1299.0]


def test_names_keep_their_zeros_as_a_category_too(tmp_path: Path) -> None:
    path = written(tmp_path / "n.csv", "code,flag,mixed\n007,TRUE,1\n7,false,x\n8,,y\n")
    file = read_file(path)
    assert file.series("code").tolist() == ["007", "7", "8"]
    assert file.series("flag").tolist() == [True, False, pd.NA]
    assert file.series("mixed").tolist() == ["1", "x", "y"]


def test_parquet_keeps_texts_and_shows_whole_numbers_without_a_fraction(tmp_path: Path) -> None:
    columns = {
        "text": pa.array(["00123", None]),
        "float": pa.array([123.0, None]),
        "decimal": pa.array([Decimal("7.00"), Decimal("7.50")]),
        "words": pa.array(["a", "b"]).dictionary_encode(),
        "bytes": pa.array([b"00123", b"x"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "export.data")
    file = read_file(tmp_path / "export.data")
    found = {name: file.texts(name).map(str, None) for name in columns}
    assert found == {
        "text": ["00123", None],
        "float": ["123", None],
        "decimal": ["7", "7.50"],
        "words": ["a", "b"],
        "bytes": ["00123", "x"],
    }
    np.testing.assert_equal(file.numbers("decimal"), [7.0, 7.5])


# Times --------------------------------------------------------------------------------------------

BERLIN = FileStyle(zone="Europe/Berlin")
TIMES: dict[str, tuple[str, FileStyle]] = {
    "RFC 3339": ("2024-05-01T11:00:00Z", FileStyle()),
    "an offset after a blank": ("2024-05-01 13:00:00 +0200", FileStyle()),
    "UTC as a word": ("2024-05-01 11:00:00 UTC", FileStyle()),
    "a clock in Berlin": ("2024-05-01 13:00:00", BERLIN),
    "an offset, seen from Berlin": ("2024-05-01T12:00:00+01:00", BERLIN),
    "days first": ("01.05.2024 11:00", FileStyle()),
    "days first by option": ("01/05/2024 11:00", FileStyle(dayfirst=True)),
    "months first by option": ("05/01/2024 11:00", FileStyle(dayfirst=False)),
    "microseconds written": ("2024-05-01T11:00:00.000999Z", FileStyle()),
    "seconds": ("1714561200", BERLIN),
    "seconds with a fraction": ("1714561200.0", FileStyle()),
    "milliseconds": ("1714561200000", FileStyle()),
    "microseconds": ("1714561200000999", FileStyle()),
    "nanoseconds": ("1714561200000000000", FileStyle()),
    "digits": ("20240501110000", FileStyle()),
}


@pytest.mark.parametrize("name", TIMES)
def test_times_in_many_spellings(tmp_path: Path, name: str) -> None:
    text, style = TIMES[name]
    path = written(tmp_path / "t.csv", f"at,sku\n{text},a\n,b\n")
    times, missing = read_file(path, style).times("at")
    assert missing.tolist() == [False, True]
    assert times.utc_ms_R.tolist() == [
        NOON_MS + 1 if "999" in text and "." not in text else NOON_MS
    ]


def test_times_of_parquet_of_any_unit_are_kept(tmp_path: Path) -> None:
    moment = datetime(2024, 5, 1, 11, tzinfo=UTC)
    columns = {
        "us": pa.array([moment], pa.timestamp("us", "UTC")),
        "ns": pa.array([moment.replace(tzinfo=None)], pa.timestamp("ns")),
        "clock": pa.array([moment.replace(tzinfo=None, hour=13)], pa.timestamp("s")),
        "day": pa.array([moment.date()]),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    file = read_file(tmp_path / "t.parquet")
    found = {name: int(file.times(name)[0].utc_ms_R[0]) for name in ("us", "ns", "day")}
    assert found == {"us": NOON_MS, "ns": NOON_MS, "day": NOON_MS - 11 * 3_600_000}
    local = read_file(tmp_path / "t.parquet", BERLIN).times("clock")[0]
    assert local.utc_ms_R.tolist() == [NOON_MS]


def test_a_date_that_may_be_two_is_asked_for_and_not_guessed(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "at,sku\n03/04/2024,a\n05/04/2024,b\n")
    with pytest.raises(InvalidInputError, match=r"t\.csv: '03/04/2024' in column 'at' may be"):
        read_file(path).times("at")
    times, _ = read_file(path, FileStyle(dayfirst=True)).times("at")
    assert times.utc_ms_R.tolist() == [1_712_102_400_000, 1_712_275_200_000]


# Files that are wrong -----------------------------------------------------------------------------


def archive(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    return path


WRONG: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("a.csv", "", "a.csv is empty"),
    "blank": ("a.csv", "\n \n", "a.csv is empty"),
    "a packed nothing": ("a.csv.gz", gzip.compress(b""), "a.csv.gz is empty"),
    "broken off": ("a.csv.gz", gzip.compress(b"sku,qty\n" * 99)[:-9], "cannot be read"),
    "noise": ("a.csv", bytes(range(256)) * 9, "it is binary"),
    "a picture": ("a.csv", b"\x89PNG\r\n\x1a\n" + bytes(90), "it is binary"),
    "not parquet": ("a.parquet", "sku,qty\n", "named like parquet"),
    "parquet broken off": ("a.parquet", b"PAR1" + bytes(20), "cannot be read"),
    "a PDF": ("a.csv", b"%PDF-1.7 ...", "it is a PDF"),
    "an open quotation": ("a.csv", 'sku,qty\na,1\n"b,2\nc,3\n', "that begins in row 3 never ends"),
    "rows of other widths": ("a.csv", "sku,qty\na,1\nb,2,3\nc\n", "row 3 has 3 fields, expected 2"),
    "broken JSON": ("a.jsonl", '{"sku": 1}\n{"sku": \n', "line 2: .*truncated"),
    "JSON of something else": ("a.jsonl", '{"sku": 1}\n[2]\n', "line 2 is no object"),
    "another encoding": ("a.csv", "sku,qty\nä,1\n", "line 2 is not ascii: byte 0xc3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    file, content, message = WRONG[name]
    path = written(tmp_path / file, content)
    style = FileStyle(encoding="ascii" if name == "another encoding" else None)
    with pytest.raises(InvalidInputError, match=message) as told:
        read_file(path, style)
    assert "\n" not in str(told.value) and str(path) in str(told.value) and told.value.hint


def test_folders_missing_files_and_workbooks_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="it is a folder"):
        read_file(tmp_path)
    with pytest.raises(InvalidInputError, match=r"gone.csv does not exist"):
        read_file(tmp_path / "gone.csv")
    with pytest.raises(InvalidInputError, match=r"an Excel workbook .*; save it as CSV"):
        read_file(archive(tmp_path / "sales.xlsx"))
    with pytest.raises(InvalidInputError, match="not one character or tab"):
        read_file(written(tmp_path / "a.csv", "a,b\n"), FileStyle(separator=", "))
    with pytest.raises(InvalidInputError, match="'klingon' is not known"):
        read_file(tmp_path / "a.csv", FileStyle(encoding="klingon"))
    with pytest.raises(InvalidInputError, match="'Berlin' is no time zone"):
        read_file(
            written(tmp_path / "a.csv", "a,b\n2024-01-01,1\n"), FileStyle(zone="Berlin")
        ).times("a")


def test_what_is_wrong_with_a_value_names_file_row_and_column(tmp_path: Path) -> None:
    rows = "".join(f"a,{n},2024-01-{n:02}\n" for n in range(1, 10))
    path = written(
        tmp_path / "a.csv", f'sku,qty,at\n"two\nlines",1,2024-01-01\n{rows}a,many,when\n'
    )
    file = read_file(path)
    with pytest.raises(InvalidInputError, match=r"a\.csv: row 12: column 'qty' .*'many'"):
        file.numbers("qty")
    with pytest.raises(InvalidInputError, match=r"a\.csv: 'when' in column 'at' \(row 12\)"):
        file.times("at")
    with pytest.raises(InvalidInputError, match="has no column 'price'; its columns are sku, qty"):
        file.numbers("price")


def test_a_slip_in_a_long_file_is_left_out_and_said(tmp_path: Path) -> None:
    rows = ["a,1"] * 100
    rows[50] = "a,1,2"
    file = read_file(written(tmp_path / "a.csv", "sku,qty\n" + "\n".join([*rows, "a,many"]) + "\n"))
    assert len(file) == 100
    (note,) = file.notes
    assert note == "a.csv: row 52 has 3 fields, expected 2: 1 such of 101 left out"
    with pytest.raises(InvalidInputError, match="row 102: column 'qty'"):
        file.numbers("qty")


def test_a_name_that_two_columns_have_is_refused_where_it_is_asked_for(tmp_path: Path) -> None:
    file = read_file(written(tmp_path / "a.csv", "sku,qty,note,note\na,1,x,y\n"))
    assert file.numbers("qty").tolist() == [1.0]
    with pytest.raises(InvalidInputError, match="has 2 columns 'note'"):
        file.texts("note")


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "sku,at,qty\n")
    assert len(read_file(path)) == 0
    with pytest.raises(InvalidInputError, match="no events to replay"):
        open_replay(path, mapping={"sku": "sku", "event_time": "at"})


def test_nested_json_is_named_by_its_path(tmp_path: Path) -> None:
    line = '{"item": {"sku": "00123", "tags": ["a"]}, "qty": 12345678901234567890}\n{"qty": "x"}\n'
    file: FileTable = read_file(written(tmp_path / "a.jsonl", line))
    assert file.texts("item.sku").map(str, None) == ["00123", None]
    assert file.texts("item.tags").map(str, None) == ['["a"]', None]
    assert file.texts("qty").map(str, None) == ["12345678901234567890", "x"]


WORDS = ["sku", "at", "-", "NULL", "NaT", "inf", "true", "é"]
NUMERALS_AND_TIMES = ["1", "1,5", "1.299", "1e999", "0x1F", "99999", "20249999", "1714561200"]
OTHERS = ["2024-01-01", "03/04/2024", '"', '"a', "{", "[1]", "\0", "\ufeff"]
CELLS = st.sampled_from([*WORDS, *NUMERALS_AND_TIMES, *OTHERS])
GRIDS = st.lists(st.lists(CELLS, max_size=4), max_size=6)


@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda rows, by, end, code: end.join(map(by.join, rows)).encode(code, "replace"),
            *(GRIDS, st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["\n", "\r\n", "\r"])),
            st.sampled_from(["utf-8", "utf-16", "cp1252"]),
        ),
    ),
    suffix=st.sampled_from([".csv", ".jsonl", ".parquet", ".json", ".csv.gz", ""]),
    magic=st.sampled_from([b"", b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh9", b"{", b"["]),
)
@settings(max_examples=60, deadline=None)
def test_no_file_is_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str, magic: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(magic + content)
    for zone in (None, "Europe/Berlin"):
        try:
            file = read_file(path, FileStyle(zone=zone))
        except InvalidInputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            continue
        for name in dict.fromkeys(file.names):
            for ask in (file.texts, file.numbers, file.series, file.times):
                try:
                    ask(name)  # type: ignore[operator]
                except InvalidInputError as error:
                    assert str(path) in str(error)


def replayed(path: Path, **how: Any) -> list[bytes | None]:
    columns = {"event_time": "at", "sku": "sku", "quantity": "qty"}
    source = open_replay(path, mapping=columns, style=FileStyle(**how))
    return [value for batch in source.batches() for value in batch.values]


def test_a_replay_reads_by_the_same_door(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "at;sku;qty\n01.05.2024 13:00;00123;1,5\n", "utf-16")
    (value,) = replayed(path, zone="Europe/Berlin")
    assert value is not None and b'"sku":"00123"' in value
    assert f'"event_time":{NOON_MS}'.encode() in value and b'"quantity":1.5,' in value
