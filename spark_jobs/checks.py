"""Accepted and rejected rows, with reasons."""

from __future__ import annotations

from functools import reduce
from operator import or_

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from contracts.dataset import DatasetContract
from spark_jobs.conform import BAD, RAW, evaluated

PERIOD_START = "_period_start"
PERIOD_END = "_period_end"
_BAD_CAST = "_bad_cast"
_BROKEN_RULE = "_broken_rule"


def split_rows(df: DataFrame, contract: DatasetContract) -> tuple[DataFrame, DataFrame]:
    """Split rows into those the contract accepts and those it rejects.

    Checked in this order, so the first that fails gives `_reason`: for each column `bad_<column>` (a value was
    there but could not be cast) and `null_<column>` (required and missing); then the contract's rules.

    Args:
        df: rows as `conform` makes them, with `_period_start` and `_period_end`.

    Returns:
        Accepted, with the columns of `df`; rejected, with `_reason: string`, `_reasons: array<string>` and
        `_row: string`, the row as it came, in JSON. Their counts add up to that of `df` (I3).
    """
    casts, rules = _cast_failures(contract), _rule_failures(contract)
    judged = evaluated(df.withColumn(_BAD_CAST, _any(casts)))
    judged = evaluated(judged.withColumn(_BROKEN_RULE, _any(rules)))
    failed = F.col(_BAD_CAST) | F.col(_BROKEN_RULE)
    reasons = F.array_compact(F.array(*(F.when(test, F.lit(code)) for code, test in (casts | rules).items())))
    rejected = (
        judged.where(failed)
        .withColumn("_reasons", reasons)
        .withColumn("_reason", F.col("_reasons")[0])
        .withColumn("_row", F.to_json(RAW, {"ignoreNullFields": "false"}))
    )
    return judged.where(~failed), rejected


def _any(failures: dict[str, SparkColumn]) -> SparkColumn:
    return reduce(or_, failures.values(), F.lit(False))


def _cast_failures(contract: DatasetContract) -> dict[str, SparkColumn]:
    """Code to a condition that is true, never null, for a row with a bad or missing value."""
    failures = {}
    for column in contract.silver.columns:
        bad = F.col(BAD + column.name)
        failures[f"bad_{column.name}"] = bad
        if column.required:
            failures[f"null_{column.name}"] = ~bad & F.col(column.name).isNull()
    return failures


def _rule_failures(contract: DatasetContract) -> dict[str, SparkColumn]:
    """Code to a condition that is true, never null, for a row that breaks the rule."""
    return {rule.code: ~F.coalesce(F.expr(rule.condition), F.lit(True)) for rule in contract.rules}
