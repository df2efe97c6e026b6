"""The shapes of published months: the table against what is known of the real files, and the files that follow it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import UsageError
from ingest import generator
from ingest.eras import FHV, FIRST_MONTHS, GREEN, YELLOW, month_file_name, published_schema
from ingest.generator import generate_month, main

ROWS = 150_000

MONTHS = [
    *((YELLOW, year, month) for year, month in [(2009, 1), (2010, 1), (2010, 2), (2010, 3), (2011, 1), (2011, 2)]),
    *((YELLOW, year, month) for year, month in [(2014, 8), (2016, 2), (2018, 6), (2018, 7), (2019, 1), (2019, 2)]),
    *((YELLOW, year, month) for year, month in [(2020, 8), (2020, 10), (2021, 1), (2023, 1), (2023, 2), (2025, 1)]),
    *((GREEN, year, month) for year, month in [(2013, 8), (2019, 9), (2022, 1), (2023, 1), (2023, 2), (2025, 1)]),
    *((FHV, year, month) for year, month in [(2015, 1), (2018, 1), (2019, 3), (2019, 5), (2020, 7), (2023, 2)]),
]
each_month = pytest.mark.parametrize(
    ("dataset", "year", "month"), [pytest.param(*one, id=month_file_name(one[1], one[2], one[0])) for one in MONTHS]
)


def kinds(dataset: str, year: int, month: int) -> dict[str, str]:
    return {field.name: str(field.type) for field in published_schema(dataset, year, month)}


def made(folder: Path, dataset: str, year: int, month: int, rows: int = ROWS) -> pd.DataFrame:
    generate_month(folder / "f", year, month, rows, 3, dataset)
    return pq.read_table(folder / "f").to_pandas()


@each_month
def test_generated_file_has_the_schema_of_the_table(tmp_path: Path, dataset: str, year: int, month: int) -> None:
    generate_month(tmp_path / "f", year, month, 300, 1, dataset)
    assert pq.read_schema(tmp_path / "f").equals(published_schema(dataset, year, month))


@settings(max_examples=60)
@given(
    dataset=st.sampled_from(list(FIRST_MONTHS)),
    month=st.integers(0, 12 * 22 - 1),
    rows=st.integers(0, 400),
    seed=st.integers(0, 2**32),
)
def test_every_month_has_its_rows_and_its_shape_and_the_same_bytes_twice(
    dataset: str, month: int, rows: int, seed: int
) -> None:
    first = FIRST_MONTHS[dataset]
    months = first[0] * 12 + first[1] - 1 + month
    at = months // 12, months % 12 + 1
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b"):
            generate_month(Path(folder) / name, *at, rows, seed, dataset)
        assert (Path(folder) / "a").read_bytes() == (Path(folder) / "b").read_bytes()
        table = pq.read_table(Path(folder) / "a")
    assert table.num_rows == rows
    assert table.schema.equals(published_schema(dataset, *at))


def test_chunks_of_a_month_before_2025_keep_its_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "CHUNK_ROWS", 100)
    for dataset, year, month in MONTHS:
        generate_month(tmp_path / "f", year, month, 250, 7, dataset)
        file = pq.ParquetFile(tmp_path / "f")
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [100, 100, 50]


@pytest.mark.parametrize(
    ("dataset", "at", "first"),
    [(YELLOW, (2008, 12), "2009-01"), (GREEN, (2013, 7), "2013-08"), (FHV, (2014, 12), "2015-01")],
)
def test_month_before_the_first_one_is_refused_with_the_first_one(
    tmp_path: Path, dataset: str, at: tuple[int, int], first: str
) -> None:
    with pytest.raises(UsageError, match=rf"{at[0]}-{at[1]:02d} is no month of {dataset}: its first one is {first}"):
        generate_month(tmp_path / "f", *at, 1, 1, dataset)
    assert list(tmp_path.iterdir()) == []


def test_dataset_that_the_tlc_does_not_publish_is_refused_with_those_it_does() -> None:
    with pytest.raises(UsageError, match="nyc_yellow, nyc_green, nyc_fhv"):
        published_schema("nyc_red", 2020, 1)


def test_yellow_types_flip_in_the_months_in_which_those_of_the_published_files_do() -> None:
    assert kinds(YELLOW, 2010, 1)["rate_code"] == "string"
    assert kinds(YELLOW, 2010, 2) == kinds(YELLOW, 2010, 1) | {"rate_code": "int64", "__index_level_0__": "int64"}
    assert kinds(YELLOW, 2010, 4) == kinds(YELLOW, 2010, 1)
    double, nothing = "double", "null"
    fees = {at: (kinds(YELLOW, *at)["congestion_surcharge"], kinds(YELLOW, *at)["airport_fee"]) for at in [
        (2011, 1), (2011, 2), (2011, 3), (2012, 12), (2013, 1), (2018, 1), (2018, 6), (2018, 12), (2019, 1),
        (2020, 7), (2020, 8), (2020, 10), (2020, 11), (2023, 1),
    ]}  # fmt: skip
    assert fees == {
        (2011, 1): (double, double),
        (2011, 2): (nothing, nothing),
        (2011, 3): (double, nothing),
        (2012, 12): (double, nothing),
        (2013, 1): (nothing, nothing),
        (2018, 1): (double, double),
        (2018, 6): (double, nothing),
        (2018, 12): (nothing, nothing),
        (2019, 1): (double, nothing),
        (2020, 7): (double, nothing),
        (2020, 8): (double, double),
        (2020, 10): (double, nothing),
        (2020, 11): (double, double),
        (2023, 1): (double, double),
    }
    counts = {at: kinds(YELLOW, *at)["passenger_count"] for at in [(2018, 6), (2018, 7), (2023, 1), (2023, 2)]}
    assert counts == {(2018, 6): "int64", (2018, 7): double, (2023, 1): double, (2023, 2): "int64"}
    assert len(kinds(YELLOW, 2024, 12)) == 19
    assert len(kinds(YELLOW, 2025, 1)) == 20


@pytest.mark.parametrize(("year", "month"), [(2023, 1), (2023, 2), (2025, 1), (2025, 2)])
def test_green_table_is_that_of_the_real_files(real_files: Path, year: int, month: int) -> None:
    real = pq.read_schema(real_files / month_file_name(year, month, GREEN)).remove_metadata()
    # In parquet there is one type of text; only Arrow knows a second one.
    texts = [f.with_type(pa.string()) if pa.types.is_large_string(f.type) else f for f in real]
    assert published_schema(GREEN, year, month).equals(pa.schema(texts))


def test_fhv_columns_are_those_of_the_real_file(real_files: Path) -> None:
    header = (real_files / "fhv_tripdatasample_2020-04.csv").open().readline().strip().replace('"', "")
    assert published_schema(FHV, 2020, 4).names == header.split(",")


TAXIS = [(YELLOW, 2009, 5), (YELLOW, 2010, 3), (YELLOW, 2014, 7), (YELLOW, 2019, 6), (GREEN, 2016, 2), (GREEN, 2025, 2)]


@pytest.mark.parametrize(("dataset", "year", "month"), TAXIS)
def test_dirt_of_every_era_has_about_its_share(tmp_path: Path, dataset: str, year: int, month: int) -> None:
    trips = made(tmp_path, dataset, year, month)
    trips.columns = [name.lower() for name in trips.columns]
    start, end = (pd.to_datetime(trips[trips.columns[at]]) for at in (1, 2))
    seconds = (end - start).dt.total_seconds()
    fare = trips.get("fare_amount", trips.get("fare_amt"))
    shares = {
        "refund": (fare < 0).mean(),
        "no distance": (trips.trip_distance <= 0).mean(),
        "no passengers": trips.passenger_count.isna().mean(),
        "no time": (seconds <= 0).mean(),
    }
    known = {"refund": 0.014, "no distance": 0.017, "no passengers": 0.079, "no time": 0.0031}
    assert shares == pytest.approx(known, rel=0.2)
    assert (seconds > 86_400).mean() == pytest.approx(3e-4, rel=0.6)
    assert 0 < trips.drop(columns="__index_level_0__", errors="ignore").duplicated().sum() < 60
    assert (trips.trip_distance > 200).sum() < 20


@pytest.mark.parametrize(("dataset", "year", "month"), TAXIS)
def test_refund_follows_the_trip_that_it_takes_back(tmp_path: Path, dataset: str, year: int, month: int) -> None:
    trips = made(tmp_path, dataset, year, month)
    fare = trips.columns[[name.lower() in ("fare_amount", "fare_amt") for name in trips.columns]][0]
    same = [name for name in trips.columns if "date" in name.lower() or "location" in name.lower() or "_l" in name]
    same = [name for name in same if name != "__index_level_0__"]
    refund, trip = trips[1:].reset_index(), trips[:-1].reset_index()
    refunds = refund[fare] < 0
    pairs = refunds & (refund[fare] == -trip[fare]) & (refund[same].eq(trip[same]).all(axis=1))
    assert pairs.sum() / refunds.sum() > 0.95


def test_codes_beyond_the_dictionary_and_totals_that_do_not_add_up_occur(tmp_path: Path) -> None:
    trips = made(tmp_path, YELLOW, 2019, 6)
    assert set(trips.VendorID) == {1, 2, 6, 7}
    assert 99 in set(trips.RatecodeID)
    assert set(trips.payment_type) == {0, 1, 2, 3, 4, 5}
    assert trips.PULocationID.isin([264, 265]).mean() > 0.002
    parts = ["fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "improvement_surcharge"]
    known = trips[trips.congestion_surcharge.notna()]
    off = (known[[*parts, "congestion_surcharge"]].sum(axis=1) - known.total_amount).abs() > 0.005
    assert off.mean() == pytest.approx(0.002, rel=0.3)


def test_green_records_without_codes_have_none_of_them(tmp_path: Path) -> None:
    trips = made(tmp_path, GREEN, 2023, 1)
    codes = ["store_and_fwd_flag", "RatecodeID", "passenger_count", "payment_type", "trip_type", "congestion_surcharge"]
    none = trips[codes].isna()
    assert none.all(axis=1).mean() == pytest.approx(0.079, rel=0.1)
    assert (none.any(axis=1) == none.all(axis=1)).all()
    assert set(trips.trip_type.dropna()) == {1, 2}
    assert trips.ehail_fee.isna().all()


def test_first_two_years_have_words_for_codes_and_places_for_zones(tmp_path: Path) -> None:
    trips = made(tmp_path, YELLOW, 2009, 5)
    assert set(trips.vendor_name) == {"CMT", "VTS", "DDS"}
    assert set(trips.Payment_Type) == {"CASH", "Cash", "CREDIT", "Credit", "No Charge", "Dispute"}
    assert trips.Trip_Pickup_DateTime.str.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d").all()
    assert trips[["Rate_Code", "store_and_forward", "mta_tax"]].isna().all(axis=None)
    assert (trips.Start_Lon == 0).mean() == pytest.approx(0.018, rel=0.2)
    assert 0 < (trips.Start_Lon.abs() > 180).mean() < 0.001
    inside = trips.Start_Lon.between(-74.3, -73.5) & trips.Start_Lat.between(40.4, 41.1)
    assert inside.mean() > 0.97
    trips = made(tmp_path, YELLOW, 2010, 2)
    assert set(trips.payment_type) == {"CAS", "CRE", "NOC", "DIS", "UNK"}
    assert list(trips.__index_level_0__) == list(range(ROWS))


def test_charges_begin_when_they_were_introduced(tmp_path: Path) -> None:
    charged = {}
    for at in [(2014, 12), (2015, 1), (2019, 1), (2019, 2), (2020, 12), (2021, 1)]:
        trips = made(tmp_path, YELLOW, *at, rows=5000)
        names = ["improvement_surcharge", "congestion_surcharge", "airport_fee"]
        charged[at] = [bool((trips[name].astype(float) > 0).any()) for name in names]
    assert charged == {
        (2014, 12): [False, False, False],
        (2015, 1): [True, False, False],
        (2019, 1): [True, False, False],
        (2019, 2): [True, True, False],
        (2020, 12): [True, True, False],
        (2021, 1): [True, True, True],
    }


def test_for_hire_trips_have_their_own_dirt(tmp_path: Path) -> None:
    trips = made(tmp_path, FHV, 2020, 4)
    seconds = (trips.dropOff_datetime - trips.pickup_datetime).dt.total_seconds()
    assert (seconds <= 0).mean() == pytest.approx(0.0031, rel=0.3)
    assert (seconds > 86_400).any()
    assert trips.PUlocationID.isna().mean() == pytest.approx(0.32, rel=0.05)
    assert trips.PUlocationID.isin([264, 265]).any()
    assert trips.Affiliated_base_number.isna().any()
    assert trips.dispatching_base_num.str.strip().str.fullmatch(r"B\d{5}").all()
    assert trips.dispatching_base_num.str.endswith(" ").any()
    assert trips.SR_Flag.isna().all()
    assert set(made(tmp_path, FHV, 2018, 1, 1000).SR_Flag.dropna()) == {1}


def test_yellow_months_since_2025_keep_the_values_that_were_measured_with(tmp_path: Path) -> None:
    trips = made(tmp_path, YELLOW, 2025, 1, 1000)
    cents = np.rint(trips[["fare_amount", "tip_amount", "total_amount"]].abs().sum() * 100).astype(int)
    assert list(cents) == [2_046_860, 377_105, 3_023_964]
    assert int(trips.PULocationID.sum()) == 158_305
    assert str(trips.tpep_pickup_datetime.iloc[500]) == "2025-01-16 16:40:31"


def test_command_line_takes_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--dataset", "nyc_green", "--year", "2023", "--month", "2", "--rows", "10", str(tmp_path)])
    path = tmp_path / "green_tripdata_2023-02.parquet"
    assert capsys.readouterr().out == f"{path}\n"
    assert pq.read_schema(path).equals(published_schema(GREEN, 2023, 2))
