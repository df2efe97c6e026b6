"""Raw columns of a file to the columns and types of its contract."""

from __future__ import annotations

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from contracts.dataset import Column
from spark_jobs.footers import FileColumn
from spark_jobs.matching import Layout, quoted

BAD = "_bad_"
ROW = "_row"
_INTEGERS = ("tinyint", "smallint", "int", "bigint")
_TIMES = ("date", "timestamp", "timestamp_ntz")


def conform(df: DataFrame, columns: tuple[Column, ...], layout: Layout, keep: tuple[str, ...] = ()) -> DataFrame:
    """Give rows the contract's names and types.

    Args:
        df: rows as read with `layout.ddl`.
        keep: columns of `df` that are handed on as they are.

    Returns:
        The contract's columns; for each a `_bad_<column>: boolean`, true when a value was there but could not be
        cast; `_row: string`, the row as it came, in JSON; and those of `keep`. A column that the file lacks is null.
    """
    as_it_came = F.struct(*(F.col(quoted(column.name)) for column in layout.columns))
    selected = [F.to_json(as_it_came, {"ignoreNullFields": "false"}).alias(ROW)]
    for column in columns:
        source = layout.source_of(column.name)
        if source is None:
            value, bad = F.lit(None).cast(column.type), F.lit(False)
        else:
            value, bad = _cast(source, column.type)
        selected += [_filled(value, column).alias(column.name), bad.alias(BAD + column.name)]
    return df.select(*selected, *keep)


def _filled(value: SparkColumn, column: Column) -> SparkColumn:
    if column.fill_null is None:
        return value
    return F.coalesce(value, F.lit(column.fill_null).cast(column.type))


def _cast(source: FileColumn, target: str) -> tuple[SparkColumn, SparkColumn]:
    """The value as the target type, null where that cannot be; and whether a value was there that could not."""
    raw = F.col(quoted(source.name))
    if source.type == target and target not in _TIMES:
        return raw, F.lit(False)
    if source.kind == "nanos":
        cast = F.timestamp_micros(F.expr(f"{quoted(source.name)} div 1000")).try_cast(target)
    elif source.type in ("float", "double"):
        # pandas writes not-a-number where a value is missing.
        raw = F.when(~F.isnan(raw), raw)
        # A cast to an integer would cut 1.5 to 1 and say nothing.
        cast = F.when(raw == F.floor(raw), raw.try_cast(target)) if target in _INTEGERS else raw.try_cast(target)
    else:
        cast = raw.try_cast(target)
    cast = _in_range(cast, target)
    return cast, raw.isNotNull() & cast.isNull()


def _in_range(value: SparkColumn, target: str) -> SparkColumn:
    """Times outside the years 1 to 9999 as null: beyond them a rule's arithmetic overflows and ends the job."""
    if target not in _TIMES:
        return value
    first, last = (F.lit(day).cast(target) for day in ("0001-01-01", "9999-12-31"))
    return F.when(value.between(first, last), value)
