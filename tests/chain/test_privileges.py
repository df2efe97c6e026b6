"""On the real servers: what Airflow's service user may do, and messages that nobody of ours would send."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from consumers.broker import Producer
from consumers.ledger import Ledger
from consumers.topics import WORK_TOPICS
from contracts.markers import CommitMarker, SourceResult
from contracts.states import FileState, Layer
from contracts.work import WorkItem, WorkMessage
from ingest.store import store_for
from tests.chain.conftest import Drop, MakeMonth, wait_until
from tests.chain.test_bad_input import dead_letter_of
from tests.conftest import Stack

pytestmark = [pytest.mark.stack, pytest.mark.beside, pytest.mark.timeout(900)]
MONTH = 2025, 9

DAG = "nyc_yellow_to_silver"
ALLOWED = [
    ("GET", "/dags/{dag}"),
    ("GET", "/dags/{dag}/dagRuns"),
    ("GET", "/dags/{dag}/dagRuns/{run}"),
    ("PATCH", "/dags/{dag}/dagRuns/{run}?update_mask=note"),
    ("GET", "/dags/{dag}/dagRuns/~/taskInstances?state=up_for_retry"),
    ("POST", "/dags/{dag}/clearTaskInstances"),
    # Airflow asks for the same permission to note a run.
    ("PATCH", "/dags/{dag}?update_mask=is_paused"),
]
FORBIDDEN = [
    ("GET", "/connections"),
    ("POST", "/connections"),
    ("DELETE", "/connections/none"),
    ("GET", "/variables"),
    ("POST", "/variables"),
    ("GET", "/pools"),
    ("PATCH", "/pools/default_pool"),
    ("GET", "/config"),
    ("DELETE", "/dags/{dag}"),
    ("DELETE", "/dags/{dag}/dagRuns/{run}"),
    ("GET", "/dags/{dag}/dagRuns/{run}/taskInstances/data_preprocessing/logs/1"),
    ("GET", "/dags/{dag}/dagRuns/{run}/taskInstances/data_preprocessing/xcomEntries"),
    ("GET", "/dagSources/{dag}"),
    ("GET", "/eventLogs"),
    ("GET", "/importErrors"),
    ("GET", "/plugins"),
    ("GET", "/assets"),
]
BODIES = {
    "/connections": {"connection_id": "forged", "conn_type": "http"},
    "/variables": {"key": "forged", "value": "x"},
    "/dags/{dag}/clearTaskInstances": {"dry_run": True, "task_ids": ["data_preprocessing"]},
    "/pools/default_pool": {"name": "default_pool", "slots": 1},
    "/dags/{dag}?update_mask=is_paused": {"is_paused": False},
    "/dags/{dag}/dagRuns/{run}?update_mask=note": {"note": "noted by a test"},
}


def airflow(stack: Stack, user: str, password: SecretStr) -> httpx.Client:
    """Airflow's API as one of its users."""
    login = {"username": user, "password": password.get_secret_value()}
    answer = httpx.post(f"{stack.settings.airflow_url}/auth/token", json=login, trust_env=False, timeout=60)
    assert answer.status_code == 201
    return httpx.Client(
        base_url=stack.settings.airflow_url,
        headers={"Authorization": f"Bearer {answer.json()['access_token']}"},
        timeout=60,
        trust_env=False,
    )


@pytest.fixture(scope="module")
def service(stack: Stack) -> Iterator[httpx.Client]:
    with airflow(stack, stack.settings.airflow_service_user, stack.settings.airflow_service_password) as client:
        yield client


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Iterator[httpx.Client]:
    with airflow(stack, stack.settings.airflow_admin_user, stack.settings.airflow_admin_password) as client:
        yield client


@pytest.fixture(scope="module")
def run_id(put: Drop, month: MakeMonth) -> str:
    """A run of the stage, which has ended."""
    story = put(f"nyc_yellow/{uuid.uuid4().hex[:10]}/a_2025-09.parquet", month(60, seed=71))
    assert story.layers[0].run_id
    return story.layers[0].run_id


def _ask(client: httpx.Client, method: str, path: str, run_id: str) -> int:
    url = f"/api/v2{path}".replace("{dag}", DAG).replace("{run}", run_id)
    return client.request(method, url, json=BODIES.get(path)).status_code


@pytest.mark.parametrize(("method", "path"), ALLOWED)
def test_service_user_sees_runs_and_notes_them(service: httpx.Client, run_id: str, method: str, path: str) -> None:
    assert _ask(service, method, path, run_id) == 200


@pytest.mark.parametrize(("method", "path"), FORBIDDEN)
def test_service_user_is_refused_whatever_the_listener_does_not_need(
    service: httpx.Client, run_id: str, method: str, path: str
) -> None:
    assert _ask(service, method, path, run_id) == 403


def test_service_user_is_refused_users_and_roles_which_the_admin_may_see(
    service: httpx.Client, admin: httpx.Client
) -> None:
    for path in ("/auth/fab/v1/users", "/auth/fab/v1/roles"):
        assert (service.get(path).status_code, admin.get(path).status_code) == (403, 200)


def test_nobody_sees_anything_of_airflow_without_a_login(stack: Stack) -> None:
    with httpx.Client(base_url=stack.settings.airflow_url, trust_env=False, timeout=60) as client:
        assert client.get("/api/v2/dags").status_code == 401
        wrong = {"username": stack.settings.airflow_admin_user, "password": "wrong"}
        assert client.post("/auth/token", json=wrong).status_code == 401


FORGED = {
    "another-dataset-s-file": {"key": "taxi_zones/{unique}.parquet"},
    "path-that-climbs": {"key": "nyc_yellow/../taxi_zones/{unique}.parquet"},
    "encoded-path-that-climbs": {"key": "nyc_yellow/%2e%2e/taxi_zones/{unique}.parquet"},
    "absolute-path": {"key": "/nyc_yellow/{unique}.parquet"},
    "quarantined-file": {"bucket": "quarantine", "key": "nyc_yellow/{unique}.parquet"},
    "table-s-data-file": {"bucket": "silver", "key": "nyc_yellow/{unique}.parquet"},
}


@pytest.mark.parametrize("layer", [Layer.SILVER, Layer.GOLD])
@pytest.mark.parametrize("fields", FORGED.values(), ids=FORGED)
def test_forged_work_goes_to_the_dead_letters_and_into_no_batch(
    stack: Stack, ledger: Ledger, unique: str, layer: Layer, fields: dict[str, str]
) -> None:
    named = {"bucket": "bronze"} | {name: value.format(unique=unique) for name, value in fields.items()}
    forged = WorkItem(etag=unique, version="10", **named)  # type: ignore[arg-type]
    honest = WorkItem(bucket="bronze", key=f"nyc_yellow/{unique}.parquet", etag=unique, version="10")
    message = WorkMessage(layer=layer, dataset="nyc_yellow", items=(honest, forged), at=datetime.now(UTC))
    producer = Producer(stack.settings.kafka_login("router"))
    producer.send(WORK_TOPICS[layer], "nyc_yellow", message.model_dump_json().encode())
    producer.flush()
    producer.close()
    letter = dead_letter_of(stack, unique)
    assert letter["reason"] == "bad_work"
    assert named["bucket"] in letter["detail"]
    assert ledger.unclaimed(layer, "nyc_yellow", message.items) == [honest, forged]


def test_marker_that_the_spark_user_forged_makes_no_work_of_another_dataset_s_file(
    stack: Stack, ledger: Ledger, unique: str
) -> None:
    now = datetime.now(UTC)
    source = SourceResult(bucket="bronze", key=f"taxi_zones/{unique}.parquet", etag=unique)
    marker = CommitMarker(
        layer=Layer.SILVER, dataset="nyc_yellow", table="silver.nyc_yellow", snapshot_id=7, batch_id=unique,
        started_at=now, committed_at=now, sources=(source,),
    )  # fmt: skip
    store_for(stack.settings, "spark").put_bytes("silver", marker.key, marker.model_dump_json().encode())
    letter = dead_letter_of(stack, unique)
    assert letter["reason"] == "bad_work"
    assert f"taxi_zones/{unique}.parquet" in letter["detail"]
    assert ledger.story("bronze", source.key) is None


def test_run_that_somebody_made_for_another_stage_s_batch_ends_and_changes_nothing(
    stack: Stack, admin: httpx.Client, ledger: Ledger, put: Drop, month: MakeMonth, unique: str
) -> None:
    story = put(f"nyc_yellow/{unique}/a_2025-09.parquet", month(60, seed=72))
    # A batch may hold files of other tests too.
    (batch,) = {item["batch_id"] for item in stack.json("why", "--snapshot", str(story.layers[0].snapshot_id))}
    body: dict[str, Any] = {"dag_run_id": unique, "logical_date": None, "conf": {"batch_id": batch}}
    runs = "/api/v2/dags/nyc_green_to_silver/dagRuns"
    assert admin.post(runs, json=body).status_code == 200
    wait_until(lambda: admin.get(f"{runs}/{unique}").json()["state"] in ("failed", "success"), "the forged run ends")
    assert admin.get(f"{runs}/{unique}").json()["state"] == "failed"
    after = ledger.story("bronze", story.key)
    assert after is not None
    assert after.state is FileState.DONE
    assert after.timeline == story.timeline
