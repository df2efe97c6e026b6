"""Conditions of many parts, on a real Spark Connect server: it refuses expressions that are nested too deep."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark_jobs.balanced import all_of, any_of, sum_of


@pytest.mark.parametrize("parts", [0, 1, 2, 1000])
def test_conditions_and_sums_may_have_any_number_of_parts(spark: SparkSession, parts: int) -> None:
    number = F.col("id")
    one = [number == part for part in range(parts)]
    none = [number != part for part in range(parts)]
    frame = spark.range(parts + 1).select(any_of(one), all_of(none), sum_of([F.lit(1)] * parts))
    assert [tuple(row) for row in frame.collect()] == [(True, False, parts)] * parts + [(False, True, parts)]
