"""What the stage tasks call, without servers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from sluice_listener.stage import RETRIES, TRIES, give_up, outcome, run_stage, totals

from contracts.errors import BadWork, JobFailed, ServiceUnavailable
from contracts.markers import CommitMarker, SourceResult
from contracts.states import Layer, Reason
from contracts.work import Batch, WorkItem, make_batch

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


class OneBatch:
    """A ledger that knows one batch, of gold, and must not hear that anything became of it."""

    def __enter__(self) -> OneBatch:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def load_batch(self, batch_id: str) -> Batch:
        return make_batch(Layer.GOLD, "trips", [WorkItem(bucket="bronze", key="trips/a", etag="e", version="1")])


@pytest.mark.parametrize("dag_id", ["trips_to_silver", "zones_to_gold"])
def test_run_whose_conf_names_a_batch_of_another_stage_ends_and_touches_nothing(
    monkeypatch: pytest.MonkeyPatch, dag_id: str
) -> None:
    monkeypatch.setattr("consumers.ledger.open_ledger", lambda settings: OneBatch())
    with pytest.raises(AirflowFailException, match="trips_to_gold") as refusal:
        run_stage(Layer.SILVER, dag_id, "forged", 1, {"batch_id": "b1"})
    with pytest.raises(BadWork):
        give_up(dag_id, "forged", {"batch_id": "b1"}, refusal.value)


@pytest.mark.parametrize("attempt", [1, TRIES, RETRIES])
def test_server_that_is_away_is_waited_for_and_a_job_that_fails_is_given_up(
    monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    def failing(error: Exception) -> Callable[..., CommitMarker]:
        def run(*arguments: Any) -> CommitMarker:
            raise error

        return run

    for error in (ServiceUnavailable("MinIO is away."), JobFailed("It failed."), AirflowException("It failed.")):
        monkeypatch.setattr("sluice_listener.stage._run_job", failing(error))
        last = attempt >= TRIES and not isinstance(error, ServiceUnavailable)
        with pytest.raises(AirflowFailException if last else type(error), match=str(error)):
            run_stage(Layer.SILVER, "trips_to_silver", "run", attempt, {})
