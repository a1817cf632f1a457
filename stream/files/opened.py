"""A file's bytes: unpacked, as UTF-8, and what kind of table they are."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from freshet.stream.errors import InvalidInputError

Kind = Literal["parquet", "lines", "separated"]

LINE_SUFFIXES: Final = (".jsonl", ".ndjson", ".json")
PARQUET_SUFFIXES: Final = (".parquet", ".pq")
GIVE: Final = "give parquet, CSV (also gzipped) or lines of JSON"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_OTHERS: Final = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
    b"SQLite format 3": "a SQLite database",
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
}
_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_SAMPLE_BYTES: Final = 65_536
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f]")


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds.

    Attributes:
        data: Parquet as it is; any other as UTF-8 without a mark.
        notes: What was guessed and a person should know.
    """

    kind: Kind
    data: bytes
    notes: tuple[str, ...] = ()


def opened(path: Path, encoding: str | None = None) -> Content:
    """The content of a file.

    Args:
        path: Also gzip, zstd or bzip2, whatever it is called.
        encoding: Of texts; None: what a mark or the bytes say, and of those that are not UTF-8
            Windows-1252, with a note.

    Raises:
        InvalidInputError: It is not there, empty, or no table of a kind that is known.
    """
    data = unpacked(path)
    if not data.strip():
        raise InvalidInputError(f"{path} is empty", hint="give a table with a header and rows")
    if data[:4] == b"PAR1":
        return Content("parquet", data)
    for magic, what in _OTHERS.items():
        if data.startswith(magic):
            raise unreadable(path, f"it is {what}", "save it as CSV or parquet")
    plain = _suffix(path)
    if plain in PARQUET_SUFFIXES:
        raise unreadable(path, "it is named like parquet and does not begin like it", GIVE)
    text, notes = _as_utf8(path, data, encoding)
    if not text.strip():
        raise InvalidInputError(f"{path} is empty", hint="give a table with a header and rows")
    kind: Kind = "separated"
    if plain in LINE_SUFFIXES or text.lstrip()[:1] == b"{":
        kind = "lines"
    return Content(kind, text, notes)


def unreadable(path: Path, why: str, hint: str) -> InvalidInputError:
    """The error of a file that is no table."""
    return InvalidInputError(f"{path} cannot be read as a table: {why}", hint=hint)


def unpacked(path: Path) -> bytes:
    """A file's bytes without gzip, zstd or bzip2 around them.

    Raises:
        InvalidInputError: It is not there, a folder, forbidden, or broken off.
    """
    import pyarrow as pa

    if path.is_dir():
        raise unreadable(path, "it is a folder", "name a file in it")
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        if data.startswith(b"BZh"):
            return bz2.decompress(data)
        if data.startswith(_ZSTD):
            return bytes(pa.CompressedInputStream(io.BytesIO(data), "zstd").read())
    except FileNotFoundError:
        raise InvalidInputError(f"{path} does not exist") from None
    except (OSError, EOFError, zlib.error, pa.ArrowException, ValueError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise unreadable(path, said.splitlines()[0], "is it whole, and may you read it?") from None
    return data


def _suffix(path: Path) -> str:
    """Of `sales.csv.gz` it is `.csv`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in (".gz", ".zst", ".bz2"):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _as_utf8(path: Path, data: bytes, encoding: str | None) -> tuple[bytes, tuple[str, ...]]:
    found, mark = _told(data)
    if encoding is not None and not mark:
        found = encoding
    if found is None:
        try:
            data.decode("utf-8")
            found = "utf-8"
        except UnicodeDecodeError as error:
            _refuse_binary(path, data)
            text = _decoded(path, data, "cp1252")
            line = data.count(b"\n", 0, error.start) + 1
            note = (
                f"{path.name} is not UTF-8 (line {line}) and was read as Windows-1252; "
                "--encoding says another"
            )
            return text.encode(), (note,)
    body = data[len(mark) :]
    text = _decoded(path, body, found)
    if found == "utf-8":
        _refuse_binary(path, body)
        return body, ()
    return text.removeprefix("\ufeff").encode(), ()


def _told(data: bytes) -> tuple[str | None, bytes]:
    """The encoding that a mark says, or zeros of every second byte; and the mark."""
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            return name, mark
    some = data[:_SAMPLE_BYTES]
    zeros = [some[place::2].count(0) for place in (0, 1)]
    half = len(some) // 2
    if half and zeros[1] > half * 0.6 and zeros[0] < half * 0.1:
        return "utf-16-le", b""
    if half and zeros[0] > half * 0.6 and zeros[1] < half * 0.1:
        return "utf-16-be", b""
    return None, b""


def _decoded(path: Path, data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except LookupError:
        raise InvalidInputError(
            f"--encoding: {encoding!r} is not known", hint="utf-8, utf-16, cp1252, latin-1, ..."
        ) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise unreadable(
            path,
            f"line {line} is not {encoding}: byte {data[error.start]:#04x}",
            "--encoding says how its texts are written",
        ) from None


def _refuse_binary(path: Path, data: bytes) -> None:
    """Bytes that no text has are few in texts that once were broken, and many in what is none."""
    some = data[:_SAMPLE_BYTES]
    if len(_CONTROL.findall(some)) > len(some) // 100:
        raise unreadable(path, "it is binary, and of no kind that is known", GIVE)
