"""Accepted and rejected rows, with reasons."""

from __future__ import annotations

from functools import reduce
from operator import or_

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract
from spark_jobs.conform import BAD, RAW
from spark_jobs.matching import quoted

PERIOD_START = "_period_start"
PERIOD_END = "_period_end"


def accepted_rows(df: DataFrame, contract: DatasetContract) -> DataFrame:
    """The rows that the contract accepts, with the columns of `df`; see `rejected_rows` for the others."""
    return df.where(~_failed(contract))


def rejected_rows(df: DataFrame, contract: DatasetContract) -> DataFrame:
    """The rows that the contract rejects. Their count and that of the accepted ones add up to that of `df` (I3).

    Checked in this order, so the first that fails gives `_reason`: for each column `bad_<column>` (a value was
    there but could not be cast) and `null_<column>` (required and missing); then the contract's rules.

    Args:
        df: rows as `conform` makes them, with `_period_start` and `_period_end`.

    Returns:
        With `_reason: string`, `_reasons: array<string>` and `_row: string`, the row as it came, in JSON.
    """
    failures = _failures(contract)
    reasons = F.array_compact(F.array(*(F.when(test, F.lit(code)) for code, test in failures.items())))
    raw = F.struct(*(F.col(quoted(name)).alias(name.removeprefix(RAW)) for name in df.columns if name.startswith(RAW)))
    return (
        df.where(_failed(contract))
        .withColumn("_reasons", reasons)
        .withColumn("_reason", F.col("_reasons")[0])
        .withColumn("_row", F.to_json(raw, {"ignoreNullFields": "false"}))
    )


def _failures(contract: DatasetContract) -> dict[str, SparkColumn]:
    """Code to a condition that is true, never null, for a row that fails."""
    failures = {}
    for column in contract.silver.columns:
        bad = F.col(BAD + column.name)
        failures[f"bad_{column.name}"] = bad
        if column.required:
            failures[f"null_{column.name}"] = ~bad & F.col(column.name).isNull()
    return failures | _broken_rules(contract)


def _failed(contract: DatasetContract) -> SparkColumn:
    """True when any of the failures is, in fewer steps: a required value that is bad is null too."""
    tests = [
        F.col(column.name).isNull() if column.required else F.col(BAD + column.name)
        for column in contract.silver.columns
    ]
    return reduce(or_, [*tests, *_broken_rules(contract).values()])


def _broken_rules(contract: DatasetContract) -> dict[str, SparkColumn]:
    return {rule.code: ~F.coalesce(F.expr(rule.condition), F.lit(True)) for rule in contract.rules}
