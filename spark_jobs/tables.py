"""Edge: Iceberg tables by way of Spark: what they look like, and one atomic commit that carries its batch's id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.changes import AddColumn, Incompatible, WidenColumn, evolutions
from contracts.dataset import DatasetContract, Table
from contracts.errors import ContractError, JobFailed
from spark_jobs.balanced import first_that_takes, union_of
from spark_jobs.conform import RESCUED
from spark_jobs.lake import (
    BATCH_PACK,
    BATCH_PROPERTY,
    CARRIED_PROPERTY,
    SOURCE_ETAG,
    SOURCE_ID,
    SOURCE_ID_LENGTH,
    SOURCE_KEY,
    Lake,
    LakeTable,
    Snapshot,
    source_id,
)
from spark_jobs.packs import Pack

SOURCE_COLUMNS = ((SOURCE_KEY, "string"), (SOURCE_ETAG, "string"), (SOURCE_ID, "string"))

_FORMAT = {"format-version": "2"}
"""Read when a table is made, and not kept among its properties."""
_PROPERTIES = {
    # Measured: 3 million rows 8.1 s instead of 13.5 s; a partition would otherwise go to one task.
    "write.distribution-mode": "none",
    "write.spark.fanout.enabled": "true",
    # Measured: zstd and dictionaries of 2 MB take half as long again for files a third smaller.
    "write.parquet.compression-codec": "snappy",
    "write.parquet.dict-size-bytes": "131072",
    # Measured: metrics of all columns cost a fifth of the write.
    "write.metadata.metrics.default": "none",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    # A commit of a small file is a manifest, and who looks for a month's rows reads them all. By default it is the
    # hundredth that puts them together (measured with 45 files: a sixth of the driver's CPU time).
    "commit.manifest.min-count-to-merge": "10",
}


@dataclass(frozen=True)
class TableSpec:
    """A table as the jobs need it."""

    name: str
    """`namespace.table`; the namespace is also the bucket."""
    columns: tuple[tuple[str, str], ...]
    """Name and Spark SQL type."""
    partition_by: str
    monthly: bool = False
    """A partition is a month of the days in `partition_by`, not a value of it."""
    metrics: tuple[str, ...] = ()
    """Columns whose bounds are kept, so that readers can skip files."""

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [name for name, _ in self.columns]

    @property
    def location(self) -> str:
        """Where the table's files are."""
        bucket, name = self.name.split(".")
        return f"s3://{bucket}/{name}"


def silver_spec(contract: DatasetContract) -> TableSpec:
    """The table of accepted rows; `_rescued` holds in JSON what the file says in columns that no contract names."""
    return _by_source(contract.silver, ((RESCUED, "string"),))


def features_spec(contract: DatasetContract) -> TableSpec:
    """The table of feature rows."""
    return _by_source(contract.features)


def rejects_spec(contract: DatasetContract) -> TableSpec:
    """The table of rejected rows: `_row` is the row as it came, in JSON; `_reason` the first of `_reasons`."""
    return TableSpec(
        name=contract.rejects_table,
        columns=(*SOURCE_COLUMNS, ("_reason", "string"), ("_reasons", "array<string>"), ("_row", "string")),
        partition_by=SOURCE_ID,
        metrics=(SOURCE_KEY, SOURCE_ETAG),
    )


def aggregate_spec(contract: DatasetContract) -> TableSpec:
    """The aggregate, partitioned by the column by whose values it is recomputed; where these are days, by their month.

    A day is a few thousand rows at most, and each data file costs a job and a reader time (measured: 3,000 trips of a
    month into the aggregate in 0.6 s instead of 1.2 s).
    """
    columns = tuple((column.name, column.type) for column in contract.aggregate.columns)
    by = contract.aggregate_by
    return TableSpec(contract.aggregate.name, columns, by, monthly=dict(columns)[by] == "date", metrics=(by,))


def ensure_tables(spark: SparkSession, lake: Lake, specs: Iterable[TableSpec]) -> dict[str, LakeTable]:
    """Create tables that are not there; add columns that their contract gained, and widen those that it widened.

    Returns:
        The tables as they are then, by name.

    Raises:
        ContractError: a column's type cannot become the contract's.
    """
    return {spec.name: _ensured(spark, lake, spec) for spec in specs}


def replace_sources(
    spark: SparkSession,
    df: DataFrame,
    spec: TableSpec,
    base: LakeTable,
    keys: Sequence[str],
    batch_id: str,
    came_in: Sequence[Pack] = (),
) -> None:
    """Replace the rows of some source files by `df`, in one atomic commit that carries the batch id.

    Where their rows lie in packs, the packs' other rows are written anew by the same commit.

    Args:
        df: has the table's columns, by name, and rows of these files alone.
        base: the table as the job saw it before it looked at its input; the commit is refused when a later one touched
            rows of these files or packs. This fences off a job that was overtaken by another.
        came_in: the packs that the rows are in by now, see `into_packs`; else each file's are by themselves.
    """
    partitions, packs = [source_id(key) for key in keys], _packs_of(base, keys)
    if packs:
        # As the table is now, with the columns that it has now: by the fence the rows are those of the base.
        others = spark.table(spec.name).where(F.col(SOURCE_ID).isin(packs) & ~F.col(SOURCE_KEY).isin(list(keys)))
        # The table may have columns that the contract no longer names.
        df = df.unionByName(others, allowMissingColumns=True)
    properties = {BATCH_PROPERTY: batch_id} | ({CARRIED_PROPERTY: "true"} if packs else {})
    replaced = F.col(SOURCE_ID).isin([*partitions, *packs, *(pack.id for pack in came_in)])
    # No row that the base has; it refuses the commit where another batch brought one of these files in a pack since.
    seen = sorted(base.batch_packs(base.current_id)) if base.current_id is not None else []
    since = F.col(SOURCE_ID).startswith(BATCH_PACK) & F.col(SOURCE_KEY).isin(list(keys))
    if seen:
        since &= ~F.col(SOURCE_ID).isin(seen)
    commit_rows(df, spec.name, replaced | since, properties, base.current_id)


def into_packs(rows: DataFrame, packs: Sequence[Pack]) -> DataFrame:
    """The rows, each with the id of its pack, which one task writes in the order of the keys; without packs, as before.

    Args:
        packs: in the order of their keys.
    """
    if not packs:
        return rows
    packed = rows.withColumn(SOURCE_ID, first_that_takes(F.col(SOURCE_KEY), [(pack.last, pack.id) for pack in packs]))
    return packed.repartition(len(packs), SOURCE_ID).sortWithinPartitions(SOURCE_ID, SOURCE_KEY)


def rows_of_sources(
    spark: SparkSession, name: str, table: LakeTable, keys: Sequence[str], snapshot_id: int | None = None
) -> DataFrame:
    """The rows that a table holds of some source files, with the columns that it has now.

    `_source_id` is each file's own.

    Args:
        snapshot_id: None: the newest that `table` knows, of which there has to be one.
    """
    at = table.current_id if snapshot_id is None else snapshot_id
    if at is None:
        raise ValueError(f"{name} has no snapshot")
    partitions, packs = [source_id(key) for key in keys], sorted(table.packs_of(at, keys))
    rows = rows_at(spark, name, at).where(F.col(SOURCE_ID).isin(partitions + packs))
    if new := table.columns_since(at):
        rows = rows.select("*", *(F.lit(None).cast(kind).alias(column) for column, kind in new.items()))
    return unpacked(rows.where(F.col(SOURCE_KEY).isin(list(keys)))) if packs else rows


def unpacked(rows: DataFrame) -> DataFrame:
    """The rows with the `_source_id` of the file that each is of, in place of a pack's."""
    return rows.withColumn(SOURCE_ID, F.substring(F.sha2(F.col(SOURCE_KEY), 256), 1, SOURCE_ID_LENGTH))


def replace_rows(df: DataFrame, table: str, replaced: Column, batch_id: str, base: int | None) -> None:
    """Replace the rows that are `replaced` by `df`, in one atomic commit that carries the batch id.

    Args: see `commit_rows`.
    """
    commit_rows(df, table, replaced, {BATCH_PROPERTY: batch_id}, base)


def commit_rows(df: DataFrame, table: str, replaced: Column, properties: Mapping[str, str], base: int | None) -> None:
    """Replace the rows that are `replaced` by `df`, in one atomic commit.

    Args:
        df: has the table's columns, by name; its rows are all `replaced`.
        replaced: a condition that holds for all rows of a partition of the base or for none.
        properties: that the snapshot gets.
        base: the snapshot that the job saw before it looked at its input, None when there was none yet; the commit is
            refused when a later one touched any of these rows.
    """
    writer = df.writeTo(table).option("isolation-level", "serializable")
    for name, value in properties.items():
        writer = writer.option(f"snapshot-property.{name}", value)
    if base is not None:
        writer = writer.option("validate-from-snapshot-id", str(base))
    writer.overwrite(replaced)


def union(spark: SparkSession, spec: TableSpec, frames: Sequence[DataFrame]) -> DataFrame:
    """The rows of all frames with the table's columns; without a frame, no rows."""
    if not frames:
        return spark.createDataFrame([], ", ".join(f"`{name}` {kind}" for name, kind in spec.columns))
    return union_of([frame.select(*spec.names) for frame in frames])


def commits_of(tables: Mapping[str, LakeTable], batch_id: str) -> dict[str, Snapshot]:
    """What a batch has committed, by the name of the table; tables without a commit of it are left out."""
    found = {name: table.commit_of(batch_id) for name, table in tables.items()}
    return {name: commit for name, commit in found.items() if commit is not None}


def rows_at(spark: SparkSession, table: str, snapshot_id: int) -> DataFrame:
    """A table, or a metadata table, as of a snapshot."""
    return spark.read.option("versionAsOf", str(snapshot_id)).table(table)


def _packs_of(table: LakeTable, keys: Sequence[str]) -> list[str]:
    return sorted(table.packs_of(table.current_id, keys)) if table.current_id is not None else []


def _by_source(table: Table, more: tuple[tuple[str, str], ...] = ()) -> TableSpec:
    columns = tuple((column.name, column.type) for column in table.columns) + more
    times = tuple(name for name, kind in columns if kind.startswith(("date", "timestamp")))
    return TableSpec(table.name, columns + SOURCE_COLUMNS, SOURCE_ID, metrics=(SOURCE_KEY, SOURCE_ETAG, *times))


def alterations(table: str, present: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """The statements that give a table the columns and types of its contract; Iceberg rewrites no file for them.

    Args:
        present: column to Spark type, as the table has them; `wanted`, as the contract has them.

    Raises:
        ContractError: a type cannot become the contract's; names table, column and both.
    """
    steps = evolutions(present, wanted)
    wrong = [step for step in steps if isinstance(step, Incompatible)]
    if wrong:
        told = "; ".join(f"{table}.{step.column} is {step.old}, the contract says {step.new}" for step in wrong)
        raise ContractError(
            f"{told}. Iceberg widens int to bigint, float to double and decimals to more digits, nothing else. Put the "
            "old type back into the contract, or add a column of another name.",
            table=table,
            columns=[step.column for step in wrong],
        )
    added = [f"`{step.column}` {step.type}" for step in steps if isinstance(step, AddColumn)]
    statements = [f"ALTER TABLE {table} ADD COLUMNS ({', '.join(added)})"] if added else []
    wider = (step for step in steps if isinstance(step, WidenColumn))
    return statements + [f"ALTER TABLE {table} ALTER COLUMN `{step.column}` TYPE {step.new}" for step in wider]


def _ensured(spark: SparkSession, lake: Lake, spec: TableSpec) -> LakeTable:
    table = lake.table(spec.name)
    if table is not None and spec.partition_by not in table.columns:
        raise ContractError(
            f"{spec.name} is not partitioned by {spec.partition_by}, so another version of Sluice made it. "
            "Move it away or drop it, then replay its files."
        )
    if table is None:
        _create(spark, spec)
    else:
        statements = alterations(spec.name, table.columns, dict(spec.columns))
        # Of a table that an earlier version made; what somebody set stays.
        if new := {name: value for name, value in _PROPERTIES.items() if name not in table.properties}:
            statements.append(f"ALTER TABLE {spec.name} SET TBLPROPERTIES ({_quoted(new)})")
        if not statements:
            return table
        for statement in statements:
            spark.sql(statement)
    changed = lake.table(spec.name)
    if changed is None:
        raise JobFailed(f"{spec.name} was made, but the catalog does not know it.")
    return changed


def _create(spark: SparkSession, spec: TableSpec) -> None:
    spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {spec.name.split('.')[0]}")
    columns = ", ".join(f"`{name}` {kind}" for name, kind in spec.columns)
    metrics = {f"write.metadata.metrics.column.{name}": "full" for name in spec.metrics}
    partition = f"months(`{spec.partition_by}`)" if spec.monthly else f"`{spec.partition_by}`"
    # IF NOT EXISTS: two jobs may find it missing at once.
    spark.sql(
        f"CREATE TABLE IF NOT EXISTS {spec.name} ({columns}) USING iceberg PARTITIONED BY ({partition}) "
        f"LOCATION '{spec.location}' TBLPROPERTIES ({_quoted(_FORMAT | _PROPERTIES | metrics)})"
    )


def _quoted(properties: Mapping[str, str]) -> str:
    return ", ".join(f"'{name}' = '{value}'" for name, value in properties.items())
