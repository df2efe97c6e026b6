"""A published month that is a CSV, from a local web server, lands as parquet."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.dataset import DatasetContract, Download
from contracts.errors import DownloadFailed
from contracts.loading import load_contracts
from contracts.settings import Settings
from ingest.download import download_month
from tests.ingest.fakes import FakeStore
from tests.ingest.web import Site, serve

CSV = b"VendorID,tpep_pickup_datetime\r\n1,2019-02-01 00:00:01\r\nonly\r\n"
KEY = ("bronze", "nyc_yellow/yellow_tripdata_2019-02.parquet")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' server is on this machine whatever proxy the machine uses."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def contract(suffix: str) -> DatasetContract:
    published = Download(dag="d", file="yellow_tripdata_{year}-{month:02d}" + suffix)
    return load_contracts(Settings().contracts_dir)["nyc_yellow"].model_copy(update={"download": published})


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(files={})) as site:
        yield site


@pytest.fixture
def stack(site: Site, tmp_path: Path) -> Settings:
    return Settings(tlc_base_url=f"{site.url}/trip-data", home=tmp_path)


def left(stack: Settings) -> list[str]:
    """Names in the downloads folder, without locks."""
    return sorted(path.name for path in (stack.home / "downloads").iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv_of_a_month_lands_as_parquet_and_leaves_nothing_behind(stack: Settings, site: Site, suffix: str) -> None:
    content = gzip.compress(CSV) if suffix.endswith("gz") else CSV
    site.files[f"/trip-data/yellow_tripdata_2019-02{suffix}"] = content
    store = FakeStore()
    put = download_month(stack, contract(suffix), 2019, 2, store)  # type: ignore[arg-type]
    assert (put.bucket, put.key) == KEY
    assert pq.read_table(pa.BufferReader(store.objects[KEY])).to_pylist() == [
        {"VendorID": "1", "tpep_pickup_datetime": "2019-02-01 00:00:01", "_unparsed": None},
        {"VendorID": None, "tpep_pickup_datetime": None, "_unparsed": "only"},
    ]
    assert left(stack) == []


def test_csv_that_bronze_holds_as_parquet_already_is_not_put_again(stack: Settings, site: Site) -> None:
    site.files["/trip-data/yellow_tripdata_2019-02.csv"] = CSV
    store = FakeStore()
    etags = {download_month(stack, contract(".csv"), 2019, 2, store).etag for _ in range(2)}  # type: ignore[arg-type]
    assert (store.puts, len(etags)) == (1, 1)


@pytest.mark.parametrize(
    "content",
    [b"<html><body>gone</body></html>", b"", b"1,2\n3,4\n", b"PAR1\x00\xff\xfePAR1", gzip.compress(CSV)[:-9]],
    ids=["page", "empty", "no-header", "parquet", "cut-gzip"],
)
def test_what_is_no_csv_of_the_dataset_is_not_put(stack: Settings, site: Site, content: bytes) -> None:
    site.files["/trip-data/yellow_tripdata_2019-02.csv"] = content
    store = FakeStore()
    with pytest.raises(DownloadFailed, match="is no CSV of nyc_yellow"):
        download_month(stack, contract(".csv"), 2019, 2, store)  # type: ignore[arg-type]
    assert store.objects == {}
    assert left(stack) == []


def test_csv_where_the_contract_names_parquet_is_not_put(stack: Settings, site: Site) -> None:
    site.files["/trip-data/yellow_tripdata_2019-02.parquet"] = CSV
    with pytest.raises(DownloadFailed, match="not a whole parquet file"):
        download_month(stack, contract(".parquet"), 2019, 2, FakeStore())  # type: ignore[arg-type]
