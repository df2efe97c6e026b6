"""The columns of every era of the published files, against the contracts."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.dataset import code_key
from contracts.loading import load_contracts
from contracts.settings import PROJECT
from spark_jobs.footers import FileColumn, read_footer
from spark_jobs.matching import Layout, Refusal, match_columns

CONTRACTS = load_contracts(PROJECT / "contracts" / "datasets")
# Column and type of the published files, in their order.
YELLOW_2009 = """vendor_name string, Trip_Pickup_DateTime string, Trip_Dropoff_DateTime string,
    Passenger_Count bigint, Trip_Distance double, Start_Lon double, Start_Lat double, Rate_Code double,
    store_and_forward double, End_Lon double, End_Lat double, Payment_Type string, Fare_Amt double,
    surcharge double, mta_tax double, Tip_Amt double, Tolls_Amt double, Total_Amt double"""
YELLOW_2010 = """vendor_id string, pickup_datetime string, dropoff_datetime string, passenger_count bigint,
    trip_distance double, pickup_longitude double, pickup_latitude double, rate_code string, store_and_fwd_flag string,
    dropoff_longitude double, dropoff_latitude double, payment_type string, fare_amount double, surcharge double,
    mta_tax double, tip_amount double, tolls_amount double, total_amount double"""
YELLOW_2011 = """VendorID bigint, tpep_pickup_datetime timestamp_ntz, tpep_dropoff_datetime timestamp_ntz,
    passenger_count bigint, trip_distance double, RatecodeID bigint, store_and_fwd_flag string, PULocationID bigint,
    DOLocationID bigint, payment_type bigint, fare_amount double, extra double, mta_tax double, tip_amount double,
    tolls_amount double, improvement_surcharge double, total_amount double, congestion_surcharge int, airport_fee int"""
COORDINATES = {"pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude"}
ZONES = {"pickup_location_id", "dropoff_location_id"}
LATER = {"improvement_surcharge", "congestion_surcharge", "airport_fee", "cbd_congestion_fee"}
ERAS: dict[str, tuple[str, set[str], set[str]]] = {
    # month: columns, those of the contract that the file lacks, those of the file that the contract lacks
    "2009-01": (YELLOW_2009, ZONES | LATER, set()),
    "2010-01": (YELLOW_2010, ZONES | LATER, set()),
    "2010-02": (YELLOW_2010 + ", __index_level_0__ bigint", ZONES | LATER, {"__index_level_0__"}),
    "2011-01": (YELLOW_2011, COORDINATES | {"cbd_congestion_fee"}, set()),
    "2018-07": (
        YELLOW_2011.replace("passenger_count bigint", "passenger_count double").replace("ID bigint", "ID double", 2),
        COORDINATES | {"cbd_congestion_fee"}, set(),
    ),
    "2025-01": (
        YELLOW_2011.replace("airport_fee", "Airport_fee").replace("bigint", "int") + ", cbd_congestion_fee double",
        COORDINATES, set(),
    ),
}  # fmt: skip


def columns_of(text: str) -> list[FileColumn]:
    return [FileColumn(*part.split(), kind="plain") for part in text.split(",")]


def match(dataset: str, found: list[FileColumn]) -> tuple[set[str], set[str]]:
    """Columns of the contract that a file lacks, and columns of the file that no column of the contract names."""
    layout = match_columns(CONTRACTS[dataset].silver.columns, found)
    assert isinstance(layout, Layout), layout
    used = {index for _, index in layout.sources}
    sought = {column.name for column in CONTRACTS[dataset].silver.columns if not column.derived}
    lacking = sought - {name for name, _ in layout.sources}
    return lacking, {column.name for index, column in enumerate(layout.columns) if index not in used}


@pytest.mark.parametrize("month", ERAS)
def test_each_column_of_every_yellow_era_has_its_place(month: str) -> None:
    text, lacking, left = ERAS[month]
    assert match("nyc_yellow", columns_of(text)) == (lacking, left)
    assert CONTRACTS["nyc_yellow"].period_of(f"nyc_yellow/yellow_tripdata_{month}.parquet") is not None


@pytest.mark.parametrize("gone", ["Start_Lon", "End_Lat", "Fare_Amt"])
def test_early_file_without_a_coordinate_or_a_fare_is_refused(gone: str) -> None:
    columns = [column for column in columns_of(YELLOW_2009) if column.name != gone]
    refusal = match_columns(CONTRACTS["nyc_yellow"].silver.columns, columns)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "missing_columns"


@pytest.mark.parametrize(
    ("file", "dataset", "lacking"),
    [
        ("green_tripdata_2023-01.parquet", "nyc_green", {"ehail_fee", "cbd_congestion_fee"}),
        ("green_tripdata_2023-02.parquet", "nyc_green", {"cbd_congestion_fee"}),
        ("green_tripdata_2025-01.parquet", "nyc_green", set()),
        ("green_tripdata_2025-02.parquet", "nyc_green", set()),
        ("yellow_tripdata_sample.parquet", "nyc_yellow", COORDINATES),
    ],
)
def test_each_column_of_the_real_files_has_its_place(
    real_files: Path, file: str, dataset: str, lacking: set[str]
) -> None:
    assert match(dataset, _columns(real_files / file)) == (lacking, set())


def test_real_file_that_somebody_cut_is_refused_with_all_that_it_lacks(real_files: Path) -> None:
    found = _columns(real_files / "green_tripdata_2022-01.parquet")
    refusal = match_columns(CONTRACTS["nyc_green"].silver.columns, found)
    assert isinstance(refusal, Refusal)
    assert all(name in refusal.detail for name in ("vendor_id", "fare_amount", "trip_type"))


@pytest.mark.parametrize("text", ["CMT", " vts", "Cash ", "CRE", "No Charge", "DIS", "UNK"])
def test_code_of_an_early_file_has_a_number(text: str) -> None:
    columns = {column.name: column for column in CONTRACTS["nyc_yellow"].silver.columns}
    known = columns["vendor_id"].codes | columns["payment_type"].codes  # type: ignore[operator]
    assert isinstance(known[code_key(text)], int)


class _Local:
    def get_range(self, bucket: str, key: str, offset: int, length: int) -> bytes:
        return Path(key).read_bytes()[offset : offset + length]


def _columns(file: Path) -> list[FileColumn]:
    return list(read_footer(_Local(), "", str(file), file.stat().st_size).columns)
