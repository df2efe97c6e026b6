"""Gold carries what a reference says, whatever the reference holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from contracts.dataset import DatasetContract
from contracts.loading import load_contract
from contracts.settings import PROJECT
from contracts.states import Layer
from contracts.work import WorkItem
from ingest.csv_files import csv_to_parquet
from spark_jobs import data_preprocessing_job, feature_engineering_job
from spark_jobs.references import References
from tests.spark_jobs.conftest import TAXI, JobStore, gold_batch, silver_batch
from tests.spark_jobs.trips import table, trip

Drop = Callable[..., WorkItem]
NAMES = ("pickup_borough", "pickup_zone", "dropoff_borough", "dropoff_zone", "borough_pair")
JFK = (132, "Queens", "JFK Airport", "Airports")
TIMES_SQUARE = (230, "Manhattan", "Times Sq/Theatre District", "Yellow Zone")


@pytest.fixture
def to_gold(lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop) -> Callable[..., None]:
    """Take trips into silver and gold."""

    def run(*rows: dict[str, Any], version: str = "1", without: tuple[str, ...] = (), **more: Any) -> None:
        content = table(*rows, without=without)
        for name, values in more.items():
            content = content.append_column(name, pa.array(values))
        item = drop("nyc_yellow/trips.parquet", content, version)
        marker = data_preprocessing_job.run(lake, store.lake, store, contract, silver_batch(item))
        work = item.model_copy(update={"version": version, "rows": marker.sources[0].rows_accepted})
        feature_engineering_job.run(lake, store.lake, store, contract, gold_batch(work))

    return run


def features(lake: SparkSession) -> list[tuple[Any, ...]]:
    return [
        tuple(row)
        for row in lake.table("gold.nyc_yellow_features").orderBy("pickup_location_id").select(*NAMES).collect()
    ]


def aggregate(lake: SparkSession) -> list[tuple[Any, ...]]:
    rows = lake.table("gold.nyc_yellow_zone_hour").orderBy("pickup_location_id")
    return [tuple(row) for row in rows.select("pickup_location_id", "pickup_borough", "pickup_zone", "trips").collect()]


def test_trips_get_the_names_of_their_zones_in_features_and_aggregate(
    lake: SparkSession, drop_zones: Any, to_gold: Any
) -> None:
    drop_zones(JFK, TIMES_SQUARE)
    to_gold(trip(), trip(), trip(PULocationID=7))
    queens = ("Queens", "JFK Airport", "Manhattan", "Times Sq/Theatre District", "Queens-Manhattan")
    unknown = (None, None, "Manhattan", "Times Sq/Theatre District", None)
    assert features(lake) == [unknown, queens, queens]
    assert aggregate(lake) == [(7, None, None, 1), (132, "Queens", "JFK Airport", 2)]


def test_two_lookups_may_be_by_the_same_column(lake: SparkSession, store: JobStore, drop_zones: Any) -> None:
    drop_zones(JFK)
    contract = load_contract(PROJECT / "contracts" / "datasets" / "nyc_yellow.yaml")
    pickup = next(lookup for lookup in contract.references if lookup.by == "pickup_location_id")
    each = [pickup.model_copy(update={"columns": {name: source}}) for name, source in pickup.columns.items()]
    references = References(lake, store.lake, contract.model_copy(update={"references": tuple(each)}))
    trips = lake.createDataFrame([(132,), (7,)], "pickup_location_id int")
    joined = references.join(trips, ("pickup_borough", "pickup_zone")).orderBy("pickup_location_id")
    assert joined.columns == ["pickup_location_id", *pickup.columns]
    assert [tuple(row)[1:] for row in joined.collect()] == [(None, None), ("Queens", "JFK Airport")]


@pytest.mark.parametrize("there", [False, True], ids=["never-dropped", "without-rows"])
def test_names_are_null_while_the_reference_has_no_rows(
    lake: SparkSession, drop_zones: Any, to_gold: Any, there: bool
) -> None:
    if there:
        drop_zones((None, "Queens", "a zone without its number", ""))
        assert lake.table("silver.taxi_zones").count() == 0
    to_gold(trip())
    assert features(lake) == [(None,) * 5]
    assert aggregate(lake) == [(132, None, None, 1)]


def test_key_with_two_rows_multiplies_no_trip_and_gives_the_last_in_order(
    lake: SparkSession, drop_zones: Any, to_gold: Any
) -> None:
    drop_zones((132, "Queens", "Old name", "x"), JFK, TIMES_SQUARE, (132, "Queens", None, "z"))
    drop_zones((132, "Bronx", "Zoo", "x"), file="another")
    to_gold(trip(), trip())
    assert features(lake) == [("Queens", "Old name", "Manhattan", "Times Sq/Theatre District", "Queens-Manhattan")] * 2
    assert aggregate(lake) == [(132, "Queens", "Old name", 2)]


def test_corrected_reference_reaches_gold_when_the_same_file_is_handed_on_anew(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop_zones: Any, drop: Drop
) -> None:
    item = drop("nyc_yellow/trips.parquet", table(trip()))
    marker = data_preprocessing_job.run(lake, store.lake, store, contract, silver_batch(item))
    for version, name in (("1", "Idlewild"), ("2", "JFK Airport")):
        drop_zones((132, "Queens", name, "Airports"), version=version)
        work = item.model_copy(update={"version": f"refresh-{version}"})
        gold = feature_engineering_job.run(lake, store.lake, store, contract, gold_batch(work))
        assert gold.sources[0].rows_accepted == marker.sources[0].rows_accepted == 1
        assert features(lake) == [("Queens", name, None, None, None)]
        assert aggregate(lake) == [(132, "Queens", name, 1)]


def test_data_files_are_written_by_the_native_writer_with_names_and_without(
    lake: SparkSession, store: JobStore, drop_zones: Any, to_gold: Any
) -> None:
    for version in ("1", "2"):
        to_gold(trip(), trip(PULocationID=7), version=version)
        keys = [key for key in store.keys("gold") if key.endswith(".parquet")]
        writers = {pq.read_metadata(pa.BufferReader(store.read("gold", key))).created_by for key in keys}
        assert len(keys) >= 2
        assert not any("parquet-mr" in writer for writer in writers), writers
        drop_zones(JFK, JFK, TIMES_SQUARE)


def test_published_lookup_is_taken_in_whole_with_its_values_as_they_are(
    lake: SparkSession, drop_zones: Any, tmp_path: Path, zones_contract: DatasetContract
) -> None:
    published = TAXI / "taxi_zone_lookup.csv"
    if not published.is_file():
        pytest.skip(f"{published.name} is not beside the repository (shared/data/taxi)")
    landed = tmp_path / "landed.parquet"
    csv_to_parquet(published, landed, zones_contract.source_names)
    marker = drop_zones(text=landed.read_bytes())
    assert (marker.sources[0].rows_in, marker.sources[0].rows_accepted) == (265, 265)
    assert marker.sources[0].depth is Layer.SILVER
    last = lake.table("silver.taxi_zones").where("location_id >= 264").orderBy("location_id")
    named = last.select("location_id", "borough", "zone", "service_zone").collect()
    assert [tuple(row) for row in named] == [(264, "Unknown", "NV", "N/A"), (265, "Unknown", "NA", "N/A")]
