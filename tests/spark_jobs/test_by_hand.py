"""Which files a job by hand takes."""

from __future__ import annotations

from typing import Any, cast

import pytest

from contracts.errors import UsageError
from contracts.loading import load_contracts
from contracts.settings import PROJECT
from contracts.states import Layer
from ingest.store import Store
from spark_jobs.by_hand import choose, main
from tests.ingest.fakes import FakeStore

CONTRACTS = load_contracts(PROJECT / "contracts" / "datasets")
KEYS = ("nyc_green/2025-01.parquet", "nyc_yellow/2024-12.parquet", "nyc_yellow/2025-01.parquet",
        "nyc_yellow/2025-02.parquet", "nyc_yellow/_staging/2025-01.parquet",
        "nyc_yellow/notes-2025-01.txt", "taxi_zones/zones.parquet")  # fmt: skip


def chosen(*datasets: str, year: int | None = None, month: int | None = None, key: str | None = None) -> Any:
    store = FakeStore()
    store.objects = {("bronze", each): b"x" for each in KEYS}
    contracts = [CONTRACTS[dataset] for dataset in datasets or CONTRACTS]
    found = choose(cast(Store, store), contracts, year, month, key)
    return {dataset: [info.key for info in objects] for dataset, objects in found.items()}


def test_a_year_without_a_dataset_takes_the_files_of_each_dataset_that_has_some() -> None:
    assert chosen(year=2025) == {
        "nyc_green": ["nyc_green/2025-01.parquet"],
        "nyc_yellow": ["nyc_yellow/2025-01.parquet", "nyc_yellow/2025-02.parquet"],
    }


def test_a_month_and_a_dataset_take_no_more_than_they_say() -> None:
    assert chosen("nyc_yellow", year=2025, month=1) == {"nyc_yellow": ["nyc_yellow/2025-01.parquet"]}


def test_a_key_says_which_dataset_it_is_of() -> None:
    key = "nyc_yellow/2024-12.parquet"
    assert chosen(key=f"bronze/{key}") == {"nyc_yellow": [key]}


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({}, "Say which files: --year"),
        ({"year": 2031, "month": 3}, r"bronze/ \(nyc_fhv, .*\) holds no file whose name says 2031-03\. Drop it first"),
        ({"key": "bronze/nobody/2025-01.parquet"}, "is no file of nyc_fhv, .*: bronze/DATASET/… was expected"),
        ({"key": "silver/nyc_yellow/2025-01.parquet"}, "is no file of"),
        ({"key": "bronze/nyc_yellow/2031-01.parquet"}, "There is no object 'bronze/nyc_yellow/2031-01.parquet'"),
    ],
)
def test_what_names_no_file_is_wrong_usage_and_told(wanted: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        chosen(**wanted)


def test_gold_of_a_reference_dataset_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    def never(*_: object) -> Any:
        raise AssertionError

    assert main(Layer.GOLD, never, ["--dataset", "taxi_zones", "--year", "2025"]) == 2
    assert "taxi_zones is a reference dataset, which has no gold" in capsys.readouterr().err
