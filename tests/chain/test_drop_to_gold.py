"""The whole chain on the real servers: an object is put, and nothing else is done."""

from __future__ import annotations

import io
import json
import os
import signal
import uuid
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumers.ledger import Ledger
from contracts.states import FileState, Reason
from contracts.story import FileStory
from ingest.store import store_for
from sluice.files import wait_for_end
from tests.chain.accounting import assert_accounted, assert_zone_hour_agrees
from tests.chain.conftest import WAIT_SECONDS, Drop, DropAll, MakeMonth, Query, month_of, sql_text
from tests.conftest import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
MONTH = 2025, 4


@pytest.fixture(scope="module")
def trips(month: MakeMonth) -> bytes:
    """A generated month with the known dirt."""
    return month(2000, seed=11)


@pytest.fixture(scope="module")
def arrived(put: Drop, trips: bytes) -> FileStory:
    """That month, dropped on its own."""
    return put(f"nyc_yellow/{uuid.uuid4().hex}/yellow_tripdata_2025-04.parquet", trips)


def test_object_put_by_boto3_reaches_gold_with_every_row_accounted(arrived: FileStory, query: Query) -> None:
    assert_accounted(query, (arrived, 2000))
    assert [passage.hop for passage in arrived.timeline[:3]] == ["put", "event", "routed"]
    assert arrived.layers[0].rows_rejected > 0, "the generator makes known dirt"
    assert_zone_hour_agrees(query)


def test_every_rejected_row_has_a_reason_and_is_kept_as_it_came(arrived: FileStory, trips: bytes, query: Query) -> None:
    rows = query(f"select _reason, _row from silver.nyc_yellow_rejects where _source_key = {sql_text(arrived.key)}")
    assert len(rows) == arrived.layers[0].rows_rejected
    names = set(pq.read_schema(io.BytesIO(trips)).names)
    for reason, row in rows:
        assert reason
        assert set(json.loads(row)) == names


def test_second_identical_drop_changes_nothing(
    put: Drop, month: MakeMonth, query: Query, ledger: Ledger, unique: str
) -> None:
    key, body = f"nyc_yellow/{unique}/yellow_tripdata_2025-04.parquet", month(300, seed=13)
    first = put(key, body)
    second = put(key, body)
    assert second.state is FileState.DONE
    assert second.layers == first.layers, "no new snapshot, no new run"
    assert len(second.timeline) > len(first.timeline), "the second drop is told of"
    assert_accounted(query, (second, 300))


def test_corrected_file_replaces_its_own_rows_up_to_the_aggregate(
    put: Drop, month: MakeMonth, query: Query, unique: str
) -> None:
    key = f"nyc_yellow/{unique}/yellow_tripdata_2025-04.parquet"
    put(key, month(400, seed=14))
    corrected = put(key, month(250, seed=15))
    assert_accounted(query, (corrected, 250))
    assert_zone_hour_agrees(query)


def test_twenty_files_at_once_end_in_few_runs(put_all: DropAll, month: MakeMonth, query: Query, unique: str) -> None:
    rows = {f"nyc_yellow/{unique}/part-{number:02d}_2025-04.parquet": 100 + number for number in range(20)}
    stories = put_all({key: month(count, seed=count) for key, count in rows.items()})
    assert_accounted(query, *((story, rows[key]) for key, story in stories.items()))
    runs = {layer.run_id for story in stories.values() for layer in story.layers}
    assert len(runs) <= 8, runs


def _wrong_columns() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"VendorID": [1], "color": ["green"]}), buffer)
    return buffer.getvalue()


def _no_rows(body: bytes) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(body)).slice(0, 0), buffer)
    return buffer.getvalue()


HOSTILE = {
    "space-and-plus": "my trips/a b+c.parquet",
    "percent": "100%25 done%.parquet",
    "non-ascii": "café/東京-€.parquet",
    "quotes-and-glob-characters": "it's [1]{2}*?.parquet",
}
BAD = {
    "text": (lambda body: b"not parquet at all, but long enough to look at", Reason.NOT_PARQUET),
    "cut-in-half": (lambda body: body[: len(body) // 2], Reason.DAMAGED_PARQUET),
    "wrong-columns": (lambda body: _wrong_columns(), Reason.MISSING_COLUMNS),
    "no-bytes": (lambda body: b"", Reason.EMPTY_FILE),
    "no-rows": (_no_rows, Reason.NO_ROWS),
}
UNWANTED = {
    "unknown-dataset": ("no_such_dataset/{}/x.parquet", FileState.QUARANTINED, Reason.UNKNOWN_DATASET),
    "wrong-extension": ("nyc_yellow/{}/x.txt", FileState.QUARANTINED, Reason.PATH_NOT_IN_CONTRACT),
    "work-file": ("nyc_yellow/{}/_temporary/x.parquet", FileState.IGNORED, Reason.HIDDEN_NAME),
    "folder": ("nyc_yellow/{}/", FileState.IGNORED, Reason.DIRECTORY_MARKER),
}


Mixture = dict[str, tuple[bytes, FileStory]]
"""Name -> what the file held, and what became of it."""


@pytest.fixture(scope="module")
def mixture(put_all: DropAll, month: MakeMonth) -> Mixture:
    """Files of all these kinds, dropped at once."""
    unique = uuid.uuid4().hex
    files = {name: (f"nyc_yellow/{unique}/{key}", month(120, seed=16)) for name, key in HOSTILE.items()}
    for name, (spoil, _) in BAD.items():
        files[name] = f"nyc_yellow/{unique}/{name}_2025-04.parquet", spoil(month(200, seed=17))
    for name, (key, _, _) in UNWANTED.items():
        files[name] = key.format(unique), b"" if key.endswith("/") else month(50, seed=20)
    stories = put_all(dict(files.values()))
    return {name: (body, stories[key]) for name, (key, body) in files.items()}


@pytest.mark.parametrize("name", HOSTILE)
def test_file_name_does_not_matter(mixture: Mixture, query: Query, name: str) -> None:
    assert_accounted(query, (mixture[name][1], 120))


def test_file_alone_in_its_run_may_have_a_name_that_no_run_may_have(
    put: Drop, month: MakeMonth, query: Query, unique: str
) -> None:
    assert_accounted(query, (put(f"nyc_yellow/{unique}/scheduled__2025-04..parquet", month(60, seed=21)), 60))


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_quarantined_with_its_reason_and_kept(mixture: Mixture, s3: Any, stack: Stack, name: str) -> None:
    body, story = mixture[name]
    assert (story.state, story.reason) == (FileState.QUARANTINED, BAD[name][1])
    assert story.detail
    assert s3.get_object(Bucket="bronze", Key=story.key)["Body"].read() == body
    copies = list(store_for(stack.settings, "root").list("quarantine", story.key))
    assert [copy.etag for copy in copies] == [story.etag]


@pytest.mark.parametrize("name", UNWANTED)
def test_object_that_no_contract_wants_has_a_reason(mixture: Mixture, name: str) -> None:
    story = mixture[name][1]
    assert (story.state, story.reason) == UNWANTED[name][1:]


def test_damaged_pages_are_found_and_neighbours_in_the_batch_go_on(
    put_all: DropAll, month: MakeMonth, query: Query, unique: str
) -> None:
    good = month(150, seed=18)
    bad = bytearray(month(5000, seed=19))
    bad[2000:60000] = bytes(58000)
    bodies = {
        f"nyc_yellow/{unique}/{name}_2025-04.parquet": body
        for name, body in (("a", good), ("b", bytes(bad)), ("c", good))
    }
    stories = list(put_all(bodies).values())
    assert [story.state for story in stories] == [FileState.DONE, FileState.QUARANTINED, FileState.DONE]
    assert stories[1].reason is Reason.UNREADABLE_DATA
    assert_accounted(query, (stories[0], 150), (stories[2], 150))


def test_message_that_is_no_event_goes_to_the_dead_letters_and_delays_nobody(
    stack: Stack, put: Drop, month: MakeMonth, query: Query, unique: str
) -> None:
    from consumers.broker import Producer
    from consumers.topics import BRONZE_EVENTS, DEAD_LETTERS

    before = {item["topic"]: item["messages"] for item in stack.json("topics")}
    producer = Producer(stack.settings.kafka_login("admin"))
    for body in (b"not json", b'{"Records": []}', b"\xff\xfe", b'{"Records": [{"s3": 1}]}'):
        producer.send(BRONZE_EVENTS, f"bronze/{unique}", body)
    producer.flush()
    producer.close()
    story = put(f"nyc_yellow/{unique}/after_2025-04.parquet", month(80, seed=21))
    assert_accounted(query, (story, 80))
    after = {item["topic"]: item["messages"] for item in stack.json("topics")}
    assert after[DEAD_LETTERS] - before[DEAD_LETTERS] >= 4


@pytest.mark.alone  # with a file of another test in its batch, the run's note would be about both
def test_production_dag_downloads_a_month_and_shows_where_it_got_to(
    stack: Stack, month: MakeMonth, query: Query, ledger: Ledger
) -> None:
    (stack.published / "yellow_tripdata_2024-03.parquet").write_bytes(month_of(2024, 3, 600))
    settings = stack.settings
    login = {"username": settings.airflow_admin_user, "password": settings.airflow_admin_password.get_secret_value()}
    with httpx.Client(base_url=settings.airflow_url, timeout=30) as http:
        token = http.post("/auth/token", json=login).raise_for_status().json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        dag = "nyc_taxi_etl_production"
        answer = http.post(
            f"/api/v2/dags/{dag}/dagRuns", json={"logical_date": None, "conf": {"year": 2024, "month": 3}}
        ).raise_for_status()
        run = answer.json()["dag_run_id"]
        story = wait_for_end(
            lambda: ledger.story("bronze", "nyc_yellow/yellow_tripdata_2024-03.parquet"), "the month", 0, WAIT_SECONDS
        )
        assert_accounted(query, (story, 600))
        state = _run_state(http, dag, run)
        note = http.get(f"/api/v2/dags/{dag}/dagRuns/{run}").json()["note"]
        assert state == "success"
        assert "silver" in note
        assert "gold" in note
        stage = http.get(f"/api/v2/dags/{story.layers[0].dag_id}/dagRuns/{story.layers[0].run_id}").json()
        assert "yellow_tripdata_2024-03.parquet" in stage["note"]
        assert "600 rows in" in stage["note"]


def _run_state(http: Any, dag: str, run: str) -> str:
    import time

    limit = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < limit:
        state = str(http.get(f"/api/v2/dags/{dag}/dagRuns/{run}").raise_for_status().json()["state"])
        if state in ("success", "failed"):
            return state
        time.sleep(0.5)
    raise AssertionError(f"{dag} {run} has not ended")


@pytest.mark.alone
def test_killed_router_comes_back_and_the_file_arrives(
    stack: Stack, put: Drop, month: MakeMonth, query: Query, unique: str
) -> None:
    pid = next(item["pid"] for item in stack.json("status")["services"] if item["name"] == "router")
    os.kill(pid, signal.SIGKILL)
    story = put(f"nyc_yellow/{unique}/after-kill_2025-04.parquet", month(90, seed=22))
    assert_accounted(query, (story, 90))
    assert next(item["pid"] for item in stack.json("status")["services"] if item["name"] == "router") != pid


@pytest.mark.alone
def test_killed_triggerer_comes_back_and_the_file_arrives(
    stack: Stack, put: Drop, month: MakeMonth, query: Query, unique: str
) -> None:
    name = "airflow-triggerer"
    pid = next(item["pid"] for item in stack.json("status")["services"] if item["name"] == name)
    os.kill(pid, signal.SIGKILL)
    story = put(f"nyc_yellow/{unique}/after-kill_2025-04.parquet", month(95, seed=23))
    assert_accounted(query, (story, 95))
