"""Read bronze files: which row comes from which object, whatever the object is called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.dataset import ROW_ID, DatasetContract
from contracts.errors import JobFailed, ScanFailed
from spark_jobs.checks import PERIOD_END, PERIOD_START
from spark_jobs.conform import as_it_came, conform
from spark_jobs.lake import SOURCE_ETAG, SOURCE_ID, SOURCE_KEY, source_id
from spark_jobs.matching import Layout
from spark_jobs.packs import MANY_FILES
from spark_jobs.preflight import GLOB_SIGNS, Accepted
from spark_jobs.repeats import find_repeats, mark_repeats, wanted, with_repeats
from spark_jobs.session import spark_errors

ORIGIN = (SOURCE_ID, SOURCE_KEY, SOURCE_ETAG, PERIOD_START, PERIOD_END)
_ESCAPED = r"\\\1"
_PATH = "_path"
_TYPES = ("string", "string", "string", "timestamp_ntz", "timestamp_ntz")


def scan_files(
    spark: SparkSession, contract: DatasetContract, files: Sequence[Accepted], few: bool = False
) -> list[tuple[Layout, DataFrame]]:
    """The conformed rows of some files (see `conform`), with the columns of `ORIGIN`.

    Where a rule asks for them, with `_copy` and `_negated` (see `find_repeats`); unless the rows are few, they are read
    for that.

    Args:
        few: the rows are; of a layout with few files they are one partition, of more they are shared by the cores.

    Returns:
        A layout and its rows for each scan; files of one layout are read by one.

    Raises:
        JobFailed: Spark names a file that was not asked for.
    """
    return [(layout, _scan(spark, contract, layout, group, few)) for layout, group in _by_layout(files).items()]


def _scan(
    spark: SparkSession, contract: DatasetContract, layout: Layout, files: Sequence[Accepted], few: bool
) -> DataFrame:
    columns = contract.silver.columns
    raw = _with_origin(spark, contract, layout, files)
    if few and len(files) <= MANY_FILES:
        raw = raw.coalesce(1)
    if not wanted(contract):
        return conform(raw, columns, layout, keep=ORIGIN)
    if few:
        return with_repeats(conform(raw, columns, layout, keep=(*ORIGIN, ROW_ID)), contract)
    repeats = find_repeats(spark, contract, layout, raw, sum(file.rows for file in files))
    return mark_repeats(conform(raw, columns, layout, keep=(*ORIGIN, ROW_ID)), repeats)


def find_unreadable(spark: SparkSession, files: Sequence[Accepted]) -> list[Accepted]:
    """Those files that Spark cannot decode, found by halving.

    Raises:
        JobFailed: a read failed for a reason that is not in a file.
    """
    if _readable(spark, files):
        return []
    if len(files) == 1:
        return list(files)
    half = len(files) // 2
    return find_unreadable(spark, files[:half]) + find_unreadable(spark, files[half:])


def _readable(spark: SparkSession, files: Sequence[Accepted]) -> bool:
    try:
        with spark_errors(f"reading {len(files)} files to find a damaged one"):
            for layout, group in _by_layout(files).items():
                _raw_scan(spark, layout, group).write.format("noop").mode("overwrite").save()
    except ScanFailed:
        return False
    return True


def _by_layout(files: Sequence[Accepted]) -> dict[Layout, list[Accepted]]:
    groups: dict[Layout, list[Accepted]] = defaultdict(list)
    for file in files:
        groups[file.layout].append(file)
    return groups


def _raw_scan(spark: SparkSession, layout: Layout, files: Sequence[Accepted]) -> DataFrame:
    """One scan of files of one layout."""
    # Spark takes paths for glob patterns; its own switch for that (`__globPaths__`) is not heeded over Spark Connect.
    paths = [f"s3://{GLOB_SIGNS.sub(_ESCAPED, file.item.uri)}" for file in files]
    return spark.read.schema(layout.ddl).parquet(*paths)


def _with_origin(
    spark: SparkSession, contract: DatasetContract, layout: Layout, files: Sequence[Accepted]
) -> DataFrame:
    """The rows as they came, with the columns of `ORIGIN`, and `_row_id`.

    That is the part and the place in it. Both are the same in each scan of the same files, since `engine_conf` fixes
    into how many parts files are split.
    """
    raw = _raw_scan(spark, layout, files)
    row_id = F.monotonically_increasing_id().alias(ROW_ID)
    if len(files) == 1:
        origin = zip(ORIGIN, _origin(contract, files[0]), _TYPES, strict=True)
        of_file = (F.lit(value).cast(kind).alias(name) for name, value, kind in origin)
        return raw.select(*as_it_came(layout), row_id, *of_file)
    by_uri = {f"s3://{file.item.uri}": file for file in files}
    rows = []
    for path in raw.inputFiles():
        # Spark percent-encodes paths, and leaves a plus sign as it is.
        file = by_uri.get(unquote(path))
        if file is None:
            raise JobFailed(f"Spark reads {path!r}, which is none of the {len(files)} files asked for.")
        rows.append((path, *_origin(contract, file)))
    schema = ", ".join(f"{name} string" for name in (_PATH, *ORIGIN))
    columns = [F.col(name).cast(kind) for name, kind in zip(ORIGIN, _TYPES, strict=True)]
    names = F.broadcast(spark.createDataFrame(rows, schema).select(_PATH, *columns))
    # One after the other: in one step with the id, or after it, the native reader cannot tell the path.
    path = raw.metadataColumn("_metadata")["file_path"].alias(_PATH)
    placed = raw.select(*as_it_came(layout), path).select("*", row_id)
    return placed.join(names, _PATH)


def _origin(contract: DatasetContract, file: Accepted) -> tuple[str | None, ...]:
    period = contract.period_of(file.item.key)
    bounds = (period.start.isoformat(), period.end.isoformat()) if period else (None, None)
    return source_id(file.item.key), file.item.key, file.item.etag, *bounds
