"""What no event told of and what stands still is found and set going again, on the real servers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from consumers import reconcile as decisions
from consumers import reconciler
from consumers.ledger import Ledger
from consumers.reconcile import Finding
from consumers.reconciler import Report
from contracts.states import FileState, Layer, Reason
from contracts.story import FileStory
from contracts.work import stage_dag_id
from ingest.bootstrap import RULES
from ingest.store import store_for
from sluice.files import wait_for_end
from sluice.replaying import plan
from spark_jobs.lake import open_lake
from tests.chain.accounting import assert_accounted, content
from tests.chain.conftest import WAIT_SECONDS, Drop, MakeMonth, Query, wait_until
from tests.chain.test_exactly_once import _state, _told_of, caught_up
from tests.conftest import TWIN, Stack

pytestmark = [pytest.mark.stack, pytest.mark.alone, pytest.mark.timeout(900)]
MONTH = 2025, 3

Reconcile = Callable[..., Report]


@pytest.fixture
def reconcile(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Reconcile:
    """A full pass that waits for nothing that may still be on its way: the tests know that nothing is."""
    monkeypatch.setattr(decisions, "IN_FLIGHT", timedelta(0))
    monkeypatch.setattr(reconciler, "STANDS_STILL", timedelta(0))
    lake = open_lake(stack.settings, store_for(stack.settings, "spark"))

    def run(repair: bool = True) -> Report:
        return reconciler.reconcile(stack.settings, lake.batches_since, full=True, repair=repair)

    return run


@pytest.fixture
def airflow(stack: Stack) -> Iterator[httpx.Client]:
    """Airflow's API as its administrator."""
    settings = stack.settings
    login = {"username": settings.airflow_admin_user, "password": settings.airflow_admin_password.get_secret_value()}
    with httpx.Client(base_url=settings.airflow_url, timeout=30) as http:
        token = http.post("/auth/token", json=login).raise_for_status().json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        yield http


@contextmanager
def no_events_of(stack: Stack, bucket: str) -> Iterator[None]:
    """A bucket whose events MinIO sends to nobody: to Sluice they are lost."""
    store = store_for(stack.settings, "root")
    store.set_notifications(bucket, ())
    try:
        yield
    finally:
        store.set_notifications(bucket, RULES[bucket])


@contextmanager
def paused(airflow: httpx.Client, dag_id: str) -> Iterator[None]:
    airflow.patch(f"/api/v2/dags/{dag_id}", json={"is_paused": True}).raise_for_status()
    try:
        yield
    finally:
        airflow.patch(f"/api/v2/dags/{dag_id}", json={"is_paused": False}).raise_for_status()


def about(report: Report, key: str) -> list[Finding]:
    return [finding for finding, what in report.named if key in what]


def ended(ledger: Ledger, key: str, known: int = 0) -> FileStory:
    return wait_for_end(lambda: ledger.story("bronze", key), key, known, WAIT_SECONDS)


def silver_run(airflow: httpx.Client, ledger: Ledger, key: str) -> str:
    """The id of the silver run of nyc_yellow that holds a file, once Airflow has it; the ledger names it before."""
    wait_until(lambda: _told_of(ledger, key, "claimed"), f"{key} is in a batch")
    story = ledger.story("bronze", key)
    assert story is not None
    run_id = next(passage.run_id for passage in story.timeline if passage.hop == "claimed" and passage.run_id)
    run = f"/api/v2/dags/{stage_dag_id('nyc_yellow', Layer.SILVER)}/dagRuns/{run_id}"
    wait_until(lambda: airflow.get(run).is_success, f"Airflow has {run_id}")
    return run_id


def test_object_whose_event_was_lost_reaches_gold_once(
    stack: Stack, s3: Any, month: MakeMonth, query: Query, ledger: Ledger, reconcile: Reconcile, unique: str
) -> None:
    key = f"nyc_yellow/{unique}/a_2025-03.parquet"
    with no_events_of(stack, "bronze"):
        s3.put_object(Bucket="bronze", Key=key, Body=month(90, seed=61))
    assert about(reconcile(repair=False), key) == [Finding.OBJECT_WITHOUT_ROW]
    assert ledger.story("bronze", key) is None, "a look mends nothing"
    assert about(reconcile(), key) == [Finding.OBJECT_WITHOUT_ROW]
    assert_accounted(query, (ended(ledger, key), 90))
    assert about(reconcile(), key) == []


def test_event_that_the_router_has_yet_to_read_is_not_taken_for_lost(
    stack: Stack,
    s3: Any,
    month: MakeMonth,
    query: Query,
    ledger: Ledger,
    reconcile: Reconcile,
    unique: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The event comes into Kafka a moment after the object is there.
    monkeypatch.setattr(decisions, "IN_FLIGHT", timedelta(seconds=1))
    key = f"nyc_yellow/{unique}/a_2025-03.parquet"
    router = next(service["pid"] for service in stack.json("status")["services"] if service["name"] == "router")
    os.kill(router, signal.SIGSTOP)
    try:
        s3.put_object(Bucket="bronze", Key=key, Body=month(20, seed=69))
        wait_until(lambda: not caught_up(stack), "the event is in Kafka")
        old_enough = datetime.now(UTC) + timedelta(seconds=2)
        wait_until(lambda: datetime.now(UTC) > old_enough, "the object is not taken for too new")
        assert about(reconcile(), key) == []
    finally:
        os.kill(router, signal.SIGCONT)
    assert_accounted(query, (ended(ledger, key), 20))


def test_correction_whose_event_was_lost_replaces_the_rows_of_the_version_before(
    stack: Stack, put: Drop, s3: Any, month: MakeMonth, query: Query, ledger: Ledger, reconcile: Reconcile, unique: str
) -> None:
    key = f"nyc_yellow/{unique}/a_2025-03.parquet"
    old = put(key, month(90, seed=62))
    with no_events_of(stack, "bronze"):
        etag = s3.put_object(Bucket="bronze", Key=key, Body=month(70, seed=63))["ETag"].strip('"')
    assert about(reconcile(), key) == [Finding.OBJECT_WITHOUT_ROW]
    wait_until(lambda: _state(ledger, key, etag) is FileState.DONE, f"the new content of {key} is done")
    story = ledger.story("bronze", key)
    assert story is not None
    assert story.etag != old.etag
    assert_accounted(query, (story, 70))


@pytest.mark.parametrize("dataset", ["nyc_yellow", TWIN])
def test_deletion_whose_event_was_lost_does_what_the_contract_says(
    stack: Stack,
    put: Drop,
    month: MakeMonth,
    query: Query,
    ledger: Ledger,
    owner: Any,
    reconcile: Reconcile,
    unique: str,
    dataset: str,
) -> None:
    key = f"{dataset}/{unique}/a_2025-03.parquet"
    story = put(key, month(80, seed=64))
    before = content(query, dataset, unique)
    with no_events_of(stack, "bronze"):
        owner.delete_object(Bucket="bronze", Key=key)
    assert about(reconcile(), key) == [Finding.ROW_WITHOUT_OBJECT]
    wait_until(lambda: _told_of(ledger, key, "removed"), f"{key} is known to be removed")
    if dataset == TWIN:
        story = ended(ledger, key, len(story.timeline))
        assert (story.state, story.reason) == (FileState.IGNORED, Reason.RETRACTED)
        assert {rows for rows, _ in content(query, dataset, unique).values()} == {0}
    else:
        assert content(query, dataset, unique) == before
    assert about(reconcile(), key) == []


def test_work_that_was_lost_before_any_listener_saw_it_is_sent_once_more(
    stack: Stack, put: Drop, month: MakeMonth, query: Query, ledger: Ledger, reconcile: Reconcile, unique: str
) -> None:
    key = f"nyc_yellow/{unique}/a_2025-03.parquet"
    story = put(key, month(60, seed=65))
    # As a replay that dies between the ledger and Kafka.
    ledger.replay(plan(stack.settings, [f"bronze/{key}"], None, None, None, None, "gold").work)
    assert about(reconcile(), key) == [Finding.WORK_NOT_TAKEN]
    again = ended(ledger, key, len(story.timeline))
    assert_accounted(query, (again, 60))
    assert again.layers != story.layers


def test_run_that_somebody_deleted_is_made_again_and_a_paused_stage_is_told_of(
    stack: Stack,
    s3: Any,
    month: MakeMonth,
    query: Query,
    ledger: Ledger,
    airflow: httpx.Client,
    reconcile: Reconcile,
    unique: str,
) -> None:
    key = f"nyc_yellow/{unique}/a_2025-03.parquet"
    dag_id = stage_dag_id("nyc_yellow", Layer.SILVER)
    with paused(airflow, dag_id):
        s3.put_object(Bucket="bronze", Key=key, Body=month(50, seed=66))
        run_id = silver_run(airflow, ledger, key)
        report = reconcile()
        assert report.waiting[dag_id] == 1
        assert about(report, dag_id) == [Finding.STAGE_PAUSED]
        airflow.delete(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}").raise_for_status()
        assert Finding.RUN_MISSING in about(reconcile(), run_id)
    assert_accounted(query, (ended(ledger, key), 50))
    assert airflow.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}").json()["state"] in ("running", "success")


def test_run_that_failed_unnoticed_gives_its_files_a_reason(
    stack: Stack,
    s3: Any,
    month: MakeMonth,
    query: Query,
    ledger: Ledger,
    airflow: httpx.Client,
    reconcile: Reconcile,
    unique: str,
) -> None:
    key = f"nyc_yellow/{unique}/a_2025-03.parquet"
    dag_id = stage_dag_id("nyc_yellow", Layer.SILVER)
    with paused(airflow, dag_id):
        s3.put_object(Bucket="bronze", Key=key, Body=month(40, seed=67))
        run_id = silver_run(airflow, ledger, key)
        # By hand, before any task began: no callback runs.
        airflow.patch(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}", json={"state": "failed"}).raise_for_status()
    assert about(reconcile(), run_id) == [Finding.RUN_FAILED]
    story = ended(ledger, key)
    assert (story.state, story.reason) == (FileState.QUARANTINED, Reason.RUN_FAILED)
    assert stack.json("replay", f"bronze/{key}")["started"] == 1
    assert_accounted(query, (ended(ledger, key, len(story.timeline) + 1), 40))


def test_commit_whose_marker_nobody_told_of_is_counted_once(
    stack: Stack,
    s3: Any,
    month: MakeMonth,
    query: Query,
    ledger: Ledger,
    airflow: httpx.Client,
    reconcile: Reconcile,
    unique: str,
) -> None:
    key = f"nyc_yellow/{unique}/a_2025-03.parquet"
    dag_id = stage_dag_id("nyc_yellow", Layer.SILVER)
    with no_events_of(stack, "silver"):
        s3.put_object(Bucket="bronze", Key=key, Body=month(30, seed=68))
        run_id = silver_run(airflow, ledger, key)
        run = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
        wait_until(lambda: airflow.get(run).json().get("state") == "success", f"{run_id} is over")
    before = content(query, "nyc_yellow", unique)["silver.{}"]
    assert before[0] > 0
    assert about(reconcile(), run_id) == [Finding.SNAPSHOT_WITHOUT_MARKER]
    assert_accounted(query, (ended(ledger, key), 30))
    assert content(query, "nyc_yellow", unique)["silver.{}"] == before
    assert airflow.get(f"{run}__again").json()["state"] == "success"


def test_command_and_schedule_report_counts(stack: Stack, airflow: httpx.Client) -> None:
    report = stack.json("reconcile", "--full", "--dry-run")
    assert (report["full"], report["repaired"]) == (True, False)
    assert set(report["found"]) == set(Finding)
    runs = airflow.get("/api/v2/dags/reconcile/dagRuns", params={"order_by": "-id", "limit": 1}).json()["dag_runs"]
    assert runs, "the schedule has made a run"
