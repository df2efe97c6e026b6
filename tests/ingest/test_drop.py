"""What `drop_file` puts, and what it refuses before anything is put."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from contracts.dataset import DatasetContract
from contracts.errors import UnknownDataset, UsageError
from contracts.loading import load_contracts
from contracts.settings import Settings
from ingest.drop import drop_file
from ingest.store import Store, store_for


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
