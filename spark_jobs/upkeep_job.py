"""Upkeep of a dataset's tables: small files put together, old snapshots expired, files of no snapshot removed."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime

from pydantic import BaseModel
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract, Upkeep
from contracts.errors import AccountingMismatch
from spark_jobs.lake import SOURCE_ID, Lake
from spark_jobs.packs import cut, cut_anew, small_and_old, sources_of
from spark_jobs.session import CATALOG, spark_errors
from spark_jobs.tables import (
    TableSpec,
    aggregate_spec,
    commit_rows,
    features_spec,
    into_packs,
    rejects_spec,
    silver_spec,
)

log = logging.getLogger(__name__)

UPKEEP_PROPERTY = "sluice-upkeep-id"
"""Of a snapshot that upkeep made: it changed where rows lie, and no row."""


class TableUpkeep(BaseModel):
    """What was done to a table."""

    table: str
    files_before: int
    files_after: int
    packed: int
    """Source files whose rows were put into packs, or from small ones into larger."""
    snapshots_expired: bool
    orphans_removed: int
    """Files of the table's folder that no snapshot knew of."""


def run(
    spark: SparkSession, lake: Lake, contract: DatasetContract, now: datetime, busy_since: datetime | None = None
) -> list[TableUpkeep]:
    """Look after the tables of a dataset, within the limits of its contract; those that are not there are left out.

    Args:
        busy_since: since when a job may be under way that reads the tables; what they held then stays readable.

    Raises:
        JobFailed, ServiceUnavailable: try again. A job that changes the same rows meanwhile makes the commit fail,
            which then changes nothing.
        AccountingMismatch: a commit that puts files together has other rows than before.
    """
    row_level = [silver_spec(contract), rejects_spec(contract)]
    others: list[TableSpec] = []
    if contract.gold:
        row_level.append(features_spec(contract))
        others.append(aggregate_spec(contract))
    return [
        done
        for spec in (*row_level, *others)
        if (done := _look_after(spark, lake, spec, contract.upkeep, now, busy_since, pack=spec in row_level))
    ]


def _look_after(
    spark: SparkSession,
    lake: Lake,
    spec: TableSpec,
    limits: Upkeep,
    now: datetime,
    busy_since: datetime | None,
    pack: bool,
) -> TableUpkeep | None:
    before = lake.table(spec.name)
    if before is None or before.current_id is None:
        return None
    with spark_errors(f"looking after {spec.name}"):
        packed = 0
        while pack and (more := pack_once(spark, lake, spec, limits, now)):
            packed += more
        expired = _expire(spark, lake, spec.name, min(now - limits.keep_snapshots, busy_since or now))
        orphans = _remove_orphans(spark, spec.name, now - limits.keep_orphans)
    after = lake.table(spec.name) or before
    done = TableUpkeep(
        table=spec.name,
        files_before=before.data_files,
        files_after=after.data_files,
        packed=packed,
        snapshots_expired=expired,
        orphans_removed=orphans,
    )
    log.info("%s", done.model_dump_json())
    return done


def pack_once(spark: SparkSession, lake: Lake, spec: TableSpec, limits: Upkeep, now: datetime) -> int:
    """Put small source files and packs of a table together, in one commit; how many files, 0 when nothing is to do.

    Raises: as `run`.
    """
    table = lake.table(spec.name)
    if table is None or table.current_id is None:
        return 0
    partitions = table.partitions(table.current_id)
    chosen = small_and_old(partitions, limits.pack_below, now - limits.pack_after)
    if not chosen:
        return 0
    small = [partition for partition in chosen if not partition.is_pack]
    came = [partition for partition in chosen if partition.is_pack]
    anew = [*cut_anew(partitions, chosen), *came]
    held = table.sources_in(table.current_id, [pack.id for pack in anew])
    packs = cut(sources_of(small, anew, held))
    replaced = [partition.id for partition in (*small, *anew)]
    # All columns that the table has: the contract may no longer name one of them, and its values stay.
    rows = spark.table(spec.name).where(F.col(SOURCE_ID).isin(replaced))
    upkeep_id = uuid.uuid4().hex
    touched = F.col(SOURCE_ID).isin([*replaced, *(pack.id for pack in packs)])
    commit_rows(into_packs(rows, packs), spec.name, touched, {UPKEEP_PROPERTY: upkeep_id}, table.current_id)
    changed = lake.table(spec.name)
    commit = changed.commit_of(upkeep_id, UPKEEP_PROPERTY) if changed else None
    if commit is not None and commit.added_rows != commit.removed_rows:
        raise AccountingMismatch(
            f"Upkeep of {spec.name} took {commit.removed_rows} rows away and wrote {commit.added_rows} in their place "
            f"(snapshot {commit.snapshot_id}). Roll the table back to the snapshot before it, and replay the files "
            "that came since."
        )
    return len(small) + sum(len(held[pack.id]) for pack in came)


def _expire(spark: SparkSession, lake: Lake, name: str, keep_since: datetime) -> bool:
    table = lake.table(name)
    older_than = table.expire_before(keep_since) if table else None
    if older_than is None:
        return False
    spark.sql(f"CALL {CATALOG}.system.expire_snapshots(table => '{name}', older_than => {_moment(older_than)})")
    return True


def _remove_orphans(spark: SparkSession, name: str, older_than: datetime) -> int:
    # A table has a folder for each file that came; asked folder by folder, the store would answer as many lists.
    call = (
        f"CALL {CATALOG}.system.remove_orphan_files(table => '{name}', older_than => {_moment(older_than)},"
        " prefix_listing => true)"
    )
    return len(spark.sql(call).collect())


def _moment(at: datetime) -> str:
    # Wall-clock times pass through the session's zone, which is UTC.
    return f"TIMESTAMP '{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"
