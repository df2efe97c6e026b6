"""Silver to gold: features of each row, and the aggregate of the days, or whatever it is kept by, that changed.

By hand: spark-submit spark_jobs/feature_engineering_job.py --year 2025 [--month 1] [--dataset NAME] [--key bronze/…]
"""

from __future__ import annotations

import sys
from calendar import monthrange
from collections.abc import Iterable
from datetime import UTC, date, datetime
from functools import reduce
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # spark-submit puts this script's folder on the path, not the repository.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract
from contracts.errors import AccountingMismatch, JobFailed
from contracts.fail_points import Step, reach
from contracts.markers import CommitMarker, SourceResult
from contracts.states import Layer, Reason
from contracts.work import Batch, WorkItem, refuse_other
from ingest.store import Store
from spark_jobs.balanced import any_of
from spark_jobs.lake import Lake, LakeTable, Snapshot, SourceRows
from spark_jobs.marking import put_marker, result
from spark_jobs.packs import packs_of_batch
from spark_jobs.references import References
from spark_jobs.session import spark_errors
from spark_jobs.tables import (
    aggregate_spec,
    commits_of,
    ensure_tables,
    features_spec,
    into_packs,
    replace_rows,
    replace_sources,
    rows_of_sources,
)
from spark_jobs.transforms.loading import load_transforms


def run(
    spark: SparkSession,
    lake: Lake,
    store: Store,
    contract: DatasetContract,
    batch: Batch,
    dag_id: str = "",
    run_id: str = "",
) -> CommitMarker:
    """Take the silver rows of a batch's files into gold: features, then the aggregate. Twice is as once.

    Returns:
        The marker, as it was put into the bucket `gold`: for each file the silver rows in and the feature rows
        accepted, or that silver holds another version of it by now.

    Raises:
        JobFailed, ServiceUnavailable: try again; what was committed is found then.
        AccountingMismatch: features has not one row for each silver row (I3); nothing announces the commit.
        ContractError: the contract's transformations are not there.
        BadWork: the batch is none of this stage, or names an object outside the dataset's folder; nothing was read.
    """
    started = datetime.now(UTC)
    refuse_other(contract, Layer.GOLD, batch)
    silver, features, aggregate = contract.silver.name, contract.features.name, contract.aggregate.name
    with spark_errors(f"taking batch {batch.batch_id} into {features}"):
        tables = ensure_tables(spark, lake, (features_spec(contract), aggregate_spec(contract)))
        commits = commits_of(tables, batch.batch_id)
        source = lake.table(silver)
        if source is None or source.current_id is None:
            raise JobFailed(f"{silver} is empty, but batch {batch.batch_id} was made for rows of it.")
        held = source.source_rows(source.current_id, [item.key for item in batch.items])
        items = [item for item in batch.items if _is_current(item, held.get(item.key))]
        references = References(spark, lake, contract)
        if features not in commits and items:
            rows = {item.key: held[item.key].rows if item.key in held else 0 for item in items}
            _write_features(spark, contract, references, batch, rows, source, tables[features])
            reach(Step.FEATURES_COMMITTED)
            tables |= lake.tables(features)
            commits |= commits_of(tables, batch.batch_id)
        commit, written = commits.get(features), tables[features]
        if commit is not None and aggregate not in commits:
            _write_aggregate(spark, contract, references, batch, commit, written, tables[aggregate])
            reach(Step.AGGREGATE_COMMITTED)
        results = _results(contract, batch, items, held, commit, written)
    marker = CommitMarker(
        layer=Layer.GOLD,
        dataset=contract.dataset,
        table=features,
        snapshot_id=commit.snapshot_id if commit else None,
        parent_id=commit.parent_id if commit else None,
        sequence_number=commit.sequence_number if commit else 0,
        batch_id=batch.batch_id,
        dag_id=dag_id,
        run_id=run_id,
        started_at=started,
        committed_at=commit.committed_at if commit else datetime.now(UTC),
        sources=tuple(results),
    )
    put_marker(store, marker)
    reach(Step.GOLD_MARKED)
    return marker


def _is_current(item: WorkItem, held: SourceRows | None) -> bool:
    """Whether silver holds the version that the work is about, or no rows where none are expected.

    The rows of a deleted file may be there again: the same content was put since, which is other work.
    """
    if item.deleted:
        return held is None
    # By hand nobody knows how many are expected.
    return held.etags == {item.etag} if held else item.rows == 0


def _write_features(
    spark: SparkSession,
    contract: DatasetContract,
    references: References,
    batch: Batch,
    rows_of: dict[str, int],
    silver: LakeTable,
    features: LakeTable,
) -> None:
    spec, keys = features_spec(contract), list(rows_of)
    rows = rows_of_sources(spark, contract.silver.name, silver, keys)
    names = spec.names
    frame = load_transforms(contract).features(references.join(rows, names)).select(*names)
    packs = packs_of_batch(batch.batch_id, rows_of)
    replace_sources(spark, into_packs(frame, packs), spec, features, keys, batch.batch_id, packs)


def _write_aggregate(
    spark: SparkSession,
    contract: DatasetContract,
    references: References,
    batch: Batch,
    commit: Snapshot,
    features: LakeTable,
    aggregate: LakeTable,
) -> None:
    """Recompute the aggregate for the values that the batch's rows have, or had before its commit.

    Both come from the features' snapshots, so a re-run after a crash between the two commits finds the old ones too.
    The other days of a month stay as they are.
    """
    spec, by, base = aggregate_spec(contract), F.col(contract.aggregate_by), aggregate.current_id
    values = _touched(spark, contract, batch, _snapshots(commit, features, aggregate), features)
    if not values:
        return
    current, names = spark.table(contract.features.name).where(by.isin(values)), spec.names
    frame = references.join(load_transforms(contract).aggregate(current), names).select(*names)
    replaced = by.isin(values)
    if spec.monthly:
        months = days_of_their_months(values)
        replaced = any_of([by.between(month[0], month[-1]) for month in months])
        others = {day for month in months for day in month} - set(values)
        if base is not None and aggregate.holds(base, contract.aggregate_by, others):
            # As the table is now, with the columns that it has now: by the fence the rows are those of the base.
            frame = frame.union(spark.table(spec.name).where(by.isin(others)).select(*names))
    # One task writes all partitions: a day is a few thousand rows.
    replace_rows(frame.coalesce(1), spec.name, replaced, batch.batch_id, base)


def days_of_their_months(days: Iterable[date]) -> list[list[date]]:
    """All days of each month that one of the days is in, in order."""
    months = sorted({(day.year, day.month) for day in days})
    return [[date(*month, 1 + day) for day in range(monthrange(*month)[1])] for month in months]


def _snapshots(commit: Snapshot, features: LakeTable, aggregate: LakeTable) -> list[int]:
    """The features' snapshot of a commit, the one before it, and those before commits that the aggregate lacks.

    The aggregate still has the rows from before a batch that was given up between its two commits, and no other batch
    than the next one of the same files takes them back.
    """
    found, at = [commit.snapshot_id], commit.parent_id
    done = aggregate.batches_since(datetime.fromtimestamp(0, UTC))
    while at is not None:
        found.append(at)
        before = features.snapshot(at)
        # Past upkeep's commits, which are of no batch.
        at = None if before is None or before.batch_id in done else before.parent_id
    return found


def _touched(
    spark: SparkSession, contract: DatasetContract, batch: Batch, snapshots: list[int], features: LakeTable
) -> list[Any]:
    """At least every value of the aggregate's partition column that the batch's rows have in some snapshots."""
    keys = [item.key for item in batch.items]
    days = [features.days(snapshot, keys, contract.aggregate_by) for snapshot in snapshots]
    known = [found for found in days if found is not None]
    if len(known) == len(days):
        return sorted(set().union(*known))
    # The metadata do not tell, so the rows have to.
    name, by = contract.features.name, contract.aggregate_by
    chosen = [rows_of_sources(spark, name, features, keys, snapshot).select(by) for snapshot in snapshots]
    return [row[0] for row in reduce(DataFrame.union, chosen).distinct().collect() if row[0] is not None]


def _results(
    contract: DatasetContract,
    batch: Batch,
    items: list[WorkItem],
    held: dict[str, SourceRows],
    commit: Snapshot | None,
    features: LakeTable,
) -> list[SourceResult]:
    current = set(items)
    written = _written(batch, commit, features)
    results = []
    for item in batch.items:
        rows = held[item.key].rows if item.key in held else 0
        got = written.get(item.key, 0)
        if item not in current:
            detail = f"{contract.silver.name} does not hold the version with etag {item.etag} by now."
            results.append(result(item, refused=Reason.SUPERSEDED, detail=detail))
        elif got != rows:
            raise AccountingMismatch(
                f"{contract.silver.name} holds {rows} rows of {item.uri!r} (etag {item.etag}), but batch "
                f"{batch.batch_id} put {got} into {contract.features.name}. "
                "Look at the run's log, then drop the file again.",
                key=item.key,
                etag=item.etag,
            )
        else:
            results.append(result(item, rows_in=rows, rows_accepted=got))
    return results


def _written(batch: Batch, commit: Snapshot | None, features: LakeTable) -> dict[str, int]:
    """Source key to the feature rows in the batch's commit."""
    if commit is None:
        return {}
    keys = [item.key for item in batch.items]
    if len(keys) == 1 and commit.added_rows is not None:
        return {keys[0]: commit.added_rows}
    return {key: found.rows for key, found in features.source_rows(commit.snapshot_id, keys).items()}


if __name__ == "__main__":
    from spark_jobs.by_hand import main

    sys.exit(main(Layer.GOLD, run))
