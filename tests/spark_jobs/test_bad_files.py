"""Bad files beside good ones in one batch, on a local session: reasons, kept originals, and nobody else is affected."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from contracts.dataset import DatasetContract
from contracts.markers import CommitMarker, SourceResult
from contracts.states import Reason
from contracts.work import WorkItem
from spark_jobs import data_preprocessing_job
from spark_jobs.quarantine import quarantine_key
from tests.spark_jobs.bad_files import (
    as_parquet,
    claiming_rows,
    encrypted,
    flipped,
    footer_at,
    inflating,
    repeated_trips,
    twice,
)
from tests.spark_jobs.conftest import JobStore, silver_batch
from tests.spark_jobs.trips import TYPES, table, trip

Drop = Callable[..., WorkItem]
Take = Callable[..., dict[str, SourceResult]]

GOOD_ROWS = 3


@pytest.fixture
def contract(few_rules: DatasetContract) -> DatasetContract:
    return few_rules


@pytest.fixture
def take(lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop) -> Take:
    """Take files into silver in one batch between two good ones, which must come through: `take(name -> content)`."""

    def run(files: Mapping[str, pa.Table | bytes]) -> dict[str, SourceResult]:
        good = [drop(f"nyc_yellow/{name}.parquet", table(*[trip()] * GOOD_ROWS)) for name in ("0good", "~good")]
        items = {name: drop(f"nyc_yellow/{name}.parquet", content) for name, content in files.items()}
        marker: CommitMarker = data_preprocessing_job.run(
            lake,
            store.lake,
            store,
            contract,
            silver_batch(*good, *items.values()),  # type: ignore[arg-type]
        )
        results = {source.key: source for source in marker.sources}
        for item in good:
            assert (results[item.key].refused, results[item.key].rows_accepted) == (None, GOOD_ROWS)
        held = {row[0]: row[1] for row in lake.table("silver.nyc_yellow").groupBy("_source_key").count().collect()}
        for key, source in results.items():
            assert held.get(key, 0) == (source.rows_accepted or 0), key
        for name, item in items.items():
            copied = quarantine_key(item) in store.copied
            assert copied is (results[item.key].refused is not None), name
            if copied:
                original = store.get_range("bronze", item.key, 0, item.size)
                assert store.read("quarantine", quarantine_key(item)) == original
        return {name: results[item.key] for name, item in items.items()}

    return run


def reasons(results: Mapping[str, SourceResult]) -> dict[str, Reason | None]:
    return {name: source.refused for name, source in results.items()}


def test_file_cut_at_each_tenth_of_its_length_is_quarantined(take: Take) -> None:
    whole = as_parquet(table(*[trip()] * 50))
    results = take({f"cut{tenth}": whole[: len(whole) * tenth // 10] for tenth in range(1, 10)} | {"cut10": whole})
    expected: dict[str, Reason | None] = {f"cut{tenth}": Reason.DAMAGED_PARQUET for tenth in range(1, 10)}
    assert reasons(results) == expected | {"cut10": None}


def test_bytes_flipped_all_over_the_footer_end_in_all_rows_or_a_reason(take: Take) -> None:
    whole = as_parquet(table(*[trip()] * 50))
    start = footer_at(whole)
    places = [start + (len(whole) - start) * number // 40 for number in range(40)]
    results = take({f"flip{at - start}": flipped(whole, at, 0x10) for at in places})
    for name, source in results.items():
        assert source.refused or source.rows_in == 50 == (source.rows_accepted or 0) + (source.rows_rejected or 0), name
    named = {source.refused for source in results.values()} - {None}
    assert Reason.DAMAGED_PARQUET in named
    assert named <= {
        Reason.DAMAGED_PARQUET, Reason.UNREADABLE_DATA, Reason.MISSING_COLUMNS, Reason.WRONG_TYPES, Reason.NOT_PARQUET,
        Reason.ENCRYPTED_PARQUET, Reason.OVER_LIMIT, Reason.DUPLICATE_COLUMNS,
    }  # fmt: skip


def test_byte_flipped_in_a_page_is_found_by_the_pages_checksum(take: Take) -> None:
    # Plain values, not compressed: without the checksum each of these bytes would decode, to another fare.
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    rows = table(*(trip(fare_amount=20.0 + number) for number in range(50)))
    checked = as_parquet(rows, write_page_checksum=True, **options)
    fares = rows["fare_amount"].combine_chunks().buffers()[1].to_pybytes()
    at = checked.index(fares)
    files = {f"page{number}": flipped(checked, at + len(fares) * number // 3 + 6, 0x01) for number in range(3)}
    results = take(files | {"undamaged": checked})
    assert reasons(results) == dict.fromkeys(files, Reason.UNREADABLE_DATA) | {"undamaged": None}


def test_files_that_the_footer_gives_away_are_quarantined_each_with_its_reason(take: Take) -> None:
    nested = table(trip()).drop_columns(["fare_amount"]).append_column("fare_amount", pa.array([{"amount": 20.0}]))
    results = take(
        {
            "empty": b"",
            "text": b"select * from trips;\n" * 20,
            "no_rows": table(),
            "no_columns": pa.table({}),
            "encrypted": encrypted(plaintext_footer=False),
            "encrypted_columns": encrypted(plaintext_footer=True),
            "billions": claiming_rows(True),
            "inflating": inflating(),
            "nested": nested,
            "twice": twice("fare_amount", 1.0),
            "boolean": table(trip(fare_amount=True), types={"fare_amount": pa.bool_()}),
        }
    )
    assert reasons(results) == {
        "empty": Reason.EMPTY_FILE,
        "text": Reason.NOT_PARQUET,
        "no_rows": Reason.NO_ROWS,
        "no_columns": Reason.NO_COLUMNS,
        "encrypted": Reason.ENCRYPTED_PARQUET,
        "encrypted_columns": Reason.ENCRYPTED_PARQUET,
        "billions": Reason.OVER_LIMIT,
        "inflating": Reason.OVER_LIMIT,
        "nested": Reason.WRONG_TYPES,
        "twice": Reason.DUPLICATE_COLUMNS,
        "boolean": Reason.WRONG_TYPES,
    }


def test_spark_is_not_asked_for_a_file_over_a_limit(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("Spark was asked")

    monkeypatch.setattr(data_preprocessing_job, "split_rows", asked)
    monkeypatch.setattr(data_preprocessing_job, "find_unreadable", asked)
    items = [drop("nyc_yellow/rows.parquet", claiming_rows(True)), drop("nyc_yellow/inflating.parquet", inflating())]
    marker = data_preprocessing_job.run(lake, store.lake, store, contract, silver_batch(*items))  # type: ignore[arg-type]
    assert [source.refused for source in marker.sources] == [Reason.OVER_LIMIT, Reason.OVER_LIMIT]


def test_rows_of_nulls_or_of_another_time_are_rejected_with_a_reason_each(lake: SparkSession, take: Take) -> None:
    nothing: dict[str, Any] = dict.fromkeys(TYPES)

    def at(start: datetime) -> dict[str, Any]:
        return trip(tpep_pickup_datetime=start, tpep_dropoff_datetime=start + timedelta(minutes=20))

    results = take(
        {
            "nulls_2025-01": table(nothing, nothing | {"VendorID": 1}),
            "month_2025-01": table(at(datetime(2025, 3, 5)), at(datetime(2024, 11, 5)), trip()),
            "year_2025-01": table(at(datetime(2008, 1, 15)), at(datetime(2088, 1, 15))),
        }
    )
    counts = {name: (source.rows_in, source.rows_accepted, source.rows_rejected) for name, source in results.items()}
    assert counts == {"nulls_2025-01": (2, 0, 2), "month_2025-01": (3, 1, 2), "year_2025-01": (2, 0, 2)}
    rejected = lake.table("silver.nyc_yellow_rejects").select("_source_key", "_reason", "_reasons").collect()
    by_file = {name: [row for row in rejected if f"/{name}." in row["_source_key"]] for name in results}
    for row in by_file.pop("nulls_2025-01"):
        assert row["_reason"] == "null_pickup_datetime"
        assert {"null_dropoff_datetime", "null_fare_amount", "null_total_amount"} < set(row["_reasons"])
        assert all(reason.startswith("null_") for reason in row["_reasons"])
    assert [row["_reason"] for rows in by_file.values() for row in rows] == ["outside_file_month"] * 4


LONG = "/".join(["nyc_yellow", *["é" * 100] * 4])
HOSTILE = [
    "a%2Fb%252F+c d",
    "'; DROP TABLE silver.nyc_yellow; --",
    '" OR "1"="1',
    "1) UNION SELECT secret FROM users --",
    "$(touch pwned)`touch pwned`; rm -rf ~ | cat && true > x",
    "--conf spark.master=local",
    "${HOME}{{ ds }}%(x)s\\n",
    "\U0001f600 \U0001f1ea\U0001f1fa e\u0301 \u202etxt",
    "a&b=c?d=e#f",
]


def test_text_in_a_key_is_never_more_than_text(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    keys = [f"nyc_yellow/{name}.parquet" for name in HOSTILE]
    tail = ".parquet"
    keys.append(f"{LONG}/" + "k" * (1024 - len(LONG.encode()) - 1 - len(tail)) + tail)
    assert len(keys[-1].encode()) == 1024
    items = [drop(key, table(*[trip()] * (number + 1))) for number, key in enumerate(keys)]
    bad = drop(keys[-1].replace("k.parquet", "b.parquet"), b"no parquet")
    pattern = drop("nyc_yellow/at [12:30].parquet", table(trip()))
    marker = data_preprocessing_job.run(lake, store.lake, store, contract, silver_batch(*items, bad, pattern))  # type: ignore[arg-type]
    accepted = {source.key: source.rows_accepted for source in marker.sources if source.refused is None}
    assert accepted == {key: number + 1 for number, key in enumerate(keys)}
    rows = lake.table("silver.nyc_yellow").groupBy("_source_key").count().collect()
    assert {row[0]: row[1] for row in rows} == accepted
    refused = {source.key: source.refused for source in marker.sources if source.refused}
    assert refused == {bad.key: Reason.NOT_PARQUET, pattern.key: Reason.UNREADABLE_KEY}
    assert store.read("quarantine", quarantine_key(bad)) == b"no parquet"


@pytest.mark.parametrize(
    "names", [[""], ["_path", "_source_key", "_metadata"], ["a\nb`c", "x.y", "\U0001f600", "a\0b"]], ids=str
)
def test_columns_of_any_name_beside_those_of_the_contract_do_no_harm(take: Take, names: list[str]) -> None:
    extra = table(trip())
    for name in names:
        extra = extra.append_column(name, pa.array(["x"]))
    results = take({"extra": extra, "again": extra})
    for result in results.values():
        assert result.refused is not None or (result.rows_accepted, len(result.rescued)) == (1, len(names))


def test_object_deleted_before_it_is_read_is_ignored_and_nothing_is_kept(
    lake: SparkSession, store: JobStore, contract: DatasetContract, drop: Drop
) -> None:
    good, gone = drop("nyc_yellow/good.parquet", repeated_trips(2)), drop("nyc_yellow/gone.parquet", repeated_trips(2))
    store.delete(gone.key)
    marker = data_preprocessing_job.run(lake, store.lake, store, contract, silver_batch(good, gone))  # type: ignore[arg-type]
    assert {source.key: source.refused for source in marker.sources} == {good.key: None, gone.key: Reason.OBJECT_GONE}
    assert store.copied == []


def test_required_column_of_nothing_but_nulls_rejects_each_row_whatever_type_it_has(
    lake: SparkSession, take: Take
) -> None:
    nothing = {"fare_amount": pa.null(), "tpep_pickup_datetime": pa.null()}
    rows = [trip(fare_amount=None, tpep_pickup_datetime=None)] * 2
    found = take({"empty": table(*rows, types=nothing)})["empty"]
    assert (found.refused, found.rows_in, found.rows_accepted, found.rows_rejected) == (None, 2, 0, 2)
    rejects = lake.table("silver.nyc_yellow_rejects").select("_reason", "_reasons").collect()
    assert [row["_reason"] for row in rejects] == ["null_pickup_datetime"] * 2
    assert all("null_fare_amount" in row["_reasons"] for row in rejects)


def test_decimal_of_more_digits_than_spark_has_costs_no_other_file_anything(take: Take) -> None:
    long = pa.decimal256(50, 2)
    found = take(
        {
            "beside": table(trip()).append_column("total_of_all", pa.array([1], long)),
            "in place of a fare": table(trip(fare_amount=None), types={"fare_amount": long}),
        }
    )
    assert (found["beside"].rows_accepted, found["beside"].left_out) == (1, ("total_of_all",))
    refused = found["in place of a fare"]
    assert refused.refused == Reason.WRONG_TYPES
    assert "fare_amount is of a type that Spark does not read" in (refused.detail or "")


def test_decimal_that_is_no_whole_number_is_a_bad_count_and_is_not_cut(lake: SparkSession, take: Take) -> None:
    kind = {"passenger_count": pa.decimal128(25, 2)}
    rows = [trip(passenger_count=Decimal("2.00")), trip(passenger_count=Decimal("1.50"))]
    found = take({"halves": table(*rows, types=kind)})["halves"]
    assert (found.rows_accepted, dict(found.reasons)) == (1, {"bad_passenger_count": 1})
    held = lake.table("silver.nyc_yellow").where("_source_key = 'nyc_yellow/halves.parquet'")
    assert [row["passenger_count"] for row in held.collect()] == [2]


def test_nested_column_whose_name_has_a_dot_is_kept_aside(lake: SparkSession, take: Take) -> None:
    tags = pa.array([["a", "b"]], pa.list_(pa.string()))
    found = take({"dotted": table(trip()).append_column("tags.list", tags)})["dotted"]
    assert (found.refused, found.rows_accepted) == (None, 1)
    held = lake.table("silver.nyc_yellow").where("_source_key = 'nyc_yellow/dotted.parquet'").collect()
    assert json.loads(held[0]["_rescued"]) == {"tags.list": ["a", "b"]}
