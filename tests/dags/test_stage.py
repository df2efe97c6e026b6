"""What the stage tasks call, without servers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import AirflowFailException
from sluice_listener.stage import outcome, run_stage, totals

from contracts.markers import CommitMarker, SourceResult
from contracts.states import Layer, Reason

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def marker(*sources: SourceResult) -> CommitMarker:
    return CommitMarker(
        layer=Layer.SILVER,
        dataset="trips",
        table="silver.trips",
        snapshot_id=1,
        batch_id="b1",
        started_at=NOW,
        committed_at=NOW,
        sources=sources,
    )


def source(name: str, rows: int = 0, refused: Reason | None = None) -> SourceResult:
    return SourceResult(
        bucket="bronze", key=f"trips/{name}", etag="e", rows_in=rows, rows_accepted=rows, refused=refused
    )


def test_note_of_one_file_names_it_and_its_rows() -> None:
    assert outcome(marker(source("a.parquet", 3000))) == (
        "trips/a.parquet → silver.trips: 3,000 rows in, 3,000 accepted, 0 rejected (batch b1)"
    )


def test_note_of_many_files_names_those_refused() -> None:
    told = outcome(marker(source("a.parquet", 10), source("b.parquet", refused=Reason.NOT_PARQUET)))
    assert told.startswith("2 files of trips → silver.trips: 10 rows in")
    assert "trips/b.parquet: not_parquet" in told


def test_rows_of_refused_files_are_not_counted() -> None:
    counts = totals(marker(source("a.parquet", 10), source("b.parquet", 5, refused=Reason.UNREADABLE_DATA)))
    assert counts == {"files": 1, "refused": 1, "rows_in": 10, "rows_accepted": 10, "rows_rejected": 0}


def test_run_without_a_batch_fails_at_once_and_says_what_to_do() -> None:
    with pytest.raises(AirflowFailException, match="Drop a file instead"):
        run_stage(Layer.SILVER, "trips_to_silver", "manual", 1, {})
