"""Turns a CSV into parquet as it lands in bronze, line by line and without losing any.

Each line of data becomes one row, blank lines aside, and each value stays the text that it is: types are the business
of the dataset's contract, whose casts take text. An empty field is null.

A line that does not parse (another number of fields than the header, a quote that is never closed, bytes that are not
UTF-8) becomes a row too: its columns are null, and `_unparsed` holds its text. Downstream such rows are rejected
(`unparsed_line`), and the rejects keep the text. The column is there only if there is such a line.

What other readers stumble over and this one does not: line ends of several kinds in one file (`\\n`, `\\r\\n`, `\\r`),
text behind a closing quote, blanks around names in the header, and empty fields behind the last column, which months
of 2016 have.

A line break ends the line even inside quotes. Otherwise one quote too many would take all lines up to the next one
with it, and nobody could tell how many rows a file has. So the first line of a record of several lines does not parse,
and the others are judged each by itself: what has no such records, as trip records have none, loses nothing.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from contracts.errors import UsageError
from ingest.parquet_files import open_writer

UNPARSED = "_unparsed"
"""The column of lines that did not parse."""

BLOCK_BYTES = 8 * 1024 * 1024
"""Read and parsed at a time."""
GROUP_BYTES = 32 * 1024 * 1024
"""Of text in a row group; what is held in memory is a small multiple of it."""
MAX_LINE_BYTES = 64 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
# A line whose quotes are all closed, as pyarrow understands quotes: they count at the beginning of a field only, two of
# them stand for one, and text behind the closing one belongs to the field. Nothing in here can backtrack.
_FIELD = rb'(?:"(?:[^"]|"")*+"(?:[^",][^,]*+)?+|[^",][^,]*+|)'
_CLOSED = re.compile(_FIELD + rb"(?:," + _FIELD + rb")*+", re.DOTALL)
# A field of blanks, quoted or not. Behind a blank a quote is text like any other.
_NOTHING = re.compile(rb'\s*+|"\s*+"\s*+')


@dataclass(frozen=True)
class Landed:
    """What became of a CSV."""

    columns: tuple[str, ...]
    """Of the header, without blanks around the names."""
    rows: int
    """All of them, as many as the CSV has lines of data."""
    unparsed: int
    """Those among them that hold nothing but the text of their line."""


def csv_to_parquet(source: Path, target: Path, known: Collection[str]) -> Landed:
    """Write a CSV's rows into a parquet file; the same content makes the same bytes, compressed or not.

    Args:
        source: separated by commas, with a header; compressed with gzip or not, whatever its name says.
        target: the file to write; after an error there may be part of it.
        known: names that columns may have, casefolded; at least one of the header's has to be among them.

    Raises:
        UsageError: there is no header, it names no known column, or the file is no CSV at all.
        OSError: a file cannot be read or written.
    """
    try:
        # Nearly all files parse, so only the others are read twice.
        landed = _convert(source, target, known, unparsed=False)
        return landed if landed.unparsed == 0 else _convert(source, target, known, unparsed=True)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UsageError(f"{source.name!r} is not a whole gzip file ({error}). Get it again.") from error


def _convert(source: Path, target: Path, known: Collection[str], unparsed: bool) -> Landed:
    """Write all rows; without the column of lines that do not parse, stop at the first of them."""
    with _opened(source) as file:
        blocks = _blocks(file, source.name)
        first, names = _header(next(blocks, []), source.name, known)
        schema = pa.schema([(name, pa.string()) for name in (*names, *([UNPARSED] if unparsed else []))])
        rows = bad = held = 0
        group: list[pa.RecordBatch] = []
        with open_writer(target, schema) as writer:
            for lines in chain([first], blocks):
                columns, texts = _parse(lines, len(names))
                rows, bad = rows + len(lines), bad + len(texts) - texts.null_count
                if bad and not unparsed:
                    break
                held += sum(map(len, lines))
                group += pa.table([*columns, texts][: len(schema)], schema=schema).to_batches()
                if held >= GROUP_BYTES:
                    _write(writer, group, schema)
                    group, held = [], 0
            _write(writer, group, schema)
    return Landed(names, rows, bad)


def _write(writer: pq.ParquetWriter, group: list[pa.RecordBatch], schema: pa.Schema) -> None:
    table = pa.Table.from_batches(group, schema)
    if table.num_rows:
        writer.write_table(table, row_group_size=table.num_rows)


def _opened(source: Path) -> BinaryIO:
    with source.open("rb") as file:
        zipped = file.read(len(_GZIP)) == _GZIP
    return gzip.open(source, "rb") if zipped else source.open("rb")  # type: ignore[return-value]


def _blocks(file: BinaryIO, name: str) -> Iterator[list[bytes]]:
    """Lines without their ends, blank ones left out, some `BLOCK_BYTES` at a time."""
    rest = file.read(len(_BOM)).removeprefix(_BOM)
    while data := file.read(BLOCK_BYTES):
        rest += data
        # The last byte may be the first half of a `\r\n`.
        cut = max(rest.rfind(b"\n"), rest.rfind(b"\r", 0, -1)) + 1
        if len(rest) - cut > MAX_LINE_BYTES:
            raise UsageError(f"{name!r} has a line of more than {MAX_LINE_BYTES:,} bytes. Is it a CSV?")
        if lines := _lines(rest[:cut]):
            yield lines
        rest = rest[cut:]
    if lines := _lines(rest):
        yield lines


def _lines(block: bytes) -> list[bytes]:
    # Of bytes, `splitlines` knows these three ends and no others.
    return [line for line in block.splitlines() if line.strip()]


def _header(lines: list[bytes], name: str, known: Collection[str]) -> tuple[list[bytes], tuple[str, ...]]:
    """The lines behind the header, and its names."""
    if not lines:
        raise UsageError(f"{name!r} has no header: it is empty. A first line with the names of the columns is needed.")
    try:
        fields = next(csv.reader([lines[0].decode("utf-8")], skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"The first line of {name!r} is no header in UTF-8 ({error}). Is it a CSV? Save it as one, in UTF-8."
        ) from error
    names = tuple(field.strip() for field in fields)
    if not any(name.casefold() in known for name in names):
        some = ", ".join(sorted(known)[:5])
        raise UsageError(
            f"The first line of {name!r} names no column of the dataset ({some}, ...). A header with their names, "
            "separated by commas, is needed: add it, or check that this is a file of that dataset."
        )
    if UNPARSED in map(str.casefold, names):
        raise UsageError(f"{name!r} has a column {UNPARSED}, which is kept for lines that do not parse. Rename it.")
    return lines[1:], tuple(name or f"unnamed_{number}" for number, name in enumerate(names, 1))


def _parse(lines: list[bytes], width: int) -> tuple[list[pa.Array], pa.Array]:
    """One row a line: its columns, and the text of the lines that have none."""
    lines, kept = list(lines), list(range(len(lines)))
    everything = b"\n".join(lines)
    if b'"' in everything or not _is_text(everything):
        kept = [number for number in kept if _is_whole(lines[number])]
    table, wrong = _read([lines[number] for number in kept], width)
    if wrong:
        cut = {kept[at]: _without_surplus(lines[kept[at]], fields - width) for at, fields in wrong}
        kept = [number for number in kept if cut.get(number, b"") is not None]
        lines = [cut.get(number) or line for number, line in enumerate(lines)]
        table, _ = _read([lines[number] for number in kept], width)
    if len(kept) == len(lines):
        return table.columns, pa.nulls(len(lines), pa.string())
    row_of = dict(zip(kept, range(len(kept)), strict=True))
    places = pa.array([row_of.get(number) for number in range(len(lines))], pa.int64())
    texts = [None if n in row_of else line.decode("utf-8", "backslashreplace") for n, line in enumerate(lines)]
    return table.take(places).columns, pa.array(texts, pa.string())


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_whole(line: bytes) -> bool:
    return _is_text(line) and (b'"' not in line or _CLOSED.fullmatch(line) is not None)


def _without_surplus(line: bytes, surplus: int) -> bytes | None:
    """The line without that many fields at its end, or None when one of them is not empty."""
    if surplus <= 0:
        return None
    start, *others = line.rsplit(b",", surplus)
    if not all(map(_NOTHING.fullmatch, others)):
        return None
    # pyarrow passes over a line without anything in it.
    return start or b'""'


def _read(lines: list[bytes], width: int) -> tuple[pa.Table, list[tuple[int, int]]]:
    """The lines that have the right number of fields, and of each other one its number here and its fields."""
    names = [str(number) for number in range(width)]
    if not lines:
        return pa.schema([(name, pa.string()) for name in names]).empty_table(), []
    wrong: list[tuple[int, int]] = []
    # A header of our own, since pyarrow takes a byte-order mark off the beginning of what it reads.
    data = b"\n".join([",".join(names).encode(), *lines])
    table = pa_csv.read_csv(
        pa.BufferReader(data),
        # In one block and one thread, rows are numbered.
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pa_csv.ParseOptions(invalid_row_handler=_noting(wrong)),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )
    return table, wrong


def _noting(wrong: list[tuple[int, int]]) -> Callable[[pa_csv.InvalidRow], str]:
    def note(row: pa_csv.InvalidRow) -> str:
        # Counted from 1, and the first is our header.
        wrong.append((row.number - 2, row.actual_columns))
        return "skip"

    return note
