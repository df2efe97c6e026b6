"""Read the footer of a parquet object over ranged reads, and say what columns Spark sees in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs.thrift import Compact

MAGIC = b"PAR1"
ENCRYPTED_MAGIC = b"PARE"
MAX_FOOTER_BYTES = 8 * 1024 * 1024
"""Longer footers are not read. Published taxi months have 3 to 11 KB; this is for 2,000 row groups of 20 columns."""

# pyarrow's own first read of a footer; one request gets most footers whole.
_TAIL = 64 * 1024
# The footer's length in four bytes, and the magic.
_END = 8
# Row groups, or columns of one: pyarrow makes room for as many as a list claims, before it looks for them.
_MAX_LIST = 50_000


class RangeReader(Protocol):
    """Ranged reads of objects; `ingest.store.Store` is one."""

    def get_range(self, bucket: str, key: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on."""
        ...


class NotParquet(ValueError):
    """The bytes are not parquet at all."""


class DamagedParquet(ValueError):
    """The bytes begin or end as parquet, but no footer can be read, or it contradicts itself."""


class EncryptedParquet(ValueError):
    """The footer or columns are encrypted."""


class FooterTooLong(ValueError):
    """The footer has more than `MAX_FOOTER_BYTES`."""

    def __init__(self, length: int) -> None:
        super().__init__(f"The footer has {length:,} bytes.")
        self.length = length


@dataclass(frozen=True)
class FileColumn:
    """A top-level column of a parquet file."""

    name: str
    type: str | None
    """Spark SQL type that Spark reads it as; None when Spark cannot."""
    kind: str
    """`null` when the file says that it holds nothing, `nanos` for a count of nanoseconds, `time` for a time of day,
    `nested`, or `plain`."""


@dataclass(frozen=True)
class Footer:
    """What a parquet file says of itself."""

    rows: int
    columns: tuple[FileColumn, ...]
    leaves: int
    """Columns as they are stored: each field of a nested column is one."""
    uncompressed: int
    """Bytes of all pages once they are decompressed. Runs and dictionaries count as stored, not as they are read."""
    chunks: tuple[tuple[int, int], ...]
    """Start and length in bytes of each column chunk that has pages."""


def read_footer(store: RangeReader, bucket: str, key: str, size: int) -> Footer:
    """Read the footer of an object of `size` bytes; at most `MAX_FOOTER_BYTES` of it, whatever it claims.

    Raises:
        NotParquet: neither end of the object is parquet's.
        DamagedParquet: the footer is missing, cannot be parsed, or contradicts itself or the object's size.
        EncryptedParquet: footer or columns are encrypted.
        FooterTooLong: the footer is longer than is read.
    """
    tail_at = max(0, size - _TAIL)
    tail = store.get_range(bucket, key, tail_at, size - tail_at)
    if tail[-4:] == ENCRYPTED_MAGIC:
        raise EncryptedParquet("It ends with the four bytes 'PARE', so its footer is encrypted.")
    if tail[-4:] != MAGIC:
        if store.get_range(bucket, key, 0, 4) in (MAGIC, ENCRYPTED_MAGIC):
            raise DamagedParquet("It begins as parquet but does not end as parquet, so it is cut short.")
        raise NotParquet("It neither begins nor ends with the four bytes 'PAR1'.")
    length = int.from_bytes(tail[-_END:-4], "little")
    if length + _END + len(MAGIC) > size:
        raise DamagedParquet(f"It claims a footer of {length:,} bytes, but has {size:,} bytes in all.")
    if length > MAX_FOOTER_BYTES:
        raise FooterTooLong(length)
    if length + _END > len(tail):
        tail = store.get_range(bucket, key, size - length - _END, length + _END)
    # pyarrow and we raise what the bytes bring about (ArrowException, OSError, KeyError, UnicodeDecodeError, ...). No
    # request is made in here, so whatever it is, it is the file's fault, and only this file's.
    try:
        return _parse(tail[-length - _END :], size)
    except (DamagedParquet, EncryptedParquet):
        raise
    except Exception as error:
        raise DamagedParquet("The parquet footer cannot be parsed.") from error


def _parse(end: bytes, size: int) -> Footer:
    """The footer from the last bytes of an object of `size` bytes."""
    # A file without pages: pyarrow looks at the footer alone.
    limits = {"thrift_container_size_limit": _MAX_LIST, "thrift_string_size_limit": MAX_FOOTER_BYTES}
    metadata = pq.ParquetFile(pa.BufferReader(MAGIC + end), **limits).metadata
    leaves = [metadata.schema.column(index) for index in range(len(metadata.schema))]
    found = _Totals(size - len(end), [leaf.max_repetition_level == 0 for leaf in leaves])
    found.read(Compact(end[:-_END]))
    if not 0 <= metadata.num_rows == found.rows:
        raise DamagedParquet(
            f"The footer tells of {metadata.num_rows:,} rows, its row groups tell of {found.rows:,} in all."
        )
    columns = _columns(leaves, metadata.schema)
    return Footer(metadata.num_rows, columns, len(leaves), found.uncompressed, tuple(found.chunks))


class _Totals:
    """Adds up the row groups of a footer, and checks that each column chunk is one that can be there."""

    def __init__(self, pages_end: int, flat: list[bool]) -> None:
        self._pages_end = pages_end
        self._flat = flat
        """For each leaf whether it has one value a row."""
        self._values: list[int] = []
        self.rows = 0
        self.uncompressed = 0
        self.chunks: list[tuple[int, int]] = []

    def read(self, data: Compact) -> None:
        # FileMetaData: 4 row_groups, 8 encryption_algorithm (only in a footer that is not encrypted itself).
        found = data.struct({4: lambda at: at.structs(self._row_group), 8: lambda at: at.struct({})})
        if 8 in found:
            raise EncryptedParquet("The footer can be read, but it names an encryption: columns are encrypted.")

    def _row_group(self, data: Compact) -> None:
        self._values = []
        # RowGroup: 1 columns, 3 num_rows.
        rows = data.struct({1: lambda at: at.structs(self._chunk), 3: Compact.integer})[3]
        if rows < 0 or len(self._values) != len(self._flat):
            raise DamagedParquet(f"A row group has {rows:,} rows and {len(self._values)} of {len(self._flat)} columns.")
        if any(flat and values != rows for flat, values in zip(self._flat, self._values, strict=True)):
            raise DamagedParquet(f"A row group has {rows:,} rows, but a column of it has another number of values.")
        self.rows += rows

    def _chunk(self, data: Compact) -> None:
        # ColumnMetaData: 5 num_values, 6 and 7 total size un- and compressed, 9 and 11 offset of data and dictionary.
        metadata = dict.fromkeys((5, 6, 7, 9, 11), Compact.integer)
        # ColumnChunk: 3 meta_data, 8 crypto_metadata.
        chunk = data.struct({3: lambda at: at.struct(metadata), 8: lambda at: at.struct({})})
        if 8 in chunk:
            raise EncryptedParquet("The footer can be read, but columns are encrypted.")
        values, uncompressed, compressed, start = (chunk[3][number] for number in (5, 6, 7, 9))
        # Some writers say 0 for "no dictionary".
        start = min(start, chunk[3].get(11) or start)
        # Readers make room for what is claimed here before they look for it.
        if min(values, uncompressed, compressed, start) < 0 or start + compressed > self._pages_end:
            raise DamagedParquet("The footer tells of a column that lies outside of the file.")
        self._values.append(values)
        self.uncompressed += uncompressed
        if compressed:
            self.chunks.append((start, compressed))


def _columns(leaves: list[pq.ColumnSchema], schema: pq.ParquetSchema) -> tuple[FileColumn, ...]:
    columns: dict[str, FileColumn] = {}
    repeated = []
    nested: dict[str, str | None] = {}
    for leaf in leaves:
        if leaf.path != leaf.name or leaf.max_repetition_level > 0:
            nested = nested or {field.name: _nested_type(field.type) for field in schema.to_arrow_schema()}
            # A name may hold a dot itself.
            top = max((name for name in nested if leaf.path.startswith(f"{name}.")), key=len, default=leaf.path)
            column = FileColumn(top, nested[top], "nested")
            if columns.setdefault(top, column) != column:
                repeated.append(column)
        elif leaf.name in columns:
            repeated.append(_column(leaf))
        else:
            columns[leaf.name] = _column(leaf)
    return (*columns.values(), *repeated)


def _column(leaf: pq.ColumnSchema) -> FileColumn:
    logical = json.loads(leaf.logical_type.to_json())
    kind = logical.get("Type", "None")
    if kind in ("Null", "Unknown"):
        return FileColumn(leaf.name, None, "null")
    if kind == "Time":
        return FileColumn(leaf.name, _TIME[logical["timeUnit"]], "time")
    if kind == "Timestamp" and logical["timeUnit"] == "nanoseconds":
        return FileColumn(leaf.name, "bigint", "nanos")
    return FileColumn(leaf.name, _spark_type(leaf, kind, logical), "plain")


def _spark_type(leaf: pq.ColumnSchema, kind: str, logical: dict[str, object]) -> str | None:
    """The type that Spark's own converter of parquet schemas gives the column."""
    if kind == "Decimal":
        return f"decimal({leaf.precision},{leaf.scale})" if leaf.precision <= _MOST_DIGITS else None
    if kind == "Timestamp":
        return "timestamp" if logical["isAdjustedToUTC"] else "timestamp_ntz"
    if kind == "Int":
        signed = {8: "tinyint", 16: "smallint", 32: "int", 64: "bigint"}
        unsigned = {8: "smallint", 16: "int", 32: "bigint", 64: "decimal(20,0)"}
        return (signed if logical["isSigned"] else unsigned)[int(str(logical["bitWidth"]))]
    by_logical = {"Date": "date", "String": "string", "Enum": "string", "JSON": "string", "BSON": "binary"}
    if kind in by_logical:
        return by_logical[kind]
    if kind not in ("None", "UUID"):
        return None
    return {
        "BOOLEAN": "boolean",
        "INT32": "int",
        "INT64": "bigint",
        "INT96": "timestamp",
        "FLOAT": "float",
        "DOUBLE": "double",
        "BYTE_ARRAY": "binary",
        "FIXED_LEN_BYTE_ARRAY": "binary",
    }[leaf.physical_type]


def _nested_type(kind: pa.DataType) -> str | None:
    """The type that Spark reads a column with fields or elements as; None where it cannot read all of them."""
    if pa.types.is_struct(kind):
        fields = [(field.name.replace("`", "``"), _nested_type(field.type)) for field in kind]
        return f"struct<{', '.join(f'`{name}`: {held}' for name, held in fields)}>" if _whole(fields) else None
    if pa.types.is_map(kind):
        parts = [("key", _nested_type(kind.key_type)), ("value", _nested_type(kind.item_type))]
        return f"map<{', '.join(str(held) for _, held in parts)}>" if _whole(parts) else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        element = _nested_type(kind.value_type)
        return f"array<{element}>" if element else None
    if pa.types.is_fixed_size_binary(kind):
        return "binary"
    if pa.types.is_decimal128(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return "bigint" if kind.unit == "ns" else "timestamp" if kind.tz else "timestamp_ntz"
    return _BY_ARROW.get(kind)


def _whole(parts: list[tuple[str, str | None]]) -> bool:
    """Whether Spark takes all parts: it knows their types, and their names differ by more than case."""
    names = {name.casefold() for name, _ in parts}
    return bool(parts) and len(names) == len(parts) and "" not in names and all(held for _, held in parts)


_MOST_DIGITS = 38
"""Of a decimal in Spark."""
# Times of day, as the count that the file holds: Spark has no such type.
_TIME = {"milliseconds": "int", "microseconds": "bigint", "nanoseconds": "bigint"}
_BY_ARROW = {
    pa.time32("ms"): "int",
    pa.time64("us"): "bigint",
    pa.time64("ns"): "bigint",
    pa.bool_(): "boolean",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.uint8(): "smallint",
    pa.uint16(): "int",
    pa.uint32(): "bigint",
    pa.uint64(): "decimal(20,0)",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.date32(): "date",
    pa.string(): "string",
    pa.large_string(): "string",
    pa.binary(): "binary",
    pa.large_binary(): "binary",
}
