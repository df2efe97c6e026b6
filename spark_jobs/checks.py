"""Accepted and rejected rows, with reasons."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from contracts.dataset import Column, DatasetContract, Severity
from spark_jobs.balanced import all_of, any_of
from spark_jobs.conform import BAD, RAW, UNPARSED_LINE, may_be_bad
from spark_jobs.matching import Layout, quoted

PERIOD_START = "_period_start"
PERIOD_END = "_period_end"
WARNINGS = "_warnings"
_FAILED = "_failed"
"""The codes of all that a row fails. A column of its own: used several times, it is computed once."""
UNPARSED = "unparsed_line"
"""Reason of a line of a CSV that could not be parsed when it landed."""


def accepted_rows(df: DataFrame, contract: DatasetContract, layout: Layout) -> DataFrame:
    """The rows that the contract accepts, with the columns of `df`; see `rejected_rows` for the others."""
    # Not the negation of "any fails": the optimizer turns that around in as many rounds as there are tests.
    return df.where(all_of([~test for test in _tests(contract, layout)]))


def rejected_rows(df: DataFrame, contract: DatasetContract, layout: Layout) -> DataFrame:
    """The rows that the contract rejects. Their count and that of the accepted ones add up to that of `df` (I3).

    Checked in this order, so the first that fails gives `_reason`: `unparsed_line`, beside which there is no other; for
    each column `bad_<column>` (a value was there but could not be cast) and `null_<column>` (required, in the file,
    and missing); then the contract's rules, but for those of severity `warn`.

    Args:
        df: rows as `conform` makes them of files of a layout, with `_period_start` and `_period_end`.

    Returns:
        With `_reason: string`, `_reasons: array<string>` and `_row: string`, the row as it came, in JSON.
    """
    return judged_rows(df.where(any_of(_tests(contract, layout))), contract, layout)


def judged_rows(df: DataFrame, contract: DatasetContract, layout: Layout) -> DataFrame:
    """All rows, with the columns of `rejected_rows`, which are null where the contract accepts a row.

    And with `_warnings: array<string>`, the codes of the rules of severity `warn` that an accepted row breaks; null
    where the contract rejects a row.
    """
    codes = F.col(_FAILED)
    rejected = F.size(codes) > 0
    return df.select("*", _reasons(contract, layout).alias(_FAILED)).select(
        "*",
        F.when(rejected, codes).alias("_reasons"),
        F.when(rejected, codes[0]).alias("_reason"),
        F.when(rejected, _in_json(layout)).alias("_row"),
        F.when(~rejected, _codes(broken_rules(contract, Severity.WARN))).alias(WARNINGS),
    )


def _reasons(contract: DatasetContract, layout: Layout) -> SparkColumn:
    codes = _codes(_failures(contract, layout))
    return F.when(F.col(UNPARSED_LINE), F.array(F.lit(UNPARSED))).otherwise(codes) if layout.unparsed else codes


def _codes(tests: Mapping[str, SparkColumn]) -> SparkColumn:
    """The codes of the tests that are true of a row."""
    if not tests:
        return F.array().cast("array<string>")
    return F.array_compact(F.array(*(F.when(test, F.lit(code)) for code, test in tests.items())))


def _in_json(layout: Layout) -> SparkColumn:
    raw = F.struct(*(F.col(quoted(RAW + item.name)).alias(item.name) for item in layout.columns))
    return F.to_json(raw, {"ignoreNullFields": "false"})


def _failures(contract: DatasetContract, layout: Layout) -> dict[str, SparkColumn]:
    """Code to a condition that is true, never null, for a row that fails."""
    failures = {}
    for column in contract.silver.columns:
        null, bad = F.col(column.name).isNull(), F.col(BAD + column.name)
        can_be_bad = may_be_bad(column, layout)
        if can_be_bad:
            failures[f"bad_{column.name}"] = bad
        if _must_be_there(column, layout):
            failures[f"null_{column.name}"] = ~bad & null if can_be_bad else null
    return failures | broken_rules(contract, Severity.REJECT, Severity.REFUSE)


def _must_be_there(column: Column, layout: Layout) -> bool:
    """Whether a null is a failure: where the file lacks a column that it may lack, all values are null."""
    there = column.derived or layout.source_of(column.name) is not None or column.name in layout.empty
    return column.required and there


def _tests(contract: DatasetContract, layout: Layout) -> list[SparkColumn]:
    """One of them is true when any of the failures is, in fewer steps; none is ever null."""
    tests = [F.col(UNPARSED_LINE)] if layout.unparsed else []
    for column in contract.silver.columns:
        if _must_be_there(column, layout):
            tests.append(F.col(column.name).isNull())
        # Without a filling, a required value that is bad is null too.
        if may_be_bad(column, layout) and not (column.required and column.fill_null is None):
            tests.append(F.col(BAD + column.name))
    return [*tests, *broken_rules(contract, Severity.REJECT, Severity.REFUSE).values()]


def broken_rules(contract: DatasetContract, *severities: Severity) -> dict[str, SparkColumn]:
    """Code of a rule to a condition that is true, never null, for a row that breaks it."""
    return {
        rule.code: ~F.coalesce(F.expr(rule.condition), F.lit(True))
        for rule in contract.rules
        if rule.severity in severities
    }
