"""Edge: what the metadata of Iceberg tables tell, read without Spark.

A question to Spark's metadata tables is a job of 0.3 to 0.6 s; the same answer from their files takes some 20 ms.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from typing import Any, cast

import psycopg
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import In
from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile
from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import DataScan
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot as IcebergSnapshot
from pyiceberg.types import DateType, IcebergType, ListType, PrimitiveType
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from contracts.errors import ObjectGone, ServiceUnavailable
from contracts.settings import Settings
from ingest.store import Store

MAX_METADATA_BYTES = 256 * 1024 * 1024
MAX_DAYS = 62
"""Twice a month: a file of a month's rows, and some grace."""
TRIES = 3
BATCH_PROPERTY = "sluice-batch-id"
SOURCE_ID = "_source_id"
"""Partition column of the row-level tables; see `source_id`."""
SOURCE_KEY = "_source_key"
SOURCE_ETAG = "_source_etag"
_EPOCH = date(1970, 1, 1)
_SPARK_NAMES = {"long": "bigint", "timestamp": "timestamp_ntz", "timestamptz": "timestamp"}
"""Types that Spark has another name for."""

Locate = Callable[[str], str | None]
"""Where a table's newest metadata file is: `namespace.table` to `s3://…`, None when there is no such table."""


@dataclass(frozen=True)
class Snapshot:
    """One commit to one table."""

    snapshot_id: int
    parent_id: int | None
    sequence_number: int
    """Its place among the table's commits, counted by Iceberg from 1."""
    committed_at: datetime
    """UTC."""
    added_rows: int


@dataclass(frozen=True)
class SourceRows:
    """What a snapshot holds of one source file."""

    rows: int
    etags: frozenset[str]
    """Of the source's versions that the rows came from; one, unless something went wrong."""


def source_id(key: str) -> str:
    """What stands for an object's key in paths: 32 hexadecimal digits of its SHA-256.

    A key has up to 1,024 bytes of any text, and the paths of a partitioned table hold the partition's value.
    """
    return hashlib.sha256(key.encode()).hexdigest()[:32]


class LakeTable:
    """A table as its metadata file described it when it was read; it does not follow later commits."""

    def __init__(self, metadata: TableMetadata, io: FileIO) -> None:
        self._metadata = metadata
        self._io = io

    @property
    def columns(self) -> dict[str, str]:
        """Column to its type, as Spark calls it."""
        return {field.name: spark_type(field.field_type) for field in self._metadata.schema().fields}

    @property
    def current_id(self) -> int | None:
        """The newest snapshot; None when nothing was ever committed."""
        return self._metadata.current_snapshot_id

    def commit_of(self, batch_id: str) -> Snapshot | None:
        """A batch's newest commit to the table."""
        own = [found for found in self._metadata.snapshots if _summary(found).get(BATCH_PROPERTY) == batch_id]
        return _snapshot(max(own, key=lambda found: found.sequence_number or 0)) if own else None

    def batches_since(self, moment: datetime) -> set[str]:
        """Ids of the batches that committed to the table since a moment."""
        recent = (found for found in self._metadata.snapshots if found.timestamp_ms >= moment.timestamp() * 1000)
        return {batch for found in recent if (batch := _summary(found).get(BATCH_PROPERTY)) is not None}

    def source_rows(self, snapshot_id: int, keys: Sequence[str]) -> dict[str, SourceRows]:
        """What a snapshot holds of some source files; those without rows are left out."""
        rows: dict[str, int] = {}
        etags: dict[str, set[str]] = {}
        key_of = {source_id(key): key for key in keys}
        for file in self._files(snapshot_id, keys):
            key = key_of[str(file.partition[0])]
            rows[key] = rows.get(key, 0) + file.record_count
            etags.setdefault(key, set()).update(str(etag) for etag in self._bounds(file, SOURCE_ETAG) or ())
        return {key: SourceRows(count, frozenset(etags[key])) for key, count in rows.items()}

    def days(self, snapshot_id: int, keys: Sequence[str], column: str) -> set[date] | None:
        """The days that a snapshot's rows of some source files may have in a column: from first to last, a data file.

        Returns:
            None where the metadata do not tell them narrowly: the column holds no dates, a data file has no bounds of
            it, or they are more than `MAX_DAYS` apart.
        """
        if not isinstance(self._metadata.schema().find_field(column).field_type, DateType):
            return None
        days: set[date] = set()
        for file in self._files(snapshot_id, keys):
            bounds = self._bounds(file, column)
            if bounds is None or bounds[1] - bounds[0] > MAX_DAYS:
                return None
            days.update(_EPOCH + timedelta(days=day) for day in range(bounds[0], bounds[1] + 1))
        return days

    def holds(self, snapshot_id: int, column: str, days: Collection[date]) -> bool:
        """Whether a snapshot may have rows of some days: false is certain."""
        chosen = In(column, literals={day.isoformat() for day in days})  # type: ignore[misc]  # hidden by its metaclass
        return any(DataScan(self._metadata, self._io, row_filter=chosen, snapshot_id=snapshot_id).plan_files())

    def _files(self, snapshot_id: int, keys: Sequence[str]) -> Iterator[DataFile]:
        """The data files of a snapshot that have rows of some source files.

        PyIceberg's own scan compares each data file with each value anew: 30 s for a thousand of a thousand.
        """
        snapshot = self._metadata.snapshot_by_id(snapshot_id)
        wanted = sorted({source_id(key) for key in keys})
        chosen = set(wanted)
        for manifest in snapshot.manifests(self._io) if snapshot else ():
            if manifest.content is ManifestContent.DATA and _may_hold(manifest, wanted):
                for entry in manifest.fetch_manifest_entry(self._io):
                    if str(entry.data_file.partition[0]) in chosen:
                        yield entry.data_file

    def _bounds(self, file: DataFile, column: str) -> tuple[Any, Any] | None:
        field = self._metadata.schema().find_field(column)
        lower, upper = ((bounds or {}).get(field.field_id) for bounds in (file.lower_bounds, file.upper_bounds))
        if lower is None or upper is None:
            return None
        # Of a date this gives the number of days since 1970.
        kind = cast(PrimitiveType, field.field_type)
        return from_bytes(kind, lower), from_bytes(kind, upper)


def _may_hold(manifest: ManifestFile, wanted: Sequence[str]) -> bool:
    """Whether one of some source ids, in order, is between the first and the last of a manifest's."""
    summary = manifest.partitions[0] if manifest.partitions else None
    if summary is None or summary.lower_bound is None or summary.upper_bound is None:
        return True
    place = bisect_left(wanted, summary.lower_bound.decode())
    return place < len(wanted) and wanted[place] <= summary.upper_bound.decode()


def spark_type(kind: IcebergType) -> str:
    """What Spark calls a type of Iceberg's."""
    if isinstance(kind, ListType):
        return f"array<{spark_type(kind.element_type)}>"
    name = str(kind).replace(" ", "")
    return _SPARK_NAMES.get(name, name)


class Lake:
    """The tables of silver and gold."""

    def __init__(self, locate: Locate, store: Store) -> None:
        self._locate = locate
        self._io = _StoreIO(store)

    def table(self, name: str) -> LakeTable | None:
        """A table as it is now; None when there is none of that name.

        Raises:
            ServiceUnavailable: the catalog or the object store does not answer.
        """
        # Old metadata files are deleted: between locating and reading many others may have committed.
        again = Retrying(retry=retry_if_exception_type(ObjectGone), stop=stop_after_attempt(TRIES), reraise=True)
        return again(self._read, name)

    def tables(self, *names: str) -> dict[str, LakeTable]:
        """Tables as they are now, by name; those that are not there are left out. Raises as `table` does."""
        return {name: table for name in names if (table := self.table(name)) is not None}

    def batches_since(self, name: str, moment: datetime) -> set[str]:
        """Ids of the batches that committed to a table since a moment; none when there is no such table."""
        table = self.table(name)
        return table.batches_since(moment) if table else set()

    def _read(self, name: str) -> LakeTable | None:
        location = self._locate(name)
        if location is None:
            return None
        return LakeTable(FromInputFile.table_metadata(self._io.new_input(location)), self._io)


def open_lake(settings: Settings, store: Store) -> Lake:
    """The tables in the catalog of a stack."""

    def locate(name: str) -> str | None:
        namespace, table = name.split(".")
        try:
            with psycopg.connect(settings.postgres_url("catalog", "lake"), connect_timeout=4) as link:
                row = link.execute(
                    "select metadata_location from public.iceberg_tables"
                    " where catalog_name = 'lake' and table_namespace = %s and table_name = %s",
                    (namespace, table),
                ).fetchone()
        except psycopg.errors.UndefinedTable:
            # The catalog makes its tables with the first one of ours.
            return None
        except psycopg.OperationalError as error:
            raise ServiceUnavailable(f"The catalog in Postgres does not answer: {type(error).__name__}.") from error
        return row[0] if row else None

    return Lake(locate, store)


class _StoreIO(FileIO):
    """PyIceberg's access to files by way of our store; for reading only."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def new_input(self, location: str) -> InputFile:
        return _StoreFile(location, self._store)

    def new_output(self, location: str) -> OutputFile:
        raise NotImplementedError("The lake's metadata are read here, never written.")

    def delete(self, location: str | InputFile | OutputFile) -> None:
        raise NotImplementedError("The lake's metadata are read here, never deleted.")


class _StoreFile(InputFile):
    def __init__(self, location: str, store: Store) -> None:
        super().__init__(location)
        self._bucket, _, self._key = location.removeprefix("s3://").partition("/")
        self._store = store

    def __len__(self) -> int:
        found = self._store.stat(self._bucket, self._key)
        return found.size if found else 0

    def exists(self) -> bool:
        return self._store.stat(self._bucket, self._key) is not None

    def open(self, seekable: bool = True) -> InputStream:
        return BytesIO(self._store.get_bytes(self._bucket, self._key, MAX_METADATA_BYTES))


def _summary(snapshot: IcebergSnapshot) -> dict[str, str]:
    return snapshot.summary.additional_properties if snapshot.summary else {}


def _snapshot(found: IcebergSnapshot) -> Snapshot:
    return Snapshot(
        snapshot_id=found.snapshot_id,
        parent_id=found.parent_snapshot_id,
        sequence_number=found.sequence_number or 0,
        committed_at=datetime.fromtimestamp(found.timestamp_ms / 1000, UTC),
        added_rows=int(_summary(found).get("added-records", "0")),
    )
