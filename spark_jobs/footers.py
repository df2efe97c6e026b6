"""Read the footer of a parquet object over ranged reads, and say what columns Spark sees in it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

MAGIC = b"PAR1"
# pyarrow's own first read of a footer; one request gets most footers whole.
_TAIL = 64 * 1024


class RangeReader(Protocol):
    """Ranged reads of objects; `ingest.store.Store` is one."""

    def get_range(self, bucket: str, key: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on."""
        ...


class NotParquet(ValueError):
    """The bytes are not parquet at all."""


class DamagedParquet(ValueError):
    """The bytes begin or end as parquet, but no footer can be read."""


@dataclass(frozen=True)
class FileColumn:
    """A top-level column of a parquet file."""

    name: str
    type: str | None
    """Spark SQL type that Spark reads it as; None when Spark cannot, or it is nested."""
    kind: str
    """`null` when the file says that it holds nothing, `nanos` for a count of nanoseconds, `nested`, or `plain`."""


@dataclass(frozen=True)
class Footer:
    """What a parquet file says of itself."""

    rows: int
    columns: tuple[FileColumn, ...]


def read_footer(store: RangeReader, bucket: str, key: str, size: int) -> Footer:
    """Read the footer of an object of `size` bytes.

    Raises:
        NotParquet: neither end of the object is parquet's.
        DamagedParquet: the footer is missing or cannot be parsed.
    """
    file = _RangedFile(store, bucket, key, size)
    if file.tail[-4:] != MAGIC:
        if store.get_range(bucket, key, 0, 4) == MAGIC:
            raise DamagedParquet("It begins as parquet but does not end as parquet, so it is cut short.")
        raise NotParquet("It neither begins nor ends with the four bytes 'PAR1'.")
    try:
        metadata = pq.read_metadata(pa.PythonFile(file, mode="r"))
        columns = _columns(metadata.schema)
    except (pa.ArrowException, OSError) as error:
        raise DamagedParquet("The parquet footer cannot be parsed.") from error
    return Footer(metadata.num_rows, columns)


class _RangedFile(io.RawIOBase):
    """A read-only file over an object; the last 64 KiB are fetched once."""

    def __init__(self, store: RangeReader, bucket: str, key: str, size: int) -> None:
        self._store, self._bucket, self._key, self._size = store, bucket, key, size
        self._tail_at = max(0, size - _TAIL)
        self.tail = store.get_range(bucket, key, self._tail_at, size - self._tail_at)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        if self._at >= self._tail_at:
            data = self.tail[self._at - self._tail_at : end - self._tail_at]
        else:
            data = self._store.get_range(self._bucket, self._key, self._at, end - self._at)
        self._at += len(data)
        return data


def _columns(schema: pq.ParquetSchema) -> tuple[FileColumn, ...]:
    leaves = [schema.column(index) for index in range(len(schema))]
    columns: dict[str, FileColumn] = {}
    repeated = []
    for leaf in leaves:
        if leaf.path != leaf.name or leaf.max_repetition_level > 0:
            top = leaf.path.split(".")[0]
            columns.setdefault(top, FileColumn(top, None, "nested"))
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
    if kind == "Timestamp" and logical["timeUnit"] == "nanoseconds":
        return FileColumn(leaf.name, "bigint", "nanos")
    return FileColumn(leaf.name, _spark_type(leaf, kind, logical), "plain")


def _spark_type(leaf: pq.ColumnSchema, kind: str, logical: dict[str, object]) -> str | None:
    """The type that Spark's own converter of parquet schemas gives the column."""
    if kind == "Decimal":
        return f"decimal({leaf.precision},{leaf.scale})"
    if kind == "Timestamp":
        return "timestamp" if logical["isAdjustedToUTC"] else "timestamp_ntz"
    if kind == "Int":
        signed = {8: "tinyint", 16: "smallint", 32: "int", 64: "bigint"}
        unsigned = {8: "smallint", 16: "int", 32: "bigint", 64: "decimal(20,0)"}
        return (signed if logical["isSigned"] else unsigned)[int(str(logical["bitWidth"]))]
    by_logical = {"Date": "date", "String": "string", "Enum": "string", "JSON": "string", "BSON": "binary"}
    if kind in by_logical:
        return by_logical[kind]
    if kind != "None":
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
