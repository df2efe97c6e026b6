"""Which tables a statement names."""

from __future__ import annotations

import pytest

from sluice.query import _named_tables

KNOWN = [("silver", "trips"), ("silver", "trips_rejects"), ("gold", "trips_features")]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        pytest.param("select 1", set(), id="none"),
        pytest.param("select * from silver.trips_rejects", {("silver", "trips_rejects")}, id="prefix-of-a-name"),
        pytest.param('SELECT * FROM "SILVER"."TRIPS"', {("silver", "trips")}, id="quoted-and-upper-case"),
        pytest.param(
            "with x as (select k from gold.trips_features) select * from x join silver . trips using (k)",
            {("gold", "trips_features"), ("silver", "trips")},
            id="join-with-using",
        ),
        pytest.param("select * from gold.trips", set(), id="unknown"),
    ],
)
def test_tables_of_a_statement_are_found_by_their_names(query: str, named: set[tuple[str, str]]) -> None:
    assert _named_tables(query, KNOWN) == named
