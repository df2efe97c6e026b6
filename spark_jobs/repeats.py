"""Rows that a file holds more than once, and rows that it takes back by their opposite.

Both are found by hashes of 64 bits: of ten million rows, two that differ are taken for equal with a chance of one in
400,000.
"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from contracts.conditions import names_in
from contracts.dataset import COPY, NEGATED, DatasetContract
from spark_jobs.lake import SOURCE_ID
from spark_jobs.matching import quoted

_FEW_ROWS = 200_000
"""So many are sorted at once; of more, only those that may be repeats are looked at again."""
_FEW_REPEATS = 100_000
"""So many rows are kept at hand; more are read again by each scan."""
_GROUP, _SIGN, _WHOLE, _MAYBE = "_group", "_sign", "_whole", "_maybe"


def wanted(contract: DatasetContract) -> bool:
    """Whether a rule asks for repeats or for rows that were taken back."""
    return any({COPY, NEGATED} & names_in(rule.condition) for rule in contract.rules)


def mark_repeats(spark: SparkSession, contract: DatasetContract, df: DataFrame, rows: int) -> DataFrame:
    """Number the repeats of each row, and find the rows that another one takes back.

    Args:
        df: rows as `conform` makes them, with `_source_id`.
        rows: how many they are.

    Returns:
        `df` with `_copy: int`, 0 for one of the rows of a file that are equal in all columns of the contract and 1, 2,
        … for the others, and `_negated: boolean`, whether the file holds a row that is equal in the contract's
        `negation.same` and has the opposite of its `negation.negated`, in cents. Which of equal rows is number 0 may
        change from one reading to the next, but in each there is one.

    Raises:
        ScanFailed, JobFailed: as reading does; more than a few rows are read once before.
    """
    keyed = df.withColumns(_keys(contract))
    if rows <= _FEW_ROWS:
        return _numbered(keyed).drop(_GROUP, _SIGN, _WHOLE)
    marks = _marks(spark, keyed)
    if marks is None:
        return df.withColumns({COPY: F.lit(0), NEGATED: F.lit(False)})
    found, repeats = marks
    marked = keyed.join(F.broadcast(found), _GROUP, "left")
    single = marked.where(~F.coalesce(F.col(_MAYBE), F.lit(False))).withColumns(
        {COPY: F.lit(0), NEGATED: F.coalesce(F.col(NEGATED), F.lit(False))}
    )
    columns = [quoted(name) for name in (*df.columns, COPY, NEGATED)]
    if not repeats:
        return single.select(*columns)
    doubtful = keyed.join(F.broadcast(found.where(_MAYBE)), _GROUP, "left_semi")
    if repeats <= _FEW_REPEATS:
        doubtful = _at_hand(spark, doubtful)
    return single.select(*columns).union(_numbered(doubtful).select(*columns))


def _keys(contract: DatasetContract) -> dict[str, Column]:
    """Hashes: of what makes rows equal but for the sign of their amounts, and of all; and that sign."""
    columns = [column.name for column in contract.silver.columns if not column.derived]
    negation = contract.negation
    cents = [_cents(F.col(name)) for name in (negation.negated if negation else ())]
    sign = _sign_of(cents)
    same = [F.col(name) for name in (negation.same if negation else columns)]
    return {
        _GROUP: _hash([F.col(SOURCE_ID), *same, *(value * sign for value in cents)]),
        _SIGN: sign,
        _WHOLE: _hash([F.col(name) for name in columns]),
    }


def _cents(amount: Column) -> Column:
    return F.round(amount.cast("double") * 100).try_cast("bigint")


def _sign_of(cents: list[Column]) -> Column:
    """-1 or 1 as the first amount that is not 0 is; 0 where all are, or one is missing."""
    first = reduce(
        lambda rest, value: F.when(value != 0, F.signum(value).cast("int")).otherwise(rest), cents[::-1], F.lit(0)
    )
    return F.coalesce(reduce(lambda sign, value: F.when(value.isNotNull(), sign), cents, first), F.lit(0))


def _hash(values: list[Column]) -> Column:
    """A hash for which null is a value: Spark's own passes over nulls, so that (1, null) is as (null, 1)."""
    nulls = [F.when(value.isNull(), F.lit(1 << place)).otherwise(F.lit(0)) for place, value in enumerate(values)]
    return F.xxhash64(*values, reduce(lambda one, other: one + other, [F.lit(0).cast("bigint"), *nulls]))


def _numbered(keyed: DataFrame) -> DataFrame:
    group = Window.partitionBy(_GROUP)
    # Within a group, so that one shuffle does for both.
    equal = Window.partitionBy(_GROUP, _WHOLE).orderBy(_WHOLE)
    return keyed.withColumns(
        {
            COPY: (F.row_number().over(equal) - 1).cast("int"),
            NEGATED: (F.min(_SIGN).over(group) < 0) & (F.max(_SIGN).over(group) > 0),
        }
    )


def _marks(spark: SparkSession, keyed: DataFrame) -> tuple[DataFrame, int] | None:
    """The groups that have more than one row of one sign, or rows of both, and how many rows the former have.

    None where there are no such groups, as in a clean file.
    """
    of_sign = [F.count_if(F.col(_SIGN) == sign) for sign in (-1, 0, 1)]
    groups = keyed.groupBy(_GROUP).agg(
        ((of_sign[0] > 0) & (of_sign[2] > 0)).alias(NEGATED),
        (F.greatest(*of_sign) > 1).alias(_MAYBE),
        F.count("*").alias("rows"),
    )
    table = groups.where(F.col(NEGATED) | F.col(_MAYBE)).toArrow()
    if not table.num_rows:
        return None
    repeats = sum(
        rows for rows, maybe in zip(*(table[name].to_pylist() for name in ("rows", _MAYBE)), strict=True) if maybe
    )
    return spark.createDataFrame(table.select([_GROUP, NEGATED, _MAYBE])), repeats


def _at_hand(spark: SparkSession, df: DataFrame) -> DataFrame:
    """The same rows, read once; columns of files have names that not every way into Spark takes."""
    plain = [f"c{place}" for place in range(len(df.columns))]
    return spark.createDataFrame(df.toDF(*plain).toArrow()).toDF(*df.columns)
