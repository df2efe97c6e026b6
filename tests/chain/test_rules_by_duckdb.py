"""Each rule of the green taxis, counted by DuckDB on the file itself, against what the chain says of the file."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from contracts.states import FileState
from ingest.generator import generate_month
from tests.chain.conftest import Drop

pytestmark = [pytest.mark.stack, pytest.mark.beside, pytest.mark.timeout(900)]

MONTH = "green_tripdata_2025-01.parquet"
MONEY = ("extra", "mta_tax", "tip_amount", "tolls_amount", "ehail_fee", "improvement_surcharge", "congestion_surcharge",
         "cbd_congestion_fee")  # fmt: skip
TRIPS = f"""
create temp table trips as
select row_number() over () as place, VendorID as vendor, lpep_pickup_datetime as pickup,
       lpep_dropoff_datetime as dropoff, epoch(lpep_dropoff_datetime - lpep_pickup_datetime) as seconds,
       PULocationID as came_from, DOLocationID as went_to, RatecodeID as ratecode, payment_type as payment,
       passenger_count as passengers, trip_distance::decimal(10, 2) as miles, fare_amount::decimal(10, 2) as fare,
       total_amount::decimal(10, 2) as total,
       {", ".join(f"coalesce({name}::double, 0)::decimal(10, 2) as {name}" for name in MONEY)},
       hash(* columns(* exclude (filename))) as record
from read_parquet($file, filename = true)
"""
PARTS = "fare - extra - mta_tax - tip_amount - tolls_amount - ehail_fee"
REJECTS = {
    "dropoff_not_after_pickup": "dropoff <= pickup",
    "longer_than_a_day": "dropoff > pickup + interval 24 hours",
    "outside_file_month": "pickup < timestamp '2024-12-31' or pickup >= timestamp '2025-02-02'",
    "negative_amount": "fare < 0 or total < 0",
    "refund_pair": """exists (from trips t where t.vendor = trips.vendor and t.pickup = trips.pickup
                      and t.dropoff = trips.dropoff and t.came_from = trips.came_from and t.went_to = trips.went_to
                      and t.miles = trips.miles and t.fare = -trips.fare and t.total = -trips.total
                      and (t.fare <> 0 or t.total <> 0))""",
    "repeated_trip": "exists (from trips t where t.record = trips.record and t.place < trips.place)",
    "absurd_amount": "fare > 5000 or total > 5000",
    "distance_not_positive": "miles <= 0",
    "distance_absurd": "miles > 200",
    "speed_absurd": "seconds > 0 and miles * 3600 / seconds > 100",
    "unknown_zone": "came_from not between 1 and 265 or went_to not between 1 and 265",
    "passengers_absurd": "passengers < 0 or passengers > 9",
}
WARNINGS = {
    "zone_outside_or_unknown": "came_from in (264, 265) or went_to in (264, 265)",
    "passengers_missing": "passengers is null or passengers = 0",
    "ratecode_unknown": "ratecode = 99",
    "ratecode_not_in_dictionary": "ratecode not in (1, 2, 3, 4, 5, 6, 99)",
    "payment_unknown": "payment = 5",
    "payment_not_in_dictionary": "payment not in (0, 1, 2, 3, 4, 5, 6)",
    "vendor_not_in_dictionary": "vendor not in (1, 2, 6)",
    "totals_do_not_add_up": f"""
        abs(total - {PARTS} - improvement_surcharge - congestion_surcharge - cbd_congestion_fee) > 0.01
        and abs(total - {PARTS} - improvement_surcharge) > 0.01 and abs(total - {PARTS}) > 0.01""",
}


def counted(file: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Rows that break each rule: of all rows those that reject, of the accepted rows those that warn."""
    link = duckdb.connect()
    link.execute(TRIPS, {"file": str(file)})
    failed = " or ".join(f"coalesce({test}, false)" for test in REJECTS.values())
    link.execute(f"create temp table accepted as from trips where not ({failed})")

    def count(table: str, tests: dict[str, str]) -> dict[str, int]:
        sums = ", ".join(f"count(*) filter ({test})" for test in tests.values())
        row = link.execute(f"select {sums} from {table}").fetchone()
        assert row is not None
        return {code: rows for code, rows in zip(tests, row, strict=True) if rows}

    return count("trips", REJECTS), count("accepted", WARNINGS)


@pytest.mark.parametrize("origin", ["generated", "published"])
def test_rows_that_break_each_rule_are_as_many_as_duckdb_counts_in_the_file(
    put: Drop, request: pytest.FixtureRequest, unique: str, tmp_path: Path, origin: str
) -> None:
    if origin == "published":
        file = request.getfixturevalue("real_files") / MONTH
    else:
        file = tmp_path / MONTH
        generate_month(file, 2025, 1, 4000, 3, "nyc_green")
    story = put(f"nyc_green/{unique}/{MONTH}", file.read_bytes())
    assert story.state is FileState.DONE, story
    silver = story.layers[0]
    assert (silver.reasons, silver.warnings) == counted(file)
