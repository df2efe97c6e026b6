"""Edge: Iceberg tables. One atomic commit that carries its batch's id, and what the metadata tell of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract, Table

BATCH_PROPERTY = "sluice-batch-id"
SOURCE_KEY = "_source_key"
SOURCE_ETAG = "_source_etag"
SOURCE_COLUMNS = ((SOURCE_KEY, "string"), (SOURCE_ETAG, "string"))

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PROPERTIES = {
    "format-version": "2",
    # Measured: 3 million rows 8.1 s instead of 13.5 s; a partition would otherwise go to one task.
    "write.distribution-mode": "none",
    "write.spark.fanout.enabled": "true",
    # Keys of 1,024 bytes as partition values must not end in paths.
    "write.object-storage.enabled": "true",
    "write.object-storage.partitioned-paths": "false",
    "write.parquet.compression-codec": "zstd",
    "write.parquet.compression-level": "1",
    # Measured: metrics of all columns cost a fifth of the write.
    "write.metadata.metrics.default": "none",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}


@dataclass(frozen=True)
class TableSpec:
    """A table as the jobs need it."""

    name: str
    """`namespace.table`; the namespace is also the bucket."""
    columns: tuple[tuple[str, str], ...]
    """Name and Spark SQL type."""
    partition_by: str
    metrics: tuple[str, ...] = ()
    """Columns whose bounds are kept, so that readers can skip files."""

    @property
    def location(self) -> str:
        """Where the table's files are."""
        bucket, name = self.name.split(".")
        return f"s3://{bucket}/{name}"


@dataclass(frozen=True)
class Snapshot:
    """One commit to one table."""

    snapshot_id: int
    parent_id: int | None
    committed_at: datetime
    """UTC."""
    added_rows: int


@dataclass(frozen=True)
class TableState:
    """Where a table stands, as one batch sees it."""

    current_id: int | None
    """None when nothing was ever committed."""
    batch: Snapshot | None
    """The batch's newest commit to the table."""


@dataclass(frozen=True)
class SourceRows:
    """What a snapshot holds of one source file."""

    rows: int
    etags: frozenset[str]
    """Of the source's versions that the rows came from; one, unless something went wrong."""


def silver_spec(contract: DatasetContract) -> TableSpec:
    """The table of accepted rows."""
    return _by_source(contract.silver)


def features_spec(contract: DatasetContract) -> TableSpec:
    """The table of feature rows."""
    return _by_source(contract.features)


def rejects_spec(contract: DatasetContract) -> TableSpec:
    """The table of rejected rows: `_row` is the row as it came, in JSON; `_reason` the first of `_reasons`."""
    return TableSpec(
        name=contract.rejects_table,
        columns=(*SOURCE_COLUMNS, ("_reason", "string"), ("_reasons", "array<string>"), ("_row", "string")),
        partition_by=SOURCE_KEY,
        metrics=(SOURCE_KEY, SOURCE_ETAG),
    )


def aggregate_spec(contract: DatasetContract) -> TableSpec:
    """The aggregate, partitioned by the column by whose values it is recomputed."""
    columns = tuple((column.name, column.type) for column in contract.aggregate.columns)
    return TableSpec(contract.aggregate.name, columns, contract.aggregate_by, (contract.aggregate_by,))


def ensure_table(spark: SparkSession, spec: TableSpec) -> None:
    """Create a table that is not there, and add columns that its contract gained."""
    try:
        present = set(spark.table(spec.name).columns)
    except AnalysisException as error:
        if error.getCondition() not in ("TABLE_OR_VIEW_NOT_FOUND", "SCHEMA_NOT_FOUND"):
            raise
        _create(spark, spec)
        return
    added = [f"`{name}` {kind}" for name, kind in spec.columns if name not in present]
    if added:
        spark.sql(f"ALTER TABLE {spec.name} ADD COLUMNS ({', '.join(added)})")


def replace_rows(
    df: DataFrame, table: str, column: str, values: Sequence[object], batch_id: str, base: int | None = None
) -> None:
    """Replace the rows whose `column` has one of `values` by `df`, in one atomic commit that carries the batch id.

    Args:
        df: has the table's columns, by name; its rows all have one of the values.
        column: the table's partition column.
        base: a snapshot; the commit is refused when a later one touched any of these rows. This fences off a job that
            was overtaken by another.
    """
    writer = df.writeTo(table).option(f"snapshot-property.{BATCH_PROPERTY}", batch_id)
    if base is not None:
        writer = writer.option("isolation-level", "serializable").option("validate-from-snapshot-id", str(base))
    writer.overwrite(F.col(column).isin(list(values)))


def table_states(spark: SparkSession, tables: Iterable[str], batch_id: str) -> dict[str, TableState]:
    """Where some tables stand, and what a batch has committed to them, in one round trip."""
    names = list(tables)
    rows = reduce(DataFrame.unionByName, [_commits(spark, table, batch_id) for table in names]).collect()
    states = {}
    for name in names:
        mine = [row for row in rows if row["table"] == name]
        current = [int(row["snapshot_id"]) for row in mine if row["committed_ms"] is None]
        commits = sorted((row for row in mine if row["committed_ms"] is not None), key=lambda row: row["committed_ms"])
        states[name] = TableState(current[0] if current else None, _snapshot(commits[-1]) if commits else None)
    return states


def rows_at(spark: SparkSession, table: str, snapshot_id: int) -> DataFrame:
    """A table, or a metadata table, as of a snapshot."""
    return spark.read.option("versionAsOf", str(snapshot_id)).table(table)


def source_rows(
    spark: SparkSession, snapshots: Mapping[str, int], keys: Sequence[str]
) -> dict[str, dict[str, SourceRows]]:
    """What snapshots hold of some source files, from the metadata alone.

    Args:
        snapshots: table name to snapshot id.

    Returns:
        Table name to source key to its rows; sources without rows are left out.
    """
    found = reduce(DataFrame.unionByName, [_files(spark, table, at, keys) for table, at in snapshots.items()])
    counts: dict[str, dict[str, SourceRows]] = {table: {} for table in snapshots}
    for row in found.collect():
        counts[row["table"]][row["key"]] = SourceRows(int(row["rows"]), frozenset(row["etags"]))
    return counts


def _by_source(table: Table) -> TableSpec:
    columns = tuple((column.name, column.type) for column in table.columns)
    times = tuple(name for name, kind in columns if kind.startswith(("date", "timestamp")))
    return TableSpec(table.name, columns + SOURCE_COLUMNS, SOURCE_KEY, (SOURCE_KEY, SOURCE_ETAG, *times))


def _create(spark: SparkSession, spec: TableSpec) -> None:
    spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {spec.name.split('.')[0]}")
    columns = ", ".join(f"`{name}` {kind}" for name, kind in spec.columns)
    metrics = {f"write.metadata.metrics.column.{name}": "full" for name in spec.metrics}
    properties = ", ".join(f"'{name}' = '{value}'" for name, value in (_PROPERTIES | metrics).items())
    # IF NOT EXISTS: two jobs may find it missing at once.
    spark.sql(
        f"CREATE TABLE IF NOT EXISTS {spec.name} ({columns}) USING iceberg PARTITIONED BY (`{spec.partition_by}`) "
        f"LOCATION '{spec.location}' TBLPROPERTIES ({properties})"
    )


def _commits(spark: SparkSession, table: str, batch_id: str) -> DataFrame:
    """The batch's snapshots, and the current one as a row without `committed_ms`."""
    summary = F.col("summary")
    added = F.try_element_at(summary, F.lit("added-records")).cast("bigint")
    commits = (
        spark.table(f"{table}.snapshots")
        .where(F.try_element_at(summary, F.lit(BATCH_PROPERTY)) == batch_id)
        .select(
            "snapshot_id",
            "parent_id",
            F.unix_millis("committed_at").alias("committed_ms"),
            F.coalesce(added, F.lit(0).cast("bigint")).alias("added_rows"),
        )
    )
    none = F.lit(None).cast("bigint")
    current = (
        spark.table(f"{table}.refs")
        .where("name = 'main'")
        .select("snapshot_id", none.alias("parent_id"), none.alias("committed_ms"), none.alias("added_rows"))
    )
    return commits.unionByName(current).withColumn("table", F.lit(table))


def _snapshot(row: Row) -> Snapshot:
    return Snapshot(
        snapshot_id=row["snapshot_id"],
        parent_id=row["parent_id"],
        committed_at=_EPOCH + timedelta(milliseconds=row["committed_ms"]),
        added_rows=row["added_rows"],
    )


def _files(spark: SparkSession, table: str, snapshot_id: int, keys: Sequence[str]) -> DataFrame:
    key = F.col(f"partition.{SOURCE_KEY}")
    etags = F.array(*(F.col(f"readable_metrics.{SOURCE_ETAG}.{bound}") for bound in ("lower_bound", "upper_bound")))
    return (
        rows_at(spark, f"{table}.files", snapshot_id)
        .where(key.isin(list(keys)))
        .groupBy(key.alias("key"))
        .agg(
            F.sum("record_count").alias("rows"),
            F.array_compact(F.array_distinct(F.flatten(F.collect_set(etags)))).alias("etags"),
        )
        .select(F.lit(table).alias("table"), "key", "rows", "etags")
    )
