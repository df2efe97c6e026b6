"""Rows that a file holds more than once, and rows that it takes back by their opposite.

Both are found by hashes of 64 bits: of ten million rows, two that differ are taken for equal with a chance of one in
400,000.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from contracts.conditions import names_in
from contracts.dataset import COPY, NEGATED, ROW_ID, DatasetContract
from contracts.dataset import Column as ContractColumn
from spark_jobs.balanced import sum_of
from spark_jobs.conform import conformed_value
from spark_jobs.lake import SOURCE_ID
from spark_jobs.matching import Layout

_FEW_ROWS = 500_000
"""The hashes of so many rows are looked at here; of more, only those of rows that may be repeats or taken back."""
_AT_HAND = 5_000_000
"""So many such rows are looked at here, 25 bytes each; of more, Spark numbers all rows in each scan, by a shuffle."""
_BITS = 31
"""Of an `int` that is not negative."""
_ALIKE, _ROWS, _GROUP, _SIGN, _WHOLE = "_alike", "_rows", "_group", "_sign", "_whole"
_FOUND_COPY, _FOUND_NEGATED = "_found_copy", "_found_negated"


def wanted(contract: DatasetContract) -> bool:
    """Whether a rule asks for repeats or for rows that were taken back."""
    return any({COPY, NEGATED} & names_in(rule.condition) for rule in contract.rules)


def find_repeats(
    spark: SparkSession, contract: DatasetContract, layout: Layout, df: DataFrame, rows: int
) -> DataFrame | None:
    """The rows that are repeats, and those that another one takes back; read in one or two scans.

    Args:
        df: rows as they came (see `conform`), with `_source_id`, and with `_row_id: bigint`, which is the same for a
            row in each scan.
        rows: how many they are.

    Returns:
        `_row_id`, `_copy: int`, 0 for the first of the rows of a file that are equal in all columns of the contract and
        1, 2, … for the others, and `_negated: boolean`, whether the file holds a row that is equal in the contract's
        `negation.same` and has the opposite of its `negation.negated`. Rows that are neither may be left out; None
        where all are.

    Raises:
        ScanFailed, JobFailed: as reading does.
    """
    found = df
    if rows > _FEW_ROWS:
        # Of most rows, no more is computed than this.
        alike = df.select("*", _likeness(contract, layout).alias(_ALIKE))
        groups = alike.groupBy(_ALIKE).agg(F.count("*").alias(_ROWS)).where(F.col(_ROWS) > 1).select(_ALIKE)
        found = alike.join(F.broadcast(groups) if rows <= _AT_HAND else groups, _ALIKE, "left_semi")
    keyed = _keyed(contract, layout, found)
    # Not `toArrow`, which asks for the schema first, and so has the plan analysed twice.
    hashes = (keyed if rows <= _AT_HAND else keyed.limit(_AT_HAND + 1)).toPandas()
    if len(hashes) > _AT_HAND:
        return _numbered(_keyed(contract, layout, df))
    if hashes.empty:
        return None
    marks = _numbered_here(hashes)
    return F.broadcast(spark.createDataFrame(marks)) if marks.num_rows else None


def with_repeats(df: DataFrame, contract: DatasetContract) -> DataFrame:
    """Rows as `conform` makes them, with `_copy` and `_negated` as `find_repeats` has them, in the same scan.

    Without a shuffle where the rows are one partition.
    """
    keyed = df.select("*", *(key.alias(name) for name, key in _keys(contract).items()))
    # Here, too, Spark Connect analyses what is below (measured: 3,000 rows judged in 1.2 s instead of 1.9 s).
    return keyed.select("*", *_numbers()).drop(_GROUP, _SIGN, _WHOLE)


def mark_repeats(df: DataFrame, repeats: DataFrame | None) -> DataFrame:
    """The same rows with `_copy` and `_negated`, as `find_repeats` tells of those with their `_row_id`."""
    if repeats is None:
        return df.select("*", F.lit(0).alias(COPY), F.lit(False).alias(NEGATED))
    found = repeats.select(ROW_ID, F.col(COPY).alias(_FOUND_COPY), F.col(NEGATED).alias(_FOUND_NEGATED))
    return df.join(found, ROW_ID, "left").select(
        "*",
        F.coalesce(F.col(_FOUND_COPY), F.lit(0)).alias(COPY),
        F.coalesce(F.col(_FOUND_NEGATED), F.lit(False)).alias(NEGATED),
    )


def _likeness(contract: DatasetContract, layout: Layout) -> Column:
    """A hash that is equal for rows that one would hold against each other, and for few others."""
    names = contract.negation.same if contract.negation else [column.name for column in _columns(contract)]
    same = [conformed_value(column, layout) for column in _columns(contract) if column.name in names]
    return F.xxhash64(F.col(SOURCE_ID), *same)


def _keyed(contract: DatasetContract, layout: Layout, raw: DataFrame) -> DataFrame:
    values = raw.select(SOURCE_ID, ROW_ID, *(conformed_value(column, layout) for column in _columns(contract)))
    return values.select(ROW_ID, *(key.alias(name) for name, key in _keys(contract).items()))


def _columns(contract: DatasetContract) -> list[ContractColumn]:
    return [column for column in contract.silver.columns if not column.derived]


def _keys(contract: DatasetContract) -> dict[str, Column]:
    """Hashes: of what makes rows equal but for the sign of their amounts, and of all; and that sign."""
    columns = [F.col(column.name) for column in _columns(contract)]
    negation = contract.negation
    amounts = [F.col(name) for name in (negation.negated if negation else ())]
    same = [F.col(name) for name in negation.same] if negation else columns
    sign = _sign_of(amounts)
    return {
        _GROUP: _hash([F.col(SOURCE_ID), *same, *(F.when(sign < 0, -value).otherwise(value) for value in amounts)]),
        _SIGN: sign,
        _WHOLE: _hash(columns),
    }


def _sign_of(amounts: list[Column]) -> Column:
    """-1 or 1 as the first amount that is not 0 is; 0 where all are, or one is missing."""
    sign = F.lit(0)
    for value in amounts[::-1]:
        sign = F.when(value < 0, -1).when(value > 0, 1).otherwise(sign)
    return reduce(lambda found, value: F.when(value.isNull(), 0).otherwise(found), amounts, sign)


def _hash(values: list[Column]) -> Column:
    """A hash for which null is a value: Spark's own passes over nulls, so that (1, null) is as (null, 1)."""
    parts = [values[start : start + _BITS] for start in range(0, len(values), _BITS)]
    nulls = (
        sum_of([F.when(v.isNull(), F.lit(1 << bit)).otherwise(F.lit(0)) for bit, v in enumerate(p)]) for p in parts
    )
    return F.xxhash64(*values, *nulls)


def _numbered(keyed: DataFrame) -> DataFrame:
    return keyed.select(ROW_ID, *_numbers()).where((F.col(COPY) > 0) | F.col(NEGATED))


def _numbers() -> list[Column]:
    group = Window.partitionBy(_GROUP)
    # Within a group, so that one shuffle does for both.
    equal = Window.partitionBy(_GROUP, _WHOLE).orderBy(ROW_ID)
    negated = (F.min(_SIGN).over(group) < 0) & (F.max(_SIGN).over(group) > 0)
    return [(F.row_number().over(equal) - 1).cast("int").alias(COPY), negated.alias(NEGATED)]


def _numbered_here(keyed: pd.DataFrame) -> pa.Table:
    """As `_numbered`, in memory, of one row or more."""
    row, group, sign, whole = (keyed[name].to_numpy() for name in (ROW_ID, _GROUP, _SIGN, _WHOLE))
    order = np.lexsort((row, whole, group))
    row, group, sign, whole = row[order], group[order], sign[order], whole[order]
    new_group = np.r_[True, group[1:] != group[:-1]]
    new_whole = new_group | np.r_[True, whole[1:] != whole[:-1]]
    place = np.arange(len(row))
    copy = place - np.maximum.accumulate(np.where(new_whole, place, 0))
    starts, of_group = np.flatnonzero(new_group), np.cumsum(new_group) - 1
    both = (np.minimum.reduceat(sign, starts) < 0) & (np.maximum.reduceat(sign, starts) > 0)
    negated = both[of_group]
    marked = (copy > 0) | negated
    columns = {ROW_ID: row[marked], COPY: copy[marked].astype(np.int32), NEGATED: negated[marked]}
    return pa.table({name: pa.array(values) for name, values in columns.items()})
