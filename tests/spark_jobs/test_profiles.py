"""Profiles of files, on the real store, catalog and Spark Connect."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from contracts.dataset import DatasetContract, Upkeep
from contracts.profile import Profile, profile_key
from contracts.work import WorkItem
from spark_jobs import profile_job
from spark_jobs.lake import source_id
from tests.spark_jobs.conftest import JobStore, silver_batch
from tests.spark_jobs.test_jobs import run_silver
from tests.spark_jobs.trips import table, trip

Drop = Callable[..., WorkItem]


@pytest.fixture
def contract(few_rules: DatasetContract) -> DatasetContract:
    return few_rules.model_copy(update={"upkeep": Upkeep(pack_after=timedelta(0))})


def profiles(
    lake: SparkSession, store: JobStore, contract: DatasetContract, *items: WorkItem
) -> tuple[dict[str, Profile], Any]:
    batch = silver_batch(*items)
    marker = run_silver(lake, store, contract, batch)
    made = profile_job.run(store.settings, store.lake, store, contract, batch.batch_id)
    return {profile.key: profile for profile in made}, marker


def test_profile_tells_rows_rejects_nulls_and_bounds_of_each_file_of_a_batch_and_is_kept(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    fares = [float(fare) for fare in range(1, 101)]
    rows = [trip(fare_amount=fare, passenger_count=None if fare > 90 else 2) for fare in fares]
    one = drop("nyc_yellow/a 'b\" %.parquet", table(*rows, trip(fare_amount=-1.0)))
    other = drop("nyc_yellow/other.parquet", table(trip(fare_amount=7.0)))
    bad = drop("nyc_yellow/all_bad.parquet", table(trip(fare_amount=-1.0)))
    found, marker = profiles(lake, store, contract, one, other, bad, drop("nyc_yellow/refused.parquet", b"text"))
    assert set(found) == {one.key, other.key, bad.key}
    profile = found[one.key]
    assert (profile.rows_in, profile.rows_accepted, profile.rows_rejected) == (101, 100, 1)
    assert profile.snapshot_id == marker.snapshot_id
    assert profile.reasons == next(source.reasons for source in marker.sources if source.key == one.key) != {}
    columns = {column.name: column for column in profile.columns}
    assert list(columns) == [column.name for column in contract.silver.columns]
    fare = columns["fare_amount"]
    assert (fare.nulls, fare.minimum, fare.maximum, fare.unit) == (0, "1.00", "100.00", "USD")
    assert len(fare.quantiles) == 21
    assert list(fare.quantiles) == sorted(fare.quantiles)
    assert (fare.quantiles[0], fare.quantiles[10], fare.quantiles[20]) == (1.0, 50.0, 100.0)
    assert columns["passenger_count"].nulls == 10
    assert columns["store_and_fwd_flag"].values == {"N": 100}
    assert {column.maximum for column in found[other.key].columns if column.name == "fare_amount"} == {"7.00"}
    assert (found[bad.key].rows_rejected, found[bad.key].columns) == (1, ())
    kept = store.get_bytes("silver", profile_key("nyc_yellow", source_id(one.key), one.etag), 1_000_000)
    assert Profile.model_validate_json(kept) == profile


def test_batch_that_committed_nothing_has_no_profile(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    found, _ = profiles(lake, store, contract, drop("nyc_yellow/refused.parquet", b"text"))
    assert found == {}
    assert store.keys("silver", "_profiles/") == []
