"""Edge: what the metadata of Iceberg tables tell, read without Spark.

A question to Spark's metadata tables is a job of 0.3 to 0.6 s; the same answer from their files takes some 20 ms.
"""

from __future__ import annotations

import hashlib
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import SEEK_CUR, SEEK_END, SEEK_SET, BytesIO, RawIOBase
from typing import Any, cast

import psycopg
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import In
from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry, ManifestFile
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
CARRIED_PROPERTY = "sluice-carried"
"""Of a commit that wrote, beside the rows of its batch, others of the same packs anew."""
SOURCE_ID = "_source_id"
"""Partition column of the row-level tables: the `source_id` of a file, or the id of a pack."""
SOURCE_ID_LENGTH = 32
PACK = "pack-"
"""The ids of packs begin so: partitions that hold the rows of several small source files."""
BATCH_PACK = f"{PACK}of-"
"""So do those of packs in which a batch of many small files came; upkeep makes the others of them."""
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
    added_rows: int | None
    """Rows that its batch wrote; None where it carried others along, so that its summary does not tell."""
    removed_rows: int = 0
    batch_id: str | None = None
    """Whose commit it is; None: upkeep's, or a person's."""


@dataclass(frozen=True)
class SourceRows:
    """What a snapshot holds of one source file."""

    rows: int
    etags: frozenset[str]
    """Of the source's versions that the rows came from; one, unless something went wrong."""


@dataclass(frozen=True)
class Partition:
    """The data files that hold the rows of one source file, or of a pack."""

    id: str
    files: int
    bytes: int
    lowest: str
    """The first of the keys that its rows are of; `highest` is the last."""
    highest: str
    written_at: datetime | None
    """When the newest of its files was committed, UTC; None when that snapshot has expired."""

    @property
    def is_pack(self) -> bool:
        """Whether it holds the rows of several source files."""
        return self.id.startswith(PACK)

    @property
    def is_of_batch(self) -> bool:
        """Whether it is a pack that came so."""
        return self.id.startswith(BATCH_PACK)


def source_id(key: str) -> str:
    """What stands for an object's key in paths: 32 hexadecimal digits of its SHA-256.

    A key has up to 1,024 bytes of any text, and the paths of a partitioned table hold the partition's value.
    """
    return hashlib.sha256(key.encode()).hexdigest()[:SOURCE_ID_LENGTH]


class LakeTable:
    """A table as its metadata file described it when it was read; it does not follow later commits."""

    def __init__(self, metadata: TableMetadata, io: _StoreIO) -> None:
        self._metadata = metadata
        self._io = io
        self._with_packs: dict[str, list[ManifestEntry]] = {}
        """Entries of the manifests that name packs, which each question about keys has to go through."""

    @property
    def columns(self) -> dict[str, str]:
        """Column to its type, as Spark calls it."""
        return {field.name: spark_type(field.field_type) for field in self._metadata.schema().fields}

    @property
    def properties(self) -> dict[str, str]:
        """Iceberg's properties of the table, those that are set."""
        return dict(self._metadata.properties)

    @property
    def current_id(self) -> int | None:
        """The newest snapshot; None when nothing was ever committed."""
        return self._metadata.current_snapshot_id

    @property
    def data_files(self) -> int:
        """How many data files the newest snapshot has."""
        current = self._metadata.current_snapshot()
        return int(_summary(current).get("total-data-files", "0")) if current else 0

    def commit_of(self, batch_id: str, by: str = BATCH_PROPERTY) -> Snapshot | None:
        """A batch's newest commit to the table, or that of another value of another property."""
        own = [found for found in self._metadata.snapshots if _summary(found).get(by) == batch_id]
        return _snapshot(max(own, key=lambda found: found.sequence_number or 0)) if own else None

    def snapshot(self, snapshot_id: int) -> Snapshot | None:
        """The snapshot of an id; None when it has expired."""
        found = self._metadata.snapshot_by_id(snapshot_id)
        return _snapshot(found) if found else None

    def columns_since(self, snapshot_id: int) -> dict[str, str]:
        """The columns that the table has gained since a snapshot, with their types, as Spark calls them."""
        found = self._metadata.snapshot_by_id(snapshot_id)
        schema = self._metadata.schema_by_id(found.schema_id) if found and found.schema_id is not None else None
        had = {field.name for field in schema.fields} if schema else set(self.columns)
        return {name: kind for name, kind in self.columns.items() if name not in had}

    def expire_before(self, moment: datetime) -> datetime | None:
        """From when on snapshots have to stay, so that the table can be read as it was at any time since a moment.

        Returns:
            When the snapshot was committed that was the newest at that moment, UTC; None when none is older than it.
        """
        times = sorted(found.timestamp_ms for found in self._metadata.snapshots)
        newest = bisect_right(times, int(moment.timestamp() * 1000)) - 1
        return datetime.fromtimestamp(times[newest] / 1000, UTC) if newest > 0 else None

    def batches_since(self, moment: datetime) -> set[str]:
        """Ids of the batches that committed to the table since a moment."""
        recent = (found for found in self._metadata.snapshots if found.timestamp_ms >= moment.timestamp() * 1000)
        return {batch for found in recent if (batch := _summary(found).get(BATCH_PROPERTY)) is not None}

    def source_rows(self, snapshot_id: int, keys: Collection[str]) -> dict[str, SourceRows]:
        """What a snapshot holds of some source files; those without rows are left out."""
        found: dict[str, SourceRows] = {}
        for _, held in self._held(snapshot_id, keys):
            for key, more in held.items():
                so_far = found.get(key, SourceRows(0, frozenset()))
                found[key] = SourceRows(so_far.rows + more.rows, so_far.etags | more.etags)
        return found

    def paths_of(self, snapshot_id: int, keys: Collection[str]) -> list[str]:
        """The data files, as `s3://…`, that hold a snapshot's rows of some source files, and may hold others' too."""
        return [file.file_path for file in self._files(snapshot_id, keys)]

    def packs_of(self, snapshot_id: int, keys: Collection[str]) -> set[str]:
        """Ids of the packs in which a snapshot holds rows of some source files."""
        return {partition for partition, held in self._held(snapshot_id, keys) if partition.startswith(PACK) and held}

    def batch_packs(self, snapshot_id: int) -> set[str]:
        """Ids of all packs of a snapshot in which a batch came."""
        entries = self._all_entries(snapshot_id, _may_have_packs)
        return {pack for entry in entries if (pack := _partition_of(entry.data_file)).startswith(BATCH_PACK)}

    def sources_in(self, snapshot_id: int, packs: Collection[str]) -> dict[str, dict[str, SourceRows]]:
        """Pack to what it holds of each source file, by key."""
        found: dict[str, dict[str, SourceRows]] = {pack: {} for pack in packs}
        for file in self._all_files(snapshot_id):
            if (pack := _partition_of(file)) in found:
                found[pack] |= self._contents(file)
        return found

    def partitions(self, snapshot_id: int) -> list[Partition]:
        """All partitions of a snapshot of a row-level table, in the order of their first keys."""
        found: dict[str, Partition] = {}
        for entry in self._all_entries(snapshot_id):
            file = entry.data_file
            name, keys = _partition_of(file), self._bounds(file, SOURCE_KEY) or ("", "")
            written = self._metadata.snapshot_by_id(entry.snapshot_id) if entry.snapshot_id else None
            at = datetime.fromtimestamp(written.timestamp_ms / 1000, UTC) if written else None
            own = found.get(name, Partition(name, 0, 0, keys[0], keys[1], at))
            found[name] = Partition(
                id=name,
                files=own.files + 1,
                bytes=own.bytes + file.file_size_in_bytes,
                lowest=min(own.lowest, keys[0]),
                highest=max(own.highest, keys[1]),
                written_at=max(own.written_at, at) if own.written_at and at else own.written_at or at,
            )
        return sorted(found.values(), key=lambda partition: (partition.lowest, partition.id))

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

    def _files(self, snapshot_id: int, keys: Collection[str]) -> Iterator[DataFile]:
        """The data files of a snapshot that have rows of some source files, and those of packs that may have.

        PyIceberg's own scan compares each data file with each value anew: 30 s for a thousand of a thousand.
        """
        ids, ordered = sorted({source_id(key) for key in keys}), sorted(keys)
        chosen = set(ids)
        for entry in self._all_entries(snapshot_id, lambda manifest: _may_hold(manifest, ids)):
            file = entry.data_file
            if _is_pack(file):
                lowest, highest = self._bounds(file, SOURCE_KEY) or ("", chr(sys.maxunicode))
                if _any_between(ordered, lowest, highest):
                    yield file
            elif _partition_of(file) in chosen:
                yield file

    def _held(self, snapshot_id: int, keys: Collection[str]) -> Iterator[tuple[str, dict[str, SourceRows]]]:
        """Partition, and what a data file of it holds of some source files."""
        key_of = {source_id(key): key for key in keys}
        wanted = set(keys)
        for file in self._files(snapshot_id, wanted):
            partition = _partition_of(file)
            if _is_pack(file):
                yield partition, {key: rows for key, rows in self._contents(file).items() if key in wanted}
            else:
                etags = frozenset(str(etag) for etag in self._bounds(file, SOURCE_ETAG) or ())
                yield partition, {key_of[partition]: SourceRows(file.record_count, etags)}

    def _contents(self, file: DataFile) -> dict[str, SourceRows]:
        """What a pack's data file holds of each source file, by key; its rows tell."""
        from pyarrow.parquet import ParquetFile

        source = _StoreFile(file.file_path, self._io.store).ranges(file.file_size_in_bytes)
        rows = ParquetFile(source, pre_buffer=True).read(columns=[SOURCE_KEY, SOURCE_ETAG])
        counts = rows.group_by([SOURCE_KEY, SOURCE_ETAG]).aggregate([([], "count_all")]).to_pylist()
        found: dict[str, SourceRows] = {}
        for row in counts:
            so_far = found.get(row[SOURCE_KEY], SourceRows(0, frozenset()))
            etags = so_far.etags | {row[SOURCE_ETAG]}
            found[row[SOURCE_KEY]] = SourceRows(so_far.rows + row["count_all"], etags)
        return found

    def _all_files(self, snapshot_id: int) -> Iterator[DataFile]:
        return (entry.data_file for entry in self._all_entries(snapshot_id))

    def _all_entries(
        self, snapshot_id: int, wanted: Callable[[ManifestFile], bool] = lambda manifest: True
    ) -> Iterator[ManifestEntry]:
        snapshot = self._metadata.snapshot_by_id(snapshot_id)
        for manifest in snapshot.manifests(self._io) if snapshot else ():
            if manifest.content is not ManifestContent.DATA or not wanted(manifest):
                continue
            if not _may_have_packs(manifest):
                yield from manifest.fetch_manifest_entry(self._io)
                continue
            path = manifest.manifest_path
            if path not in self._with_packs:
                self._with_packs[path] = manifest.fetch_manifest_entry(self._io)
            yield from self._with_packs[path]

    def _bounds(self, file: DataFile, column: str) -> tuple[Any, Any] | None:
        field = self._metadata.schema().find_field(column)
        lower, upper = ((bounds or {}).get(field.field_id) for bounds in (file.lower_bounds, file.upper_bounds))
        if lower is None or upper is None:
            return None
        # Of a date this gives the number of days since 1970.
        kind = cast(PrimitiveType, field.field_type)
        return from_bytes(kind, lower), from_bytes(kind, upper)


def _partition_of(file: DataFile) -> str:
    return str(file.partition[0])


def _is_pack(file: DataFile) -> bool:
    return _partition_of(file).startswith(PACK)


def _may_hold(manifest: ManifestFile, ids: Sequence[str]) -> bool:
    """Whether one of some source ids, in order, is between the first and the last of a manifest's, or it has packs."""
    if (bounds := _ids_of(manifest)) is None:
        return True
    return bounds[1] >= PACK or _any_between(ids, *bounds)


def _may_have_packs(manifest: ManifestFile) -> bool:
    """Ids are hexadecimal, so those of packs come after all of them."""
    bounds = _ids_of(manifest)
    return bounds is None or bounds[1] >= PACK


def _ids_of(manifest: ManifestFile) -> tuple[str, str] | None:
    """The first and the last partition of a manifest, if it tells."""
    summary = manifest.partitions[0] if manifest.partitions else None
    if summary is None or summary.lower_bound is None or summary.upper_bound is None:
        return None
    return summary.lower_bound.decode(), summary.upper_bound.decode()


def _any_between(ordered: Sequence[str], first: str, last: str) -> bool:
    place = bisect_left(ordered, first)
    return place < len(ordered) and ordered[place] <= last


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
        self.store = store

    def new_input(self, location: str) -> InputFile:
        return _StoreFile(location, self.store)

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

    def ranges(self, size: int) -> RawIOBase:
        """The file of so many bytes, of which only what is read is fetched."""
        return _Ranges(size, lambda offset, length: self._store.get_range(self._bucket, self._key, offset, length))


class _Ranges(RawIOBase):
    """A file that is fetched piece by piece."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._fetch = fetch
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._place = offset + {SEEK_SET: 0, SEEK_CUR: self._place, SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        wanted = left if size < 0 else min(size, left)
        data = self._fetch(self._place, wanted) if wanted else b""
        self._place += len(data)
        return data


def _summary(snapshot: IcebergSnapshot) -> dict[str, str]:
    return snapshot.summary.additional_properties if snapshot.summary else {}


def _snapshot(found: IcebergSnapshot) -> Snapshot:
    return Snapshot(
        snapshot_id=found.snapshot_id,
        parent_id=found.parent_snapshot_id,
        sequence_number=found.sequence_number or 0,
        committed_at=datetime.fromtimestamp(found.timestamp_ms / 1000, UTC),
        added_rows=None if CARRIED_PROPERTY in _summary(found) else int(_summary(found).get("added-records", "0")),
        removed_rows=int(_summary(found).get("deleted-records", "0")),
        batch_id=_summary(found).get(BATCH_PROPERTY),
    )
