"""What there is to say of a batch's rows: reasons, warnings, and whether too many of a file's rows fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract, Severity
from spark_jobs.checks import broken_rules
from spark_jobs.lake import BATCH_PACK, SOURCE_ID, SOURCE_KEY, Snapshot, source_id
from spark_jobs.tables import rows_at

Counts = dict[str, dict[str, int]]
"""Key of a file to code to rows."""


@dataclass(frozen=True)
class Tally:
    """What there is to say of the rows of some files."""

    reasons: Counts
    """Rows that were rejected for each reason; a row counts for every reason that it has."""
    warnings: Counts
    """Accepted rows that break each rule of severity `warn`."""


def tally_of(told: DataFrame) -> Tally:
    """What there is to say of a few rows, whose codes are columns by now.

    Args:
        told: `_source_key`, `_reasons` and `_warnings` of each row, as `judged_rows` makes them.
    """
    reasons, warnings = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for key, failed, warned in told.collect():
        reasons.update((key, code) for code in failed or ())
        warnings.update((key, code) for code in warned or ())
    return Tally(*(_by_key([(*of, rows) for of, rows in found.items()]) for found in (reasons, warnings)))


def tally_at(
    spark: SparkSession,
    contract: DatasetContract,
    silver: Snapshot | None,
    rejects: Snapshot | None,
    keys: Sequence[str],
) -> Tally:
    """What there is to say of the rows in a batch's commits to silver and to the rejects, two queries side by side."""
    with ThreadPoolExecutor(2) as pool:
        reasons = pool.submit(count_reasons, spark, contract, rejects, keys)
        warnings = pool.submit(_count_warnings, spark, contract, silver, keys)
        return Tally(reasons.result(), warnings.result())


def count_reasons(
    spark: SparkSession, contract: DatasetContract, rejects: Snapshot | None, keys: Sequence[str]
) -> Counts:
    """How many rows of each file were rejected for each reason; a row counts for every reason that it has.

    Args:
        rejects: the batch's commit to the rejects table; None or one without rows costs nothing.
    """
    if rejects is None or rejects.added_rows == 0:
        return {}
    rows = _of(spark, contract.rejects_table, rejects, keys).select(SOURCE_KEY, F.explode("_reasons").alias("code"))
    found = rows.groupBy(SOURCE_KEY, "code").count().collect()
    return _by_key([(row[0], row[1], row[2]) for row in found])


def _count_warnings(
    spark: SparkSession, contract: DatasetContract, silver: Snapshot | None, keys: Sequence[str]
) -> Counts:
    """How many accepted rows of each file break each rule of severity `warn`.

    Args:
        silver: the batch's commit to the silver table; None or one without rows costs nothing.
    """
    tests = broken_rules(contract, Severity.WARN)
    if silver is None or silver.added_rows == 0 or not tests:
        return {}
    sums = [F.count_if(test).alias(code) for code, test in tests.items()]
    found = _of(spark, contract.silver.name, silver, keys).groupBy(SOURCE_KEY).agg(*sums).collect()
    return _by_key([(row[SOURCE_KEY], code, row[code]) for row in found for code in tests])


def may_refuse(contract: DatasetContract) -> bool:
    """Whether the rows of a file can bring about that it is refused."""
    refusing = any(rule.severity is Severity.REFUSE for rule in contract.rules)
    return refusing or contract.limits.max_rejected_share < 1


def too_many(contract: DatasetContract, rows: int, rejected: int, reasons: Mapping[str, int]) -> str | None:
    """Why a file is refused for the rows that fail, or None.

    Args:
        rows: of the file; `rejected`, how many of them fail; `reasons`, how many for each reason.
    """
    for rule in contract.rules:
        failing = reasons.get(rule.code, 0)
        if rule.severity is Severity.REFUSE and failing > rule.max_share * rows:
            return f"{rule.code}: {failing:,} of {rows:,} rows fail, a share of {rule.max_share} is allowed."
    share = contract.limits.max_rejected_share
    if rejected > share * rows:
        return f"maxRejectedShare: {rejected:,} of {rows:,} rows fail, a share of {share} is allowed."
    return None


def _of(spark: SparkSession, table: str, commit: Snapshot, keys: Sequence[str]) -> DataFrame:
    """The rows of some files in the commit of their batch, which wrote them by themselves or in packs of its own."""
    in_packs = F.col(SOURCE_ID).startswith(BATCH_PACK) & F.col(SOURCE_KEY).isin(list(keys))
    by_themselves = F.col(SOURCE_ID).isin([source_id(key) for key in keys])
    return rows_at(spark, table, commit.snapshot_id).where(by_themselves | in_packs)


def _by_key(found: Sequence[tuple[str, str, int]]) -> Counts:
    counts: Counts = {}
    for key, code, rows in sorted(found):
        if rows:
            counts.setdefault(key, {})[code] = rows
    return counts
