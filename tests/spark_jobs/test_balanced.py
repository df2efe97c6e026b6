"""Conditions of many parts, on a real Spark Connect server: it refuses expressions that are nested too deep."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_jobs.balanced import all_of, any_of, first_that_takes, sum_of


@pytest.mark.parametrize("parts", [0, 1, 2, 1000])
def test_conditions_and_sums_may_have_any_number_of_parts(spark: SparkSession, parts: int) -> None:
    number = F.col("id")
    one = [number == part for part in range(parts)]
    none = [number != part for part in range(parts)]
    frame = spark.range(parts + 1).select(any_of(one), all_of(none), sum_of([F.lit(1)] * parts))
    assert [tuple(row) for row in frame.collect()] == [(True, False, parts)] * parts + [(False, True, parts)]


@pytest.mark.parametrize("parts", [1, 2, 1000])
def test_value_is_taken_by_the_first_of_any_number_of_ends_that_is_not_less(spark: SparkSession, parts: int) -> None:
    ends = [(f"{2 * part + 1:06}", f"part {part}") for part in range(parts)]
    taken = first_that_takes(F.lpad(F.col("id").cast("string"), 6, "0"), ends)
    found = [row[0] for row in spark.range(2 * parts + 2).orderBy("id").select(taken).collect()]
    assert found == [f"part {min(number // 2, parts - 1)}" for number in range(2 * parts + 2)]
