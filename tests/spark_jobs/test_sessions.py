"""Sessions on a Spark Connect server."""

from __future__ import annotations

from pyspark.sql import SparkSession

from contracts.settings import Settings
from spark_jobs.session import connect_session


def test_rows_that_the_executors_hold_belong_to_the_session_that_asked_although_an_older_one_is_open(
    spark: SparkSession, servers: Settings
) -> None:
    newer = connect_session(servers)
    try:
        assert newer.range(1).localCheckpoint().sparkSession is newer
    finally:
        newer.stop()
    assert spark.range(1).localCheckpoint().sparkSession is spark
