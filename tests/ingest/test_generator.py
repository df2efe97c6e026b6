"""The generated months: their shape, their dirt, and that the same arguments make the same bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import UsageError
from contracts.loading import load_contracts
from contracts.settings import Settings
from ingest import generator
from ingest.generator import SCHEMA, generate_month, main, month_file_name

ROWS = 300_000


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    path = tmp_path_factory.mktemp("month") / "month.parquet"
    generate_month(path, 2025, 2, ROWS, seed=3)
    return pq.read_table(path).to_pandas()


@settings(max_examples=25)
@given(rows=st.integers(0, 3000), seed=st.integers(0, 2**32), month=st.integers(1, 12))
def test_file_has_exactly_the_rows_and_columns_asked_for(rows: int, seed: int, month: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        generate_month(Path(folder) / "f", 2025, month, rows, seed)
        file = pq.ParquetFile(Path(folder) / "f")
        assert file.metadata.num_rows == rows
        assert file.schema_arrow.equals(SCHEMA)
        assert [path.name for path in Path(folder).iterdir()] == ["f"]


def test_same_arguments_make_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        generate_month(tmp_path / name, 2025, 1, 5000, seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_rows_above_one_chunk_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "CHUNK_ROWS", 1000)
    generate_month(tmp_path / "f", 2025, 1, 2500, 7)
    file = pq.ParquetFile(tmp_path / "f")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [1000, 1000, 500]


def test_shares_of_dirt_are_those_of_the_published_months(trips: pd.DataFrame) -> None:
    seconds = (trips.tpep_dropoff_datetime - trips.tpep_pickup_datetime).dt.total_seconds()
    shares = {
        "negative fare": (trips.fare_amount < 0).mean(),
        "no distance": (trips.trip_distance <= 0).mean(),
        "no passengers": trips.passenger_count.isna().mean(),
        "no time": (seconds <= 0).mean(),
    }
    known = {"negative fare": 0.014, "no distance": 0.017, "no passengers": 0.079, "no time": 0.003}
    assert shares == pytest.approx(known, rel=0.15)
    assert 0 < (trips.trip_distance > 200).sum() < 40
    assert (trips.tpep_pickup_datetime.dt.year != 2025).sum() < 20
    assert 0 < trips.duplicated().sum() < 60


def test_codes_beyond_the_dictionarys_first_edition_occur(trips: pd.DataFrame) -> None:
    assert set(trips.VendorID) == {1, 2, 6, 7}
    assert 99 in set(trips.RatecodeID)
    assert 0 in set(trips.payment_type)
    assert trips.PULocationID.between(1, 265).all()
    assert trips.DOLocationID.between(1, 265).all()


def test_rows_without_known_dirt_are_plausible(trips: pd.DataFrame) -> None:
    seconds = (trips.tpep_dropoff_datetime - trips.tpep_pickup_datetime).dt.total_seconds()
    clean = trips[(trips.fare_amount > 0) & trips.trip_distance.between(0.01, 200) & (seconds > 0)]
    speed = clean.trip_distance / (seconds[clean.index] / 3600)
    assert speed.max() < 100
    assert 8 < speed.median() < 12
    assert 1.5 < clean.trip_distance.median() < 2.2
    assert 11 < clean.fare_amount.median() < 16
    assert (clean.total_amount >= clean.fare_amount).all()
    assert (clean.tip_amount[clean.payment_type == 2] == 0).all()


def test_parts_of_the_amount_add_up_to_the_total(trips: pd.DataFrame) -> None:
    parts = ["fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "improvement_surcharge"]
    parts += ["congestion_surcharge", "Airport_fee", "cbd_congestion_fee"]
    known = trips[trips.congestion_surcharge.notna()]
    assert (known[parts].sum(axis=1) - known.total_amount).abs().max() < 0.005


def test_columns_are_all_known_to_the_contract(trips: pd.DataFrame) -> None:
    columns = load_contracts(Settings().contracts_dir)["nyc_yellow"].silver.columns
    known = {name.lower() for column in columns for name in (column.name, *column.synonyms)}
    assert {name.lower() for name in trips.columns} <= known


def test_name_is_that_of_the_published_files() -> None:
    assert month_file_name(2025, 3) == "yellow_tripdata_2025-03.parquet"


def test_command_line_writes_into_a_folder_under_the_usual_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--year", "2025", "--month", "3", "--rows", "10", str(tmp_path)])
    path = tmp_path / "yellow_tripdata_2025-03.parquet"
    assert capsys.readouterr().out == f"{path}\n"
    assert pq.ParquetFile(path).metadata.num_rows == 10


@pytest.mark.parametrize("wrong", [{"month": 13}, {"rows": -1}, {"seed": -1}, {"year": 25}])
def test_argument_out_of_range_is_a_usage_error(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        generate_month(tmp_path / "f", **{"year": 2025, "month": 1, "rows": 1, "seed": 1} | wrong)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        generate_month(tmp_path / "gone" / "f", 2025, 1, 1, 1)
