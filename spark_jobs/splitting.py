"""The rows of a batch's files, split into those for silver and those for the rejects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract
from spark_jobs.balanced import union_of
from spark_jobs.checks import WARNINGS, accepted_rows, judged_rows, rejected_rows
from spark_jobs.lake import SOURCE_KEY
from spark_jobs.packs import Pack, few_rows, packs_of_batch
from spark_jobs.preflight import Accepted
from spark_jobs.scan import scan_files
from spark_jobs.tables import into_packs, rejects_spec, silver_spec, union
from spark_jobs.transforms.loading import load_transforms


@dataclass(frozen=True)
class Split:
    """The rows for each table, with its columns."""

    accepted: DataFrame
    rejected: DataFrame
    told: DataFrame | None = None
    """Where the rows are held: `_source_key`, `_reasons` and `_warnings` of each; see `tally.tally_of`."""
    packs: tuple[Pack, ...] = ()
    """That the rows are in, where the batch comes in packs."""


def split_rows(spark: SparkSession, contract: DatasetContract, batch_id: str, files: Sequence[Accepted]) -> Split:
    """Read a batch's files and split their rows; each row is in one of the two (I3).

    Few rows are judged once, and an executor holds them for all that is done with them; of more, each write judges all.
    Planning is most of a small file's time, so one large plan is better than two (measured: 3,000 rows into silver in
    2.4 s instead of 3.9 s). What is most of a large one's is work, and what is held costs more of that than what is
    read again. What is most of many small ones' is opening them.

    Raises:
        JobFailed, ScanFailed: as reading does.
    """
    clean = load_transforms(contract).clean
    few = few_rows(sum(file.rows for file in files), len(files))
    frames = [(layout, clean(rows)) for layout, rows in scan_files(spark, contract, files, few)]
    silver, rejects = silver_spec(contract), rejects_spec(contract)
    if not few:
        accepted = [accepted_rows(rows, contract, layout) for layout, rows in frames]
        rejected = [rejected_rows(rows, contract, layout) for layout, rows in frames]
        return Split(union(spark, silver, accepted), union(spark, rejects, rejected))
    names = list(dict.fromkeys((*silver.names, *rejects.names, WARNINGS)))
    judged = [judged_rows(rows, contract, layout).select(*names) for layout, rows in frames]
    packs = packs_of_batch(batch_id, {file.item.key: file.rows for file in files})
    held = into_packs(union_of(judged), packs).localCheckpoint()
    failed = F.col("_reasons").isNotNull()
    return Split(
        held.where(~failed).select(*silver.names),
        held.where(failed).select(*rejects.names),
        held.select(SOURCE_KEY, "_reasons", WARNINGS),
        tuple(packs),
    )
