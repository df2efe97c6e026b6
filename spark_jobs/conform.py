"""Raw columns of a file to the columns and types of its contract."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from contracts.dataset import Column, Value
from spark_jobs.balanced import any_of
from spark_jobs.footers import FileColumn
from spark_jobs.matching import Layout, quoted

BAD = "_bad_"
RESCUED = "_rescued"
UNPARSED_LINE = "_unparsed_line"
RAW = "_raw:"
ONCE = "_once"
_INTEGERS = ("tinyint", "smallint", "int", "bigint")
_FLOATS = ("float", "double")
_TIMES = ("date", "timestamp", "timestamp_ntz")


def conform(df: DataFrame, columns: tuple[Column, ...], layout: Layout, keep: tuple[str, ...] = ()) -> DataFrame:
    """Give rows the contract's names and types.

    Args:
        df: rows as they came, their columns named as `as_it_came` names them.
        keep: further columns of `df` that are handed on as they are.

    Returns:
        The contract's columns but for derived ones; for each that `may_be_bad` a `_bad_<column>: boolean`, true when a
        value was there but could not be cast or is no known code; `_rescued: string`, what the row says in columns that
        no contract column names, as a JSON object without nulls, or null; where the layout has lines of a CSV that
        could not be parsed, `_unparsed_line: boolean`, true for these; the row as it came, its columns named
        `_raw:<name>`; and those of `keep`.
    """
    columns = tuple(column for column in columns if not column.derived)
    sources = {column.name: layout.source_of(column.name) for column in columns}
    cast = df.select("*", *(_value(column, sources[column.name]) for column in columns))
    return evaluated(cast).select(
        *(_raw(item) for item in layout.columns),
        *(_filled(column, F.col(column.name)).alias(column.name) for column in columns),
        *(_is_bad(column, source) for column in columns if (source := _source_of_bad(column, layout))),
        _rescued(layout.extras),
        *([_raw(layout.unparsed).isNotNull().alias(UNPARSED_LINE)] if layout.unparsed else []),
        *keep,
    )


def as_it_came(layout: Layout) -> list[SparkColumn]:
    """The columns of a file, named `_raw:<name>`: whatever they are called, they are none of ours then."""
    return [F.col(quoted(item.name)).alias(RAW + item.name) for item in layout.columns]


def conformed_value(column: Column, layout: Layout) -> SparkColumn:
    """A column as `conform` makes it, of rows whose columns are those of `as_it_came`."""
    return _filled(column, _value(column, layout.source_of(column.name))).alias(column.name)


def evaluated(df: DataFrame) -> DataFrame:
    """The same rows and `_once`, with their columns computed here, once, and not again in each expression above.

    The optimizer otherwise copies every cast into every check, and the code that it makes of them together is above
    the 8,000 bytes that the JVM compiles (measured: 3 to 5 times the CPU time). It copies nothing past a column that
    is not deterministic, as long as somebody uses it.
    """
    # Not a select: here Spark Connect analyses what is below, and a deep plan in parts faster than as a whole.
    return df.withColumn(ONCE, F.monotonically_increasing_id()).where(F.col(ONCE) >= 0)


def with_new(df: DataFrame, columns: Mapping[str, SparkColumn]) -> DataFrame:
    """The same rows with further columns. `withColumns` would do, but Spark Connect analyses the plan for each of them.

    Args:
        columns: by names that `df` does not have yet.
    """
    return df.select("*", *(column.alias(name) for name, column in columns.items()))


def _raw(source: FileColumn) -> SparkColumn:
    return F.col(quoted(RAW + source.name))


def _filled(column: Column, value: SparkColumn) -> SparkColumn:
    if column.fill_null is None:
        return value
    return F.coalesce(value, F.lit(column.fill_null).cast(column.type))


def _value(column: Column, source: FileColumn | None) -> SparkColumn:
    if source is None:
        return F.lit(None).cast(column.type).alias(column.name)
    raw = _raw(source)
    if _has_codes(column, source):
        value = _decoded(raw, source, column)
    elif source.kind == "nanos":
        # `div` is a division of whole numbers; a quotient of doubles would lose digits.
        value = F.timestamp_micros(F.expr(f"{quoted(RAW + source.name)} div 1000")).try_cast(column.type)
    elif source.type in _FLOATS and column.type in _INTEGERS:
        value = _whole(raw, column.type)
    elif _decimal(source.type or "") and column.type in _INTEGERS:
        # As with floating-point numbers, but a double holds not all digits of these.
        value = F.when(raw == F.floor(raw), raw.try_cast(column.type))
    elif source.type == "string" and column.type in _INTEGERS:
        value = _parsed(raw, column.type)
    else:
        # Not-a-number, which pandas writes where a value is missing, becomes null here.
        value = raw if source.type == column.type else raw.try_cast(column.type)
    if column.type in _TIMES:
        # Beyond these years a rule's arithmetic overflows, which would end the job.
        first, last = (F.lit(day).cast(column.type) for day in ("0001-01-01", "9999-12-31"))
        value = F.when(value.between(first, last), value)
    return value.alias(column.name)


def _whole(raw: SparkColumn, kind: str) -> SparkColumn:
    """A floating-point number as a whole one; a cast alone would cut 1.5 to 1 and say nothing."""
    return F.when(raw == F.rint(raw), raw.try_cast(kind))


def _parsed(raw: SparkColumn, kind: str) -> SparkColumn:
    """A text as a whole number. Pandas writes 1 as 1.0 where the column has missing values."""
    return F.coalesce(raw.try_cast(kind), _whole(raw.try_cast("double"), kind))


def _has_codes(column: Column, source: FileColumn) -> bool:
    """Whether a value of the file can be a code: numbers are none where all codes are words."""
    return any(source.type not in (*_INTEGERS, *_FLOATS) or _is_number(code) for code in column.codes)


def _is_number(code: str) -> bool:
    try:
        float(code)
    except ValueError:
        return False
    return True


def _decoded(raw: SparkColumn, source: FileColumn, column: Column) -> SparkColumn:
    """A code of an earlier file as the contract's value, or the value itself; null for anything else."""
    text = raw.cast("string")
    plain = _parsed(text, column.type) if column.type in _INTEGERS else text.try_cast(column.type)
    by_value: dict[Value, list[str]] = {}
    for code, meaning in column.codes.items():
        by_value.setdefault(meaning, []).append(code)
    # Codes are few: no map, and no lower case where nothing has a case.
    key = F.lower(F.trim(text)) if source.type == "string" else text
    found = plain
    for meaning, codes in by_value.items():
        found = F.when(key.isin(codes), F.lit(meaning).cast(column.type)).otherwise(found)
    return found


def _rescued(extras: tuple[FileColumn, ...]) -> SparkColumn:
    if not extras:
        return F.lit(None).cast("string").alias(RESCUED)
    held = F.to_json(F.struct(*(_raw(item).alias(item.name) for item in extras)))
    return F.when(any_of([_raw(item).isNotNull() for item in extras]), held).alias(RESCUED)


def may_be_bad(column: Column, layout: Layout) -> bool:
    """Whether a file can hold values that are none of the column's."""
    return _source_of_bad(column, layout) is not None


def _source_of_bad(column: Column, layout: Layout) -> FileColumn | None:
    source = None if column.derived else layout.source_of(column.name)
    if source is None:
        return None
    as_it_is = source.type == column.type and column.type not in _TIMES and not _has_codes(column, source)
    return None if as_it_is else source


def _is_bad(column: Column, source: FileColumn) -> SparkColumn:
    raw = _raw(source)
    if source.type in _FLOATS and not _has_codes(column, source):
        there = raw.isNotNull() & ~F.isnan(raw)
        decimal = _decimal(column.type)
        # The same as a failed cast, without the cast: reading only the rejected rows then skips most casts.
        bad = there & (F.abs(raw) >= _decimal_limit(*decimal) if decimal else F.col(column.name).isNull())
    else:
        bad = raw.isNotNull() & F.col(column.name).isNull()
    return bad.alias(BAD + column.name)


def _decimal(kind: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", kind)
    return (int(found[1]), int(found[2])) if found else None


def _decimal_limit(precision: int, scale: int) -> float:
    """The least number that no longer fits a decimal type once it is rounded."""
    return float(10 ** (precision - scale)) - 0.5 * 10.0**-scale
