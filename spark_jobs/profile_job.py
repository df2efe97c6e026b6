"""Profiles of a batch's files: one look at their rows in silver, after gold was woken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from pyspark.sql import Column as SparkColumn
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from contracts.dataset import Column, DatasetContract
from contracts.markers import CommitMarker, SourceResult, marker_key, parse_marker
from contracts.profile import MOST_VALUES, STEPS, ColumnProfile, Profile, profile_key
from ingest.store import Store
from spark_jobs.lake import SOURCE_KEY, Lake, LakeTable, source_id
from spark_jobs.session import spark_errors
from spark_jobs.tables import rows_of_sources

SAMPLE = 200_000
"""Rows of a file, about, that tell its quantiles and values; of so many a share is a third of a percent off."""
FILES_AT_ONCE = 200
"""A row of the answer holds what there is to say of all columns of a file."""
MARKER_BYTES = 64 * 1024**2
_SAMPLED = "_sampled"
_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal")
_VALUES = ("string", "boolean", "tinyint", "smallint", "int", "bigint")
_WHOLE = _VALUES[2:]


def run(spark: SparkSession, lake: Lake, store: Store, contract: DatasetContract, batch_id: str) -> list[Profile]:
    """Make and keep the profiles of the files that a batch brought into silver; none where it committed nothing.

    Raises:
        JobFailed, ServiceUnavailable: try again; the same profiles are written once more.
        ObjectGone: the batch has no commit marker (yet); try again.
    """
    table = lake.table(contract.silver.name)
    commit = table.commit_of(batch_id) if table else None
    if table is None or commit is None:
        return []
    key = marker_key(contract.silver.name, commit.snapshot_id, batch_id)
    marker = parse_marker(store.get_bytes("silver", key, MARKER_BYTES))
    profiles = list(_profiles(spark, table, contract, marker, commit.snapshot_id))
    for profile in profiles:
        place = profile_key(contract.dataset, source_id(profile.key), profile.etag)
        store.put_bytes("silver", place, profile.model_dump_json().encode(), "application/json")
    return profiles


def _profiles(
    spark: SparkSession, table: LakeTable, contract: DatasetContract, marker: CommitMarker, snapshot_id: int
) -> Iterator[Profile]:
    taken = [source for source in marker.sources if source.refused is None and not source.deleted]
    for start in range(0, len(taken), FILES_AT_ONCE):
        sources = taken[start : start + FILES_AT_ONCE]
        found = _look(spark, table, contract, sources, snapshot_id)
        for source in sources:
            yield Profile(
                bucket=source.bucket,
                key=source.key,
                etag=source.etag,
                dataset=contract.dataset,
                snapshot_id=snapshot_id,
                made_at=datetime.now(UTC),
                rows_in=source.rows_in,
                rows_accepted=source.rows_accepted,
                rows_rejected=source.rows_rejected,
                reasons=source.reasons,
                columns=found.get(source.key, ()),
            )


def _look(
    spark: SparkSession,
    table: LakeTable,
    contract: DatasetContract,
    sources: Sequence[SourceResult],
    snapshot_id: int,
) -> dict[str, tuple[ColumnProfile, ...]]:
    """Key to what the columns of a file's rows hold, by one query; files without rows are left out."""
    name, columns = contract.silver.name, contract.silver.columns
    keys = [source.key for source in sources if source.rows_accepted]
    if not keys:
        return {}
    total = sum(source.rows_accepted for source in sources)
    share = min(1.0, SAMPLE * len(keys) / total)
    asked = [F.count("*").alias("rows")]
    for place, column in enumerate(columns):
        asked += [told.alias(f"{what}_{place}") for what, told in _asked_of(column).items()]
    with spark_errors(f"profiling {len(keys)} file(s) of {name}"):
        own = rows_of_sources(spark, name, table, keys, snapshot_id).withColumn(_SAMPLED, F.rand(seed=1) < share)
        rows = own.groupBy(SOURCE_KEY).agg(*asked).collect()
    return {
        row[SOURCE_KEY]: tuple(_profile_of(column, row, place) for place, column in enumerate(columns)) for row in rows
    }


def _asked_of(column: Column) -> dict[str, SparkColumn]:
    values = F.col(f"`{column.name}`")
    sample = F.when(F.col(_SAMPLED), values)
    asked = {"there": F.count(values)}
    if column.type.startswith(_NUMBERS):
        steps = F.array(*(F.lit(step / STEPS) for step in range(STEPS + 1)))
        asked["quantiles"] = F.percentile_approx(sample.cast("double"), steps, F.lit(1000))
    if column.type.startswith(_VALUES):
        asked["values"] = F.call_function("approx_top_k", sample.cast("string"), F.lit(MOST_VALUES + 1))
    if not column.type.startswith(("array", "map", "struct", "binary")):
        asked |= {"minimum": F.min(values).cast("string"), "maximum": F.max(values).cast("string")}
    return asked


def _profile_of(column: Column, row: Row, place: int) -> ColumnProfile:
    told = {name.rpartition("_")[0]: value for name, value in row.asDict().items() if name.endswith(f"_{place}")}
    counts = {item["item"]: item["count"] for item in told.get("values") or () if item["item"] is not None}
    # Whole numbers of more values are no codes.
    codes = len(counts) <= MOST_VALUES or not column.type.startswith(_WHOLE)
    return ColumnProfile(
        name=column.name,
        type=column.type,
        unit=column.unit,
        nulls=row["rows"] - told["there"],
        minimum=told.get("minimum"),
        maximum=told.get("maximum"),
        quantiles=tuple(told.get("quantiles") or ()),
        values=dict(list(counts.items())[:MOST_VALUES]) if codes else {},
    )
