"""On the real servers: the upkeep DAG puts small files together, and nobody who reads or corrects them notices."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from ingest.store import store_for
from spark_jobs.lake import open_lake
from tests.chain.accounting import ROW_TABLES, assert_zone_hour_agrees, content
from tests.chain.conftest import Drop, DropAll, MakeMonth, Query, sql_text, wait_until
from tests.chain.test_privileges import airflow
from tests.conftest import TWIN, Stack

pytestmark = [pytest.mark.stack, pytest.mark.beside, pytest.mark.timeout(900)]
MONTH = 2025, 7

FILES = 30


@pytest.fixture
def admin(stack: Stack) -> Iterator[httpx.Client]:
    with airflow(stack, stack.settings.airflow_admin_user, stack.settings.airflow_admin_password) as client:
        yield client


def look_after(admin: httpx.Client, *datasets: str) -> dict[str, dict[str, Any]]:
    """Trigger the upkeep DAG for some datasets as a person does, and wait for its end; table to what was done to it."""
    run_id = f"manual__{datetime.now(UTC).isoformat()}"
    runs = "/api/v2/dags/upkeep/dagRuns"
    admin.post(
        runs, json={"dag_run_id": run_id, "logical_date": None, "conf": {"datasets": datasets}}
    ).raise_for_status()
    path = httpx.URL(f"{runs}/").join(run_id.replace("+", "%2B"))
    wait_until(lambda: admin.get(path).json().get("state") in ("success", "failed"), f"{run_id} is over")
    assert admin.get(path).json()["state"] == "success"
    tasks = admin.get(f"{path}/taskInstances").json()["task_instances"]
    told = [
        admin.get(
            f"{path}/taskInstances/{task['task_id']}/xcomEntries/return_value",
            params={"map_index": task["map_index"], "deserialize": True},
        ).json()["value"]
        for task in tasks
        if task["task_id"] == "look_after"
    ]
    return {done["table"]: done for tables in told for done in tables}


@contextmanager
def reader(query: Query, statement: str, seen: list[Any]) -> Iterator[None]:
    """Somebody who reads again and again; an error of his is among what he saw."""
    enough = threading.Event()

    def read() -> None:
        while not enough.wait(0.5):  # without a pause one of two cores would be the reader's
            try:
                seen.append(query(statement))
            except Exception as error:
                seen.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        wait_until(lambda: len(seen) > 1, "somebody reads")
        yield
    finally:
        enough.set()
        thread.join()


def test_small_files_are_put_together_while_somebody_reads_and_one_is_corrected_exactly(
    stack: Stack, admin: httpx.Client, put: Drop, put_all: DropAll, month: MakeMonth, query: Query, unique: str
) -> None:
    keys = [f"{TWIN}/{unique}/{number:02d} +%_2025-07.parquet" for number in range(FILES)]
    stories = put_all({key: month(20 + number, seed=number) for number, key in enumerate(keys)})
    assert {story.state for story in stories.values()} == {"done"}
    lake = open_lake(stack.settings, store_for(stack.settings, "spark"))

    def lies_in(name: str) -> tuple[int, int]:
        """Partitions that hold rows of these files alone, and packs."""
        table = lake.table(name)
        assert table is not None
        partitions = table.partitions(table.current_id or 0)
        return sum(p.lowest in keys and not p.is_pack for p in partitions), sum(p.is_pack for p in partitions)

    row_tables = [pattern.format(TWIN) for pattern in ROW_TABLES]
    assert [lies_in(name)[0] for name in row_tables if "rejects" not in name] == [FILES, FILES]
    before = content(query, TWIN, unique)
    mine = f"starts_with(_source_key, {sql_text(f'{TWIN}/{unique}/')})"
    seen: list[Any] = []
    statement = (
        f"select count(*), sum(total_amount), count(distinct _source_key) from gold.{TWIN}_features where {mine}"
    )
    with reader(query, statement, seen):
        done = look_after(admin, TWIN)
        assert {name for name in done if TWIN not in name} == set()
        for name in row_tables:
            assert lies_in(name)[0] == 0
            assert 1 <= lies_in(name)[1] <= 4
            assert done[name]["files_after"] < done[name]["files_before"]
        assert content(query, TWIN, unique) == before
    assert len(seen) > 2
    assert seen == [seen[0]] * len(seen)
    assert seen[0][0][2] == FILES

    corrected = keys[7]
    story = put(corrected, month(50, seed=99))
    assert story.layers[0].rows_in == 50
    rows = {key: story.layers[1].rows_accepted for key, story in {**stories, corrected: story}.items()}
    for name in (f"silver.{TWIN}", f"gold.{TWIN}_features"):
        found = query(f"select _source_key, count(*), count(distinct _source_etag) from {name} where {mine} group by 1")
        assert {key: (count, etags) for key, count, etags in found} == {key: (count, 1) for key, count in rows.items()}
    etag = query(f"select distinct _source_etag from silver.{TWIN} where _source_key = {sql_text(corrected)}")
    assert etag == [(story.etag,)]
    assert_zone_hour_agrees(query, TWIN)
