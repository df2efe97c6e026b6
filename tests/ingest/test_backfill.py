"""Which files a backfill is about."""

from __future__ import annotations

import itertools
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.dataset import DatasetContract, Period
from contracts.errors import UsageError
from contracts.loading import load_contracts
from contracts.settings import load_settings
from ingest.backfill import parse_months, wanted_files

CONTRACTS = load_contracts(load_settings().contracts_dir)
YELLOW = CONTRACTS["nyc_yellow"]
MONTHS = st.tuples(st.integers(1900, 2200), st.integers(1, 12))


@given(MONTHS, MONTHS)
def test_range_has_each_month_from_the_first_to_the_last_once(one: tuple[int, int], other: tuple[int, int]) -> None:
    first, last = sorted((one, other))
    months = parse_months(f"{first[0]}-{first[1]:02d}..{last[0]}-{last[1]:02d}")
    assert len(months) == (last[0] - first[0]) * 12 + last[1] - first[1] + 1
    assert (months[0].start, months[-1].start) == (datetime(*first, 1), datetime(*last, 1))
    assert all(month.end == after.start for month, after in itertools.pairwise(months))


def test_one_month_is_a_range_of_one() -> None:
    assert parse_months("2023-01") == [Period(year=2023, month=1)]


@pytest.mark.parametrize(
    "text", ["", "2023", "2023-13", "2023-01..", "2023-01..2022-12", "2023-01-2023-02", "1-1..2-2"]
)
def test_what_is_no_range_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"2023-01\.\.2024-12|earlier month first"):
        parse_months(text)


def test_files_of_a_folder_are_those_of_the_months_in_order_whatever_else_is_there(tmp_path: Path) -> None:
    for name in ("b_2023-02.parquet", "a_2023-02.csv", "2023-01.parquet", "2023-04.parquet", "notes.txt", "x.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "2023-03.parquet").mkdir()
    found, missing = wanted_files(YELLOW, parse_months("2023-01..2023-03"), tmp_path)
    assert [wanted.key for wanted in found] == [
        "nyc_yellow/2023-01.parquet",
        "nyc_yellow/a_2023-02.parquet",
        "nyc_yellow/b_2023-02.parquet",
    ]
    assert missing == parse_months("2023-03")


def test_published_months_are_called_as_the_contract_says() -> None:
    found, missing = wanted_files(YELLOW, parse_months("2022-12..2023-01"), None)
    assert [wanted.key for wanted in found] == [
        "nyc_yellow/yellow_tripdata_2022-12.parquet",
        "nyc_yellow/yellow_tripdata_2023-01.parquet",
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("contract", "folder", "message"),
    [
        pytest.param(YELLOW, "nowhere", "no folder", id="no-folder"),
        pytest.param(YELLOW.model_copy(update={"period": None}), ".", "sluice drop", id="no-period"),
        pytest.param(YELLOW.model_copy(update={"download": None}), None, "no published source", id="not-published"),
    ],
)
def test_source_that_cannot_be_is_refused(contract: DatasetContract, folder: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        wanted_files(contract, parse_months("2023-01"), Path(folder) if folder else None)
