"""Which column of a file stands for which column of a contract."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.dataset import Column, Earlier
from contracts.states import Reason
from spark_jobs.footers import FileColumn
from spark_jobs.matching import Layout, Refusal, match_columns

LONGITUDE = Column(name="longitude", type="double", optional_in_file=True, synonyms=("Start_Lon",))
LATITUDE = Column(name="latitude", type="double", optional_in_file=True)
ZONE = Column(
    name="zone", type="int", required=True, synonyms=("PULocationID",), optional_with=("longitude", "latitude")
)
FARE = Column(name="fare", type="decimal(10,2)", required=True, earlier=(Earlier(until="2009-12", name="Fare_Amt"),))
BOROUGH = Column(name="borough", type="string", required=True, derived=True)
COLUMNS = (LONGITUDE, LATITUDE, ZONE, FARE, BOROUGH)


def found(*names: str, **kinds: str) -> list[FileColumn]:
    return [FileColumn(name, "double", kinds.get(name, "plain")) for name in names]


def match(*names: str, **kinds: str) -> Any:
    return match_columns(COLUMNS, found(*names, **kinds))


def sources(layout: Layout) -> dict[str, str]:
    return {name: layout.columns[index].name for name, index in layout.sources}


@pytest.mark.parametrize("name", ["fare", "FARE", "Fare_Amt", "fare_amt"])
def test_column_is_found_by_any_name_that_it_ever_had(name: str) -> None:
    assert sources(match("zone", name))["fare"] == name


def test_file_with_two_names_of_one_column_is_refused() -> None:
    refusal = match("zone", "fare", "Fare_Amt")
    assert (refusal.reason, refusal.detail) == (Reason.DUPLICATE_COLUMNS, "fare is there as fare and as Fare_Amt.")


def test_file_may_lack_a_column_where_it_has_all_that_stand_in_for_it() -> None:
    assert sources(match("Start_Lon", "Latitude", "fare")) == {
        "longitude": "Start_Lon",
        "latitude": "Latitude",
        "fare": "fare",
    }


@pytest.mark.parametrize("names", [("fare",), ("longitude", "fare"), ("latitude", "fare")])
def test_file_with_neither_the_column_nor_all_stand_ins_is_refused_and_told_of_them(names: tuple[str, ...]) -> None:
    refusal = match(*names)
    assert refusal.reason == Reason.MISSING_COLUMNS
    assert refusal.detail.startswith("Missing: zone (or longitude and latitude). Present: ")


def test_column_may_be_there_beside_its_stand_ins() -> None:
    assert sources(match("longitude", "latitude", "PULocationID", "fare"))["zone"] == "PULocationID"


def test_stand_in_that_holds_nothing_by_the_files_word_is_there_all_the_same() -> None:
    assert isinstance(match("longitude", "latitude", "fare", latitude="null"), Layout)


def test_column_that_a_file_may_not_lack_and_has_without_a_type_is_empty_and_no_other_is() -> None:
    assert match("zone", "fare", "latitude", fare="null", latitude="null").empty == ("fare",)
    assert match("longitude", "latitude", "zone", "fare", zone="null").empty == ()
    assert match("zone", "fare").empty == ()


def test_derived_column_is_not_looked_for() -> None:
    layout = match("zone", "fare", "borough")
    assert "borough" not in sources(layout)
    assert [column.name for column in layout.columns] == ["zone", "fare", "borough"]


@given(st.sets(st.sampled_from(["longitude", "Start_Lon", "latitude", "zone", "fare", "Fare_Amt", "borough", "tip"])))
def test_file_is_taken_exactly_when_each_column_is_there_once_or_may_lack(names: set[str]) -> None:
    result = match(*sorted(names))
    fares, longitudes = len(names & {"fare", "Fare_Amt"}), len(names & {"longitude", "Start_Lon"})
    zone = "zone" in names or (longitudes > 0 and "latitude" in names)
    good = fares == 1 and longitudes <= 1 and zone
    assert isinstance(result, Layout if good else Refusal)
