"""Reference data arrive by a drop like everything else, and a corrected one reaches the gold that was made before."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest

from consumers.ledger import Ledger
from contracts.states import FileState
from tests.chain.conftest import Drop, MakeMonth, Query, sql_text, wait_until
from tests.chain.test_exactly_once import caught_up
from tests.conftest import REAL_FILES, Stack

pytestmark = [pytest.mark.stack, pytest.mark.every_file, pytest.mark.timeout(1500)]

HEADER = ("LocationID", "Borough", "Zone", "service_zone")
ZONES = 265
PUBLISHED = REAL_FILES / "taxi_zone_lookup.csv"


def zones() -> list[list[str]]:
    """The published zones where they are beside the repository, else zones of the same shape."""
    if PUBLISHED.is_file():
        with PUBLISHED.open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))[1:]
    return [[str(number), f"Borough {number % 5}", f"Zone {number}", "Boro Zone"] for number in range(1, ZONES + 1)]


def write_zones(folder: Path, renamed: Mapping[str, str]) -> Path:
    """A lookup as it is published, in which some zones have other names."""
    path = folder / "taxi_zone_lookup.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for number, borough, name, service in zones():
            writer.writerow((number, borough, renamed.get(number, name), service))
    return path


def test_names_of_zones_reach_gold_and_a_corrected_name_follows(
    stack: Stack, put: Drop, ledger: Ledger, query: Query, month: MakeMonth, unique: str, tmp_path: Path
) -> None:
    def drop(name: str) -> None:
        file = write_zones(tmp_path, {zone: name})
        story = stack.json("drop", str(file), "--dataset", "taxi_zones", "--wait")
        assert story["state"] == FileState.DONE, story
        assert [layer["layer"] for layer in story["layers"]] == ["silver"]

    def names(table: str, chosen: str) -> set[str | None]:
        return {row[0] for row in query(f"select distinct pickup_zone from gold.nyc_yellow_{table} where {chosen}")}

    zone = "132"
    drop(f"first {unique}")
    key = f"nyc_yellow/{unique}/trips.parquet"
    story = put(key, month(rows=2000))
    assert story.state is FileState.DONE, story
    own = f"_source_key = {sql_text(key)}"
    assert names("features", f"{own} and pickup_location_id = {zone}") == {f"first {unique}"}
    assert query(f"select count(*) from gold.nyc_yellow_features where {own} and pickup_borough is null") == [(0,)]
    boroughs = {row[1] for row in zones()}
    pairs = query(f"select distinct borough_pair from gold.nyc_yellow_features where {own}")
    assert {pair for (pair,) in pairs} <= {f"{one}-{other}" for one in boroughs for other in boroughs}

    drop(f"second {unique}")
    at_zone = (
        f"pickup_location_id = {zone} and pickup_date in (select pickup_date from gold.nyc_yellow_features where {own})"
    )
    for table, chosen in (("features", f"{own} and pickup_location_id = {zone}"), ("zone_hour", at_zone)):
        wait_until(lambda t=table, c=chosen: names(t, c) == {f"second {unique}"}, f"the new name in {table}")
    wait_until(lambda: _is_done(ledger, key), "the file is done again")
    # Every other file of the stack went to gold once more too; the tests after this one find it at rest.
    wait_until(lambda: caught_up(stack), "all messages are read")


def _is_done(ledger: Ledger, key: str) -> bool:
    story = ledger.story("bronze", key)
    return story is not None and story.state is FileState.DONE
