"""For-hire vehicles: the transformations on rows that are made here, every era's columns, and a month up to gold."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, Row, SparkSession

from contracts.loading import load_contract
from contracts.settings import load_settings
from contracts.states import Layer
from contracts.work import make_batch
from ingest.csv_files import csv_to_parquet
from ingest.eras import published_schema
from ingest.generator import generate_month
from spark_jobs import data_preprocessing_job, feature_engineering_job
from spark_jobs.footers import read_footer
from spark_jobs.matching import Layout, match_columns
from spark_jobs.transforms import nyc_fhv as transforms
from tests.spark_jobs.conftest import Catalog, JobStore

CONTRACT = load_contract(load_settings().contracts_dir / "nyc_fhv.yaml")
ROW = {
    "dispatching_base_num": "B00477",
    "pickup_datetime": "2020-04-15 17:30:00",
    "dropoff_datetime": "2020-04-15 17:50:30",
    "pickup_location_id": "264",
    "dropoff_location_id": "69",
}
TABLES = (CONTRACT.silver.name, CONTRACT.rejects_table, CONTRACT.features.name, CONTRACT.aggregate.name)


def silver(spark: SparkSession, *rows: dict[str, str]) -> DataFrame:
    """Silver rows of values written as text; a column that is left out is null."""
    columns = CONTRACT.silver.columns
    values = [tuple(row.get(column.name) for column in columns) for row in rows]
    text = spark.createDataFrame(values, ", ".join(f"{column.name} string" for column in columns))
    return text.select(*(text[column.name].cast(column.type) for column in columns))


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in ROW.items() if name not in names}


def features(spark: SparkSession, row: dict[str, str]) -> Row:
    (made,) = transforms.features(silver(spark, row)).collect()
    return made


def test_clean_keeps_rows_and_columns(spark: SparkSession) -> None:
    rows = silver(spark, ROW, ROW)
    cleaned = transforms.clean(rows)
    assert (cleaned.dtypes, cleaned.count()) == (rows.dtypes, 2)


def test_clean_takes_the_padding_from_bases_and_a_blank_one_for_missing(spark: SparkSession) -> None:
    rows = [ROW | {"dispatching_base_num": base, "affiliated_base_number": base} for base in ("b00477   ", "  ", "")]
    cleaned = transforms.clean(silver(spark, *rows)).collect()
    assert [row.dispatching_base_num for row in cleaned] == ["B00477", None, None]
    assert [row.affiliated_base_number for row in cleaned] == ["B00477", None, None]


def test_features_of_a_trip_are_those_worked_out_by_hand(spark: SparkSession) -> None:
    row = features(spark, ROW | {"sr_flag": "1"})
    assert (row.pickup_hour, row.hour_of_day, row.day_of_week) == (datetime(2020, 4, 15, 17), 17, 3)
    assert (row.is_weekend, row.is_night, row.is_same_zone, row.is_shared) == (False, False, False, True)
    assert (row.duration_seconds, row.duration_minutes) == (1230, 20.5)


def test_trip_without_dropoff_zones_or_flag_has_no_duration_and_is_not_shared(spark: SparkSession) -> None:
    row = features(spark, without("dropoff_datetime", "pickup_location_id"))
    assert (row.duration_seconds, row.duration_minutes, row.is_same_zone) == (None, None, None)
    assert row.is_shared is False


def test_features_have_every_column_of_the_contract(spark: SparkSession) -> None:
    types = dict(transforms.features(silver(spark, ROW)).dtypes)
    assert {column.name: types.get(column.name) for column in CONTRACT.features.columns} == {
        column.name: column.type for column in CONTRACT.features.columns
    }


def test_aggregate_counts_an_hour_of_a_zone_and_keeps_trips_without_zone(spark: SparkSession) -> None:
    rows = (
        ROW,
        ROW | {"sr_flag": "1", "dropoff_datetime": "2020-04-15 17:40:00"},
        without("dropoff_datetime"),
        without("pickup_location_id"),
    )
    counted = transforms.aggregate(transforms.features(silver(spark, *rows)))
    assert dict(counted.dtypes) == {column.name: column.type for column in CONTRACT.aggregate.columns}
    found = {row.pickup_location_id: row for row in counted.collect()}
    assert (found[264].trips, found[264].shared_trips, found[264].mean_duration_minutes) == (3, 1, 15.25)
    assert found[None].trips == 1


MONTHS = ["2015-01", "2017-07", "2019-02", "2019-05", "2020-04", "2020-07", "2023-01", "2023-02", "2025-01"]
CSVS = {
    "2015-01": ("Dispatching_base_num,Pickup_date,locationID", {"pickup_datetime", "pickup_location_id"}),
    "2017-01": (
        "Dispatching_base_num,Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID",
        {"pickup_datetime", "dropoff_datetime", "pickup_location_id", "dropoff_location_id"},
    ),
}


def matched(file: Path) -> tuple[set[str], set[str]]:
    """Columns of the contract that a file has, and columns of the file that no column of the contract names."""
    with file.open("rb") as opened:
        footer = read_footer(_Local(opened.read()), "", "", file.stat().st_size)
    layout = match_columns(CONTRACT.silver.columns, footer.columns)
    assert isinstance(layout, Layout), layout
    used = {index for _, index in layout.sources}
    return {name for name, _ in layout.sources}, {c.name for n, c in enumerate(layout.columns) if n not in used}


class _Local:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def get_range(self, bucket: str, key: str, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


@pytest.mark.parametrize("month", MONTHS)
def test_each_column_of_every_published_month_has_its_place(tmp_path: Path, month: str) -> None:
    schema = published_schema("nyc_fhv", *map(int, month.split("-")))
    pq.write_table(schema.empty_table(), tmp_path / "file.parquet")
    flag = set() if pa.types.is_null(schema.field("SR_Flag").type) else {"sr_flag"}
    names = {column.name for column in CONTRACT.silver.columns}
    assert matched(tmp_path / "file.parquet") == (names - {"sr_flag"} | flag, set())


@pytest.mark.parametrize("month", CSVS)
def test_each_column_of_an_early_csv_has_its_place(tmp_path: Path, month: str) -> None:
    header, names = CSVS[month]
    (tmp_path / "file.csv").write_text(f"{header}\n{',' * header.count(',')}\n")
    csv_to_parquet(tmp_path / "file.csv", tmp_path / "file.parquet", CONTRACT.source_names)
    assert matched(tmp_path / "file.parquet") == (names | {"dispatching_base_num"}, set())


@pytest.fixture
def lake(spark: SparkSession, store: JobStore, catalog: Catalog) -> SparkSession:
    """The session, with no table of this dataset in its catalog."""
    catalog.forget(TABLES)
    return spark


def to_gold(spark: SparkSession, store: JobStore, data: bytes) -> tuple[int, int]:
    """Take a month through silver into gold, and check its rows on the way: accepted and rejected ones."""
    item = store.drop("nyc_fhv/fhv_2020-04.parquet", data)
    jobs = spark, store.lake, store, CONTRACT
    (found,) = data_preprocessing_job.run(*jobs, make_batch(Layer.SILVER, CONTRACT.dataset, [item])).sources
    assert (found.refused, found.rows_in) == (None, found.rows_accepted + found.rows_rejected)
    rejects = {row[0] for row in spark.table(CONTRACT.rejects_table).select("_reason").distinct().collect()}
    assert rejects <= {rule.code for rule in CONTRACT.rules}
    gold = make_batch(Layer.GOLD, CONTRACT.dataset, [item.model_copy(update={"rows": found.rows_accepted})])
    (made,) = feature_engineering_job.run(*jobs, gold).sources
    assert (made.refused, made.rows_accepted) == (None, found.rows_accepted)
    assert spark.table(CONTRACT.aggregate.name).agg({"trips": "sum"}).collect()[0][0] == found.rows_accepted
    return found.rows_accepted, found.rows_rejected


def test_generated_month_reaches_gold_and_its_dirt_the_rejects(
    lake: SparkSession, store: JobStore, tmp_path: Path
) -> None:
    generate_month(tmp_path / "month.parquet", 2020, 4, 1000, seed=1, dataset="nyc_fhv")
    accepted, rejected = to_gold(lake, store, (tmp_path / "month.parquet").read_bytes())
    assert accepted + rejected == 1000
    assert 0 < rejected < 100


def test_published_trips_reach_gold_whole(
    lake: SparkSession, store: JobStore, real_files: Path, tmp_path: Path
) -> None:
    csv_to_parquet(real_files / "fhv_tripdatasample_2020-04.csv", tmp_path / "month.parquet", CONTRACT.source_names)
    assert to_gold(lake, store, (tmp_path / "month.parquet").read_bytes()) == (1000, 0)
