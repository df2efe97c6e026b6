"""What `drop_file` puts, and what it refuses before anything is put."""

from __future__ import annotations

import gzip
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.dataset import Completeness, DatasetContract
from contracts.errors import UnknownDataset, UsageError
from contracts.loading import load_contracts
from contracts.settings import Settings
from ingest.drop import drop_file
from ingest.store import Store, store_for
from tests.ingest.fakes import FakeStore


@pytest.fixture(scope="module")
def contracts() -> dict[str, DatasetContract]:
    return load_contracts(Settings().contracts_dir)


@pytest.fixture
def nowhere(down: Settings) -> Store:
    """A store that fails every call: what is refused must not reach it."""
    return store_for(down, "ingest")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / f"yellow ü+%41 {uuid.uuid4().hex}.parquet"
    path.write_bytes(b"any content")
    return path


def test_file_goes_below_its_dataset_under_its_own_name(
    ingest: Store, contracts: dict[str, DatasetContract], file: Path
) -> None:
    put = drop_file(ingest, contracts, file, "nyc_yellow")
    assert (put.bucket, put.key, put.size) == ("bronze", f"nyc_yellow/{file.name}", 11)
    assert ingest.get_bytes("bronze", put.key, limit=100) == b"any content"


def test_chosen_key_is_taken(ingest: Store, contracts: dict[str, DatasetContract], file: Path) -> None:
    key = f"nyc_yellow/2025/{file.name}"
    assert drop_file(ingest, contracts, file, "nyc_yellow", key).key == key


@pytest.mark.parametrize(
    "key",
    [
        "other/a.parquet",
        "nyc_yellow/a.csv",
        "nyc_yellow/_a.parquet",
        "nyc_yellow/.hidden/a.parquet",
        "nyc_yellow/../a.parquet",
        "nyc_yellow//a.parquet",
        "nyc_yellow/" + "x" * 1010 + ".parquet",
        "nyc_yellow/\udcff.parquet",
        "",
    ],
    ids=["other-folder", "suffix", "underscore", "dot", "dots", "empty-folder", "too-long", "not-utf-8", "empty"],
)
def test_key_that_the_router_would_refuse_is_refused_before_the_put(
    nowhere: Store, contracts: dict[str, DatasetContract], file: Path, key: str
) -> None:
    with pytest.raises(UsageError):
        drop_file(nowhere, contracts, file, "nyc_yellow", key)


def test_unknown_dataset_lists_the_known_ones(
    nowhere: Store, contracts: dict[str, DatasetContract], file: Path
) -> None:
    with pytest.raises(UnknownDataset, match="nyc_yellow"):
        drop_file(nowhere, contracts, file, "oders")


def test_missing_file_is_named(nowhere: Store, contracts: dict[str, DatasetContract], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.parquet"):
        drop_file(nowhere, contracts, tmp_path / "gone.parquet", "nyc_yellow")


CSV = b"VendorID,tpep_pickup_datetime\r\n1,2019-01-01 00:00:01\r\n2,\r\n"


@pytest.mark.parametrize("name", ["trips_2019-01.csv", "trips_2019-01.CSV", "trips_2019-01.csv.gz"])
def test_csv_lands_as_parquet_under_its_own_name(
    contracts: dict[str, DatasetContract], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(gzip.compress(CSV) if name.endswith("gz") else CSV)
    store = FakeStore()
    put = drop_file(store, contracts, tmp_path / name, "nyc_yellow")  # type: ignore[arg-type]
    assert (put.bucket, put.key) == ("bronze", "nyc_yellow/trips_2019-01.parquet")
    assert pq.read_table(pa.BufferReader(store.objects[put.bucket, put.key])).to_pylist() == [
        {"VendorID": "1", "tpep_pickup_datetime": "2019-01-01 00:00:01"},
        {"VendorID": "2", "tpep_pickup_datetime": None},
    ]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_csv_dropped_twice_is_the_same_content(contracts: dict[str, DatasetContract], tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(CSV)
    store = FakeStore()
    first, second = (drop_file(store, contracts, tmp_path / "x.csv", "nyc_yellow") for _ in range(2))  # type: ignore[arg-type]
    assert first.etag == second.etag


def test_csv_lands_under_the_key_that_was_chosen(contracts: dict[str, DatasetContract], tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(CSV)
    key = "nyc_yellow/2019/january.parquet"
    assert drop_file(FakeStore(), contracts, tmp_path / "x.csv", "nyc_yellow", key).key == key  # type: ignore[arg-type]


def test_key_that_says_csv_is_refused_since_parquet_would_be_in_it(
    nowhere: Store, contracts: dict[str, DatasetContract], tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_bytes(CSV)
    with pytest.raises(UsageError, match="A CSV is put as parquet"):
        drop_file(nowhere, contracts, tmp_path / "x.csv", "nyc_yellow", "nyc_yellow/x.csv")


def test_csv_without_a_header_is_refused_before_the_put(
    nowhere: Store, contracts: dict[str, DatasetContract], tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_bytes(b"1,2019-01-01 00:00:01\n")
    with pytest.raises(UsageError, match="names no column of the dataset"):
        drop_file(nowhere, contracts, tmp_path / "x.csv", "nyc_yellow")


def test_manifest_that_is_called_csv_is_put_as_it_is(contracts: dict[str, DatasetContract], tmp_path: Path) -> None:
    sets = Completeness(manifest="list.csv", time_limit="PT1H", on_time_limit="release")
    own = {"nyc_yellow": contracts["nyc_yellow"].model_copy(update={"completeness": sets})}
    (tmp_path / "list.csv").write_bytes(b"anything")
    store = FakeStore()
    put = drop_file(store, own, tmp_path / "list.csv", "nyc_yellow")  # type: ignore[arg-type]
    assert (put.key, store.objects["bronze", put.key]) == ("nyc_yellow/list.csv", b"anything")
