"""What a commit marker tells of a file, and what it takes of names that others wrote."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from contracts.errors import BadWork
from contracts.markers import LONGEST_NAME, MAX_NAMES, SCHEMA_VERSION, SourceResult, bounded_names, parse_marker
from contracts.work import WorkItem
from spark_jobs.marking import result

ITEM = WorkItem(bucket="bronze", key="rides/a.parquet", etag="e1", size=9, version="1")
BEFORE = {
    "schema_version": 1, "layer": "silver", "dataset": "rides", "table": "silver.rides", "snapshot_id": 1,
    "batch_id": "b1", "started_at": datetime(2025, 1, 1, tzinfo=UTC).isoformat(),
    "committed_at": datetime(2025, 1, 1, tzinfo=UTC).isoformat(),
    "sources": [{"bucket": "bronze", "key": "rides/a.parquet", "etag": "e1", "rows_in": 3, "rows_accepted": 3}],
}  # fmt: skip
HOSTILE = "\x1b[2J\x00\u202e\udc80"


def test_marker_of_before_these_fields_tells_no_reason() -> None:
    (source,) = parse_marker(json.dumps(BEFORE).encode()).sources
    assert (source.reasons, source.warnings, source.rescued) == ({}, {}, ())


def test_reader_of_before_passes_over_fields_that_it_does_not_know() -> None:
    assert parse_marker(json.dumps(BEFORE | {"not_yet_known": 1}).encode()).schema_version == SCHEMA_VERSION


def test_marker_of_a_newer_schema_version_is_left_to_newer_code() -> None:
    with pytest.raises(BadWork, match="Upgrade this part"):
        parse_marker(json.dumps(BEFORE | {"schema_version": SCHEMA_VERSION + 1}).encode())


def test_result_of_a_job_carries_reasons_warnings_and_rescued_through_the_marker() -> None:
    made = result(
        ITEM, rows_in=3, rows_accepted=2, rows_rejected=1, reasons={"a": 1, "b": 1}, warnings={"w": 2}, rescued=("x",)
    )
    assert sum(made.reasons.values()) > made.rows_rejected, "each reason of a row counts"
    assert SourceResult.model_validate_json(made.model_dump_json()) == made
    assert (made.reasons, made.warnings, made.rescued) == ({"a": 1, "b": 1}, {"w": 2}, ("x",))


@pytest.mark.parametrize("field", ["reasons", "warnings"])
def test_number_of_rows_is_not_negative(field: str) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        result(ITEM, **{field: {"a": -1}})


def test_names_of_columns_are_bounded_in_number_and_length() -> None:
    made = result(ITEM, rescued=tuple(f"{n:03d}{'x' * 100_000}" for n in range(500))).rescued
    assert (len(made), {len(name) for name in made}) == (MAX_NAMES, {LONGEST_NAME})
    assert made[0] == "000" + "x" * (LONGEST_NAME - 4) + "…"


def test_names_of_columns_hold_nothing_that_a_terminal_or_a_database_would_not_take() -> None:
    (made,) = bounded_names([HOSTILE])
    assert made.isprintable()
    assert json.loads(result(ITEM, rescued=[made]).model_dump_json())["rescued"] == [made]


def test_bounded_names_stay_as_they_are() -> None:
    once = bounded_names([HOSTILE * 30, "x" * 70, "ä", "ä"])
    assert (bounded_names(once), len(once)) == (once, 3)
