"""Raw columns of a file to the columns and types of its contract."""

from __future__ import annotations

import re

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from contracts.dataset import Column
from spark_jobs.footers import FileColumn
from spark_jobs.matching import Layout, quoted

BAD = "_bad_"
RAW = "_raw:"
_ONCE = "_once"
_INTEGERS = ("tinyint", "smallint", "int", "bigint")
_FLOATS = ("float", "double")
_INTERVAL_SCALE, _INTERVAL_DIGITS = 6, 12
"""Digits behind and before the point that an interval of 64 bits of microseconds holds."""
_TIMES = ("date", "timestamp", "timestamp_ntz")


def conform(df: DataFrame, columns: tuple[Column, ...], layout: Layout, keep: tuple[str, ...] = ()) -> DataFrame:
    """Give rows the contract's names and types.

    Args:
        df: rows as read with `layout.ddl`.
        keep: columns of `df` that are handed on as they are.

    Returns:
        The contract's columns; for each a `_bad_<column>: boolean`, true when a value was there but could not be
        cast; the row as it came, its columns named `_raw:<name>`; and those of `keep`. A column that the file lacks
        is null.
    """
    sources = {column.name: layout.source_of(column.name) for column in columns}
    renamed = df.select(*(F.col(quoted(item.name)).alias(RAW + item.name) for item in layout.columns), *keep)
    cast = renamed.select("*", *(_value(column, sources[column.name]) for column in columns))
    return _evaluated(cast).select(
        *(_raw(item) for item in layout.columns),
        *(_filled(column) for column in columns),
        *(_is_bad(column, sources[column.name]) for column in columns),
        *keep,
    )


def _evaluated(df: DataFrame) -> DataFrame:
    """The same rows, with their columns computed here, once, and not again in each expression above.

    The optimizer otherwise copies every cast into every check, and the code that it makes of them together is above
    the 8,000 bytes that the JVM compiles (measured: 3 to 5 times the CPU time). It copies nothing past a column that
    is not deterministic, as long as somebody uses it.
    """
    return df.withColumn(_ONCE, F.monotonically_increasing_id()).where(F.col(_ONCE) >= 0).drop(_ONCE)


def _raw(source: FileColumn) -> SparkColumn:
    return F.col(quoted(RAW + source.name))


def _filled(column: Column) -> SparkColumn:
    value = F.col(column.name)
    if column.fill_null is None:
        return value
    return F.coalesce(value, F.lit(column.fill_null).cast(column.type)).alias(column.name)


def _value(column: Column, source: FileColumn | None) -> SparkColumn:
    if source is None:
        return F.lit(None).cast(column.type).alias(column.name)
    raw = _raw(source)
    if source.kind == "nanos":
        # `div` is a division of whole numbers; a quotient of doubles would lose digits.
        value = F.timestamp_micros(F.expr(f"{quoted(RAW + source.name)} div 1000")).try_cast(column.type)
    elif source.type in _FLOATS and column.type in _INTEGERS:
        # A cast alone would cut 1.5 to 1 and say nothing.
        value = F.when(raw == F.rint(raw), raw.try_cast(column.type))
    elif source.type in _FLOATS and (decimal := _decimal(column.type)) is not None:
        value = _to_decimal(raw, column.type, *decimal)
    else:
        # Not-a-number, which pandas writes where a value is missing, becomes null here.
        value = raw if source.type == column.type else raw.try_cast(column.type)
    if column.type in _TIMES:
        # Beyond these years a rule's arithmetic overflows, which would end the job.
        first, last = (F.lit(day).cast(column.type) for day in ("0001-01-01", "9999-12-31"))
        value = F.when(value.between(first, last), value)
    return value.alias(column.name)


def _is_bad(column: Column, source: FileColumn | None) -> SparkColumn:
    if source is None or (source.type == column.type and column.type not in _TIMES):
        return F.lit(False).alias(BAD + column.name)
    raw = _raw(source)
    if source.type in _FLOATS:
        there = raw.isNotNull() & ~F.isnan(raw)
        decimal = _decimal(column.type)
        # The same as a failed cast, without the cast: reading only the rejected rows then skips most casts.
        bad = there & (F.abs(raw) >= _decimal_limit(*decimal) if decimal else F.col(column.name).isNull())
    else:
        bad = raw.isNotNull() & F.col(column.name).isNull()
    return bad.alias(BAD + column.name)


def _to_decimal(raw: SparkColumn, kind: str, precision: int, scale: int) -> SparkColumn:
    """A floating-point number, rounded half up; null where it does not fit or is none."""
    if scale > _INTERVAL_SCALE or precision - scale > _INTERVAL_DIGITS:
        return raw.try_cast(kind)
    # Spark casts by way of the number's text. An interval is a whole number of microseconds and its cast only shifts
    # digits (measured: 11 columns of 3 million rows in 0.9 s instead of 3.1 s).
    interval = raw.cast("double") * F.expr("INTERVAL '1' SECOND")
    return F.when(F.abs(raw) < _decimal_limit(precision, scale), interval.try_cast(kind))


def _decimal(kind: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", kind)
    return (int(found[1]), int(found[2])) if found else None


def _decimal_limit(precision: int, scale: int) -> float:
    """The least number that no longer fits a decimal type once it is rounded."""
    return float(10 ** (precision - scale)) - 0.5 * 10.0**-scale
