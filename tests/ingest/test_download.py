"""A published month into bronze, from a local web server into a real MinIO."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.dataset import DatasetContract
from contracts.errors import DownloadFailed, ServiceUnavailable, UsageError
from contracts.loading import load_contracts
from contracts.settings import Settings
from ingest.download import download_month
from ingest.generator import generate_month
from ingest.store import Store
from tests.ingest.web import Site, serve

NAME = "yellow_tripdata_2031-02.parquet"
KEY = f"nyc_yellow/{NAME}"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' server is on this machine whatever proxy the machine uses."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def contract() -> DatasetContract:
    return load_contracts(Settings().contracts_dir)["nyc_yellow"]


@pytest.fixture
def month(tmp_path: Path) -> bytes:
    generate_month(tmp_path / NAME, 2031, 2, rows=2000, seed=1)
    return (tmp_path / NAME).read_bytes()


@pytest.fixture
def site(month: bytes) -> Iterator[Site]:
    with serve(Site(files={f"/trip-data/{NAME}": month})) as site:
        yield site


@pytest.fixture
def stack(ready: Settings, root: Store, site: Site, tmp_path: Path) -> Settings:
    """The running MinIO without a month, a downloads folder of this test alone, and the local server as the source."""
    for month in root.list("bronze", "nyc_yellow/"):
        root._client.remove_object("bronze", month.key)
    return ready.model_copy(update={"tlc_base_url": f"{site.url}/trip-data", "home": tmp_path})


def left(stack: Settings) -> list[str]:
    """Names in the downloads folder, without locks."""
    return sorted(path.name for path in (stack.home / "downloads").iterdir() if path.suffix != ".lock")


def test_month_arrives_whole_and_leaves_nothing_behind(
    stack: Settings, contract: DatasetContract, ingest: Store, month: bytes
) -> None:
    put = download_month(stack, contract, 2031, 2, ingest)
    assert (put.bucket, put.key, put.size) == ("bronze", KEY, len(month))
    assert ingest.get_bytes("bronze", KEY, limit=len(month)) == month
    assert left(stack) == []


def test_month_that_bronze_holds_already_is_not_put_again(
    stack: Settings, contract: DatasetContract, ingest: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = download_month(stack, contract, 2031, 2, ingest)
    puts: list[object] = []
    monkeypatch.setattr(ingest, "put_file", lambda *args, **kwargs: puts.append(args))
    again = download_month(stack, contract, 2031, 2, ingest)
    assert puts == []
    assert again.etag == first.etag


def test_month_that_came_from_the_same_version_is_not_downloaded_again(
    stack: Settings, contract: DatasetContract, ingest: Store, site: Site, month: bytes
) -> None:
    name = "yellow_tripdata_2031-03.parquet"
    site.files[f"/trip-data/{name}"] = month
    first = download_month(stack, contract, 2031, 3, ingest)
    there = ingest.stat("bronze", f"nyc_yellow/{name}")
    assert there is not None
    assert there.source == f"{site.url}/trip-data/{name} {site.etag(month)}"
    assert download_month(stack, contract, 2031, 3, ingest).etag == first.etag
    assert [how for _, how, _ in site.requests] == [None, "HEAD"]


def test_store_that_is_down_is_told_before_anything_is_downloaded(
    stack: Settings, down: Settings, contract: DatasetContract, site: Site
) -> None:
    with pytest.raises(ServiceUnavailable):
        download_month(stack, contract, 2031, 2, Store(down.s3_endpoint, "user", "secret-secret", "us-east-1"))
    assert site.requests == []


def test_corrected_month_replaces_the_one_in_bronze(
    stack: Settings, contract: DatasetContract, ingest: Store, site: Site, tmp_path: Path
) -> None:
    first = download_month(stack, contract, 2031, 2, ingest)
    generate_month(tmp_path / NAME, 2031, 2, rows=2000, seed=2)
    site.files[f"/trip-data/{NAME}"] = (tmp_path / NAME).read_bytes()
    assert download_month(stack, contract, 2031, 2, ingest).etag != first.etag


@pytest.mark.parametrize("status", [403, 404])
def test_unpublished_month_is_said_with_its_address(
    stack: Settings, contract: DatasetContract, ingest: Store, site: Site, status: int
) -> None:
    site.failures = [status]
    with pytest.raises(DownloadFailed, match=r"not published: .*yellow_tripdata_2031-03\.parquet.*choose an earlier"):
        download_month(stack, contract, 2031, 3, ingest)


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-1], lambda content: b"<html>" + content, lambda content: b"", lambda content: b"PAR1"],
    ids=["cut", "page", "empty", "only-magic"],
)
def test_what_is_not_a_whole_parquet_file_is_not_put(
    stack: Settings, contract: DatasetContract, ingest: Store, site: Site, month: bytes, damage: object
) -> None:
    before = ingest.stat("bronze", KEY)
    site.files[f"/trip-data/{NAME}"] = damage(month)  # type: ignore[operator]
    with pytest.raises(DownloadFailed, match="not a whole parquet file"):
        download_month(stack, contract, 2031, 2, ingest)
    assert ingest.stat("bronze", KEY) == before
    assert left(stack) == []


def test_put_that_failed_is_repeated_without_a_second_download(
    stack: Settings, contract: DatasetContract, ingest: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*about: object) -> None:
        raise ServiceUnavailable("The store is away.")

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "put_file", away)
        with pytest.raises(ServiceUnavailable):
            download_month(stack, contract, 2031, 2, ingest)
    download_month(stack, contract, 2031, 2, ingest)
    assert [status for _, _, status in site.requests] == [200, 416]


def test_second_download_of_the_same_month_at_once_is_refused(
    stack: Settings, contract: DatasetContract, ingest: Store
) -> None:
    (stack.home / "downloads").mkdir()
    with (stack.home / "downloads" / f"{NAME}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ServiceUnavailable, match="another process"):
            download_month(stack, contract, 2031, 2, ingest)


def test_dataset_without_a_published_source_says_so(stack: Settings, contract: DatasetContract, ingest: Store) -> None:
    with pytest.raises(UsageError, match="no published source"):
        download_month(stack, contract.model_copy(update={"download": None}), 2031, 2, ingest)


@pytest.mark.parametrize(("year", "month_number"), [(2025, 13), (2025, 0), (25, 1)])
def test_what_is_no_month_is_a_usage_error(
    stack: Settings, contract: DatasetContract, ingest: Store, year: int, month_number: int
) -> None:
    with pytest.raises(UsageError, match="no month"):
        download_month(stack, contract, year, month_number, ingest)
