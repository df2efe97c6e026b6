"""Bronze to silver: conform names and types, check, split, and commit once.

By hand: spark-submit spark_jobs/data_preprocessing_job.py --year 2025 [--month 1] [--dataset NAME] [--key bronze/…]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

if __name__ == "__main__":
    # spark-submit puts this script's folder on the path, not the repository.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract
from contracts.errors import AccountingMismatch, JobFailed, ScanFailed
from contracts.fail_points import Step, reach
from contracts.markers import CommitMarker, SourceResult
from contracts.states import Layer, Reason
from contracts.work import Batch, WorkItem, refuse_other
from ingest.store import Store
from spark_jobs.lake import SOURCE_KEY, Lake, LakeTable, Snapshot
from spark_jobs.marking import put_marker, result
from spark_jobs.packs import Pack
from spark_jobs.preflight import Accepted, Refused, check_deleted, check_files, check_versions
from spark_jobs.quarantine import copy_originals
from spark_jobs.scan import find_unreadable
from spark_jobs.session import spark_errors
from spark_jobs.splitting import split_rows
from spark_jobs.tables import commits_of, ensure_tables, rejects_spec, replace_sources, silver_spec
from spark_jobs.tally import Tally, count_reasons, may_refuse, tally_at, tally_of, too_many


@dataclass(frozen=True)
class _Job:
    """What every step of one run needs."""

    spark: SparkSession
    lake: Lake
    store: Store
    contract: DatasetContract
    batch: Batch


def run(
    spark: SparkSession,
    lake: Lake,
    store: Store,
    contract: DatasetContract,
    batch: Batch,
    dag_id: str = "",
    run_id: str = "",
) -> CommitMarker:
    """Take a batch of bronze files into silver: one commit, one marker. The same batch twice writes once.

    Returns:
        The marker, as it was put into the bucket `silver`: for each file the rows in, accepted and rejected, or why
        it was refused as a whole.

    Raises:
        JobFailed, ServiceUnavailable: try again; what was committed is found then.
        AccountingMismatch: rows were lost or doubled (I3); silver holds the commit, but nothing announces it.
        ContractError: the contract's transformations are not there.
        BadWork: the batch is none of this stage, or names an object outside the dataset's folder; nothing was read.
    """
    started = datetime.now(UTC)
    refuse_other(contract, Layer.SILVER, batch)
    job = _Job(spark, lake, store, contract, batch)
    silver = contract.silver.name
    with spark_errors(f"taking batch {batch.batch_id} into {silver}"):
        # Before the check of the files: a commit that overtakes this job from here on is noticed.
        tables = ensure_tables(spark, lake, (silver_spec(contract), rejects_spec(contract)))
        commits = commits_of(tables, batch.batch_id)
        accepted, refused = check_files(store, contract, batch)
        gone, there = check_deleted(store, batch)
        refused += there
        tally, wrote = None, False
        if silver not in commits and (accepted or gone):
            accepted, more, tally = _write(job, accepted, gone, tables)
            refused += more
            wrote = bool(accepted or gone)
            commits = commits_of(lake.tables(*tables), batch.batch_id)
        # Of an earlier attempt, or of one that went on beside this one.
        repeat = silver in commits and not wrote
        found, refused = _committed_before(job, refused, commits) if repeat else ([], refused)
        counted, more = _count(job, accepted, commits, repeat)
        counted = found + _told(job, accepted, counted, commits, tally)
    refused += more
    # Without a commit their rows are still there, and the next attempt takes them back.
    counted += [result(item) for item in gone if silver in commits]
    if contract.on_quarantine == "copy":
        copy_originals(store, refused)
    commit = commits.get(silver)
    marker = CommitMarker(
        layer=Layer.SILVER,
        dataset=contract.dataset,
        table=silver,
        snapshot_id=commit.snapshot_id if commit else None,
        parent_id=commit.parent_id if commit else None,
        sequence_number=commit.sequence_number if commit else 0,
        batch_id=batch.batch_id,
        dag_id=dag_id,
        run_id=run_id,
        started_at=started,
        committed_at=commit.committed_at if commit else datetime.now(UTC),
        sources=(*counted, *(result(file.item, refused=file.reason, detail=file.detail) for file in refused)),
    )
    put_marker(store, marker)
    reach(Step.SILVER_MARKED)
    return marker


def _write(
    job: _Job, files: list[Accepted], gone: list[WorkItem], tables: Mapping[str, LakeTable]
) -> tuple[list[Accepted], list[Refused], Tally | None]:
    """Commit the files and deletions; files that turn out to be unreadable or replaced meanwhile are left out."""
    refused: list[Refused] = []
    tally = None
    while files or gone:
        try:
            with spark_errors(f"writing batch {job.batch.batch_id} to {job.contract.silver.name}"):
                files, changed, tally = _write_once(job, files, gone, tables)
            return files, refused + changed, tally
        except ScanFailed as error:
            # Before the check of the versions, as at first; the rejects may hold a commit of this very job by now.
            tables = job.lake.tables(*tables)
            committed = job.contract.silver.name in commits_of(tables, job.batch.batch_id)
            if committed or check_deleted(job.store, job.batch)[0] != gone:
                detail = "Meanwhile another attempt committed the batch, or a deleted file was put again."
                raise JobFailed(f"{error.message} {detail} The next attempt looks at all of it anew.") from error
            changed = list(check_versions(job.store, [file.item for file in files]).values())
            bad = changed or [_unreadable(file) for file in find_unreadable(job.spark, files)]
            if not bad:
                raise JobFailed(f"{error.message} Read again, every file is fine.") from error
            refused += bad
            files = _without(files, bad)
    return files, refused, tally


def _write_once(
    job: _Job, files: list[Accepted], gone: Sequence[WorkItem], tables: Mapping[str, LakeTable]
) -> tuple[list[Accepted], list[Refused], Tally | None]:
    rows = split_rows(job.spark, job.contract, job.batch.batch_id, files)
    with ThreadPoolExecutor(1) as pool:
        counting = pool.submit(tally_of, rows.told) if rows.told is not None else None
        _replace(job, rows.rejected, job.contract.rejects_table, files, gone, tables, rows.packs)
        tally = counting.result() if counting else None
    # 1. The rejects are durable; nobody counts them before the main table's commit.
    reach(Step.REJECTS_COMMITTED)
    changed = list(check_versions(job.store, [file.item for file in files]).values())
    spoilt = _spoilt(job, _without(files, changed), tally)
    accepted, packs = rows.accepted, rows.packs
    if changed or spoilt:
        files = _without(files, changed + spoilt)
        # Rows that are held are as they were looked at; read again, they might be of other content.
        if tally:
            accepted = accepted.where(F.col(SOURCE_KEY).isin([file.item.key for file in files]))
        else:
            again = split_rows(job.spark, job.contract, job.batch.batch_id, files)
            accepted, packs = again.accepted, again.packs
    if files or gone:
        _replace(job, accepted, job.contract.silver.name, files, gone, tables, packs)
        # 2. The one commit that counts is durable, under the batch's id.
        reach(Step.SILVER_COMMITTED)
    return files, changed + spoilt, tally


def _spoilt(job: _Job, files: Sequence[Accepted], tally: Tally | None = None) -> list[Refused]:
    """Those of which the contract says that too many rows fail; the rejects of the batch are committed."""
    if not files or not may_refuse(job.contract):
        return []
    commit = commits_of(job.lake.tables(job.contract.rejects_table), job.batch.batch_id)[job.contract.rejects_table]
    keys = [file.item.key for file in files]
    reasons = tally.reasons if tally else count_reasons(job.spark, job.contract, commit, keys)
    rejected = _rows_by_key(job, files, {job.contract.rejects_table: commit})[job.contract.rejects_table]
    found = []
    for file in files:
        key = file.item.key
        detail = too_many(job.contract, file.rows, rejected.get(key, 0), reasons.get(key, {}))
        found += [Refused(file.item, Reason.TOO_MANY_REJECTED, detail)] if detail else []
    return found


def _told(
    job: _Job,
    files: Sequence[Accepted],
    counted: list[SourceResult],
    commits: Mapping[str, Snapshot],
    tally: Tally | None,
) -> list[SourceResult]:
    """The results with what there is to say of the rows: reasons of the rejected, warnings, columns kept aside."""
    if tally is None:
        silver, rejects = commits.get(job.contract.silver.name), commits.get(job.contract.rejects_table)
        tally = tally_at(job.spark, job.contract, silver, rejects, [source.key for source in counted])
    layouts = {file.item.key: file.layout for file in files}
    return [
        SourceResult.model_validate(
            source.model_dump()
            | {
                "reasons": tally.reasons.get(source.key, {}),
                "warnings": tally.warnings.get(source.key, {}),
                "rescued": tuple(column.name for column in layouts[source.key].extras),
                "left_out": layouts[source.key].unreadable,
            }
        )
        for source in counted
    ]


def _replace(
    job: _Job,
    rows: DataFrame,
    table: str,
    files: Sequence[Accepted],
    gone: Sequence[WorkItem],
    tables: Mapping[str, LakeTable],
    came_in: Sequence[Pack],
) -> None:
    keys = [item.key for item in (*(file.item for file in files), *gone)]
    specs = {spec.name: spec for spec in (silver_spec(job.contract), rejects_spec(job.contract))}
    replace_sources(job.spark, rows, specs[table], tables[table], keys, job.batch.batch_id, came_in)


def _count(
    job: _Job, files: Sequence[Accepted], commits: Mapping[str, Snapshot], repeat: bool
) -> tuple[list[SourceResult], list[Refused]]:
    """Rows of each file in the batch's commits.

    Args:
        repeat: an earlier attempt made the commits.

    Raises:
        AccountingMismatch: they are not those of the file, and the file is neither changed nor unreadable.
    """
    silver, rejects = job.contract.silver.name, job.contract.rejects_table
    if silver not in commits:
        return [], []
    counts = _rows_by_key(job, files, commits)
    counted, refused = [], []
    for file in files:
        key, rows = file.item.key, file.rows
        good, bad = counts[silver].get(key, 0), counts[rejects].get(key, 0)
        # One that was left out for its rejects has them all the same.
        if good == 0 and (spoilt := _spoilt(job, [file])):
            refused += spoilt
        elif good + bad == rows:
            fields = {"size": file.size, "rows_in": rows, "rows_accepted": good, "rows_rejected": bad}
            counted.append(result(file.item, **fields))
        else:
            refused.append(_explain(job, file, good, bad, repeat))
    return counted, refused


def _committed_before(
    job: _Job, refused: list[Refused], commits: Mapping[str, Snapshot]
) -> tuple[list[SourceResult], list[Refused]]:
    """Files that are not in the bucket as the batch has them: those that an earlier attempt committed, and the others.

    Gold has to hear of what silver holds, or holds no more: what took their place in the bucket may be refused.
    """
    silver, rejects = job.contract.silver.name, job.contract.rejects_table
    late = [file for file in refused if file.reason in (Reason.OBJECT_GONE, Reason.SUPERSEDED)]
    table = job.lake.table(silver) if late else None
    if table is None:
        return [], refused
    items = [file.item for file in late]
    keys = [item.key for item in items]
    commit = commits[silver]
    held = table.source_rows(commit.snapshot_id, keys)
    before = table.source_rows(commit.parent_id, keys) if commit.parent_id is not None else {}
    counts = {name: _rows_of(job, items, name, commit) for name, commit in commits.items()}
    found = {}
    for item in items:
        good, bad = (counts.get(name, {}).get(item.key, 0) for name in (silver, rejects))
        emptied = item.key in before and item.key not in held
        if item.deleted and item.key not in held:
            found[item] = result(item)
        # Rejects alone say nothing: they are written before a file is left out.
        elif not item.deleted and (good or (bad and emptied)):
            found[item] = result(item, rows_in=good + bad, rows_accepted=good, rows_rejected=bad)
    return list(found.values()), [file for file in refused if file.item not in found]


def _explain(job: _Job, file: Accepted, good: int, bad: int, repeat: bool) -> Refused:
    """Why the commits lack a file's rows: a repeat of a batch finds files that its first attempt left out."""
    changed = check_versions(job.store, [file.item])
    if changed:
        return changed[file.item]
    if good == 0 and find_unreadable(job.spark, [file]):
        return _unreadable(file)
    # Its rejects were written before it was left out.
    if good == 0 and repeat:
        detail = "It was left out of its batch, as it held other content then, which was put back since."
        return Refused(file.item, Reason.SUPERSEDED, detail)
    raise AccountingMismatch(
        f"{file.item.uri!r} (etag {file.item.etag}) has {file.rows} rows by its footer, but batch {job.batch.batch_id} "
        f"put {good} into {job.contract.silver.name} and {bad} into {job.contract.rejects_table}. "
        "Look at the file and the run's log, then drop the file again.",
        key=file.item.key,
        etag=file.item.etag,
    )


def _rows_by_key(job: _Job, files: Sequence[Accepted], commits: Mapping[str, Snapshot]) -> dict[str, dict[str, int]]:
    added = {table: commit.added_rows for table, commit in commits.items()}
    if len(job.batch.items) == 1 and files and None not in added.values():
        # The commits are about this file alone, so their summaries have the counts already.
        return {table: {files[0].item.key: rows or 0} for table, rows in added.items()}
    return {name: _rows_of(job, [file.item for file in files], name, commit) for name, commit in commits.items()}


def _rows_of(job: _Job, items: Sequence[WorkItem], name: str, commit: Snapshot) -> dict[str, int]:
    """Key to rows that a table holds of some versions of files; a file that was left out may have rows of another."""
    table, keys = job.lake.table(name), [item.key for item in items]
    found = table.source_rows(commit.snapshot_id, keys) if table else {}
    return {
        item.key: found[item.key].rows for item in items if item.key in found and found[item.key].etags == {item.etag}
    }


def _unreadable(file: Accepted) -> Refused:
    detail = f"The footer tells of {file.rows} rows, but the data pages cannot be decoded."
    return Refused(file.item, Reason.UNREADABLE_DATA, detail)


def _without(files: Sequence[Accepted], refused: Sequence[Refused]) -> list[Accepted]:
    out = {file.item for file in refused}
    return [file for file in files if file.item not in out]


if __name__ == "__main__":
    from spark_jobs.by_hand import main

    sys.exit(main(Layer.SILVER, run))
