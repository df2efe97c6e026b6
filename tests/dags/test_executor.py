"""A scheduler that has nothing to do waits, and every change of a run or task ends its wait, on a real Postgres."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.executors.local_executor import LocalExecutor
from psycopg.conninfo import make_conninfo
from sluice_listener import executor as module
from sluice_listener.executor import BUSY_SECONDS, IDLE_SECONDS, NotifiedLocalExecutor

from tests.dags.home import REPO

LONG = 60.0
"""A wait that is known to have been ended when it took less than half of it."""
SHORT = 0.3

pytestmark = pytest.mark.services


@pytest.fixture
def database(postgres: str) -> Iterator[psycopg.Connection[Any]]:
    """A database with what matters of Airflow's two tables, a row in each, as `airflow/bootstrap.py` leaves them."""
    name = f"airflow_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
    news = run_path(str(REPO / "airflow" / "bootstrap.py"))["NEWS"]
    with psycopg.connect(make_conninfo(postgres, dbname=name), autocommit=True) as connection:
        for table in ("dag_run", "task_instance"):
            connection.execute(f"CREATE TABLE {table} (state text, looked_at timestamptz)")
            connection.execute(f"INSERT INTO {table} VALUES ('queued')")
        for _ in range(2):  # It is safe to repeat.
            connection.execute(news)
        yield connection


@pytest.fixture
def executor(
    postgres: str, database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[NotifiedLocalExecutor]:
    """An executor that listens already."""
    url = make_conninfo(postgres, dbname=database.info.dbname)
    monkeypatch.setattr(module, "load_settings", lambda: SimpleNamespace(postgres_url=lambda role, name: url))
    found = NotifiedLocalExecutor()
    found._wait(0)
    yield found
    found._hang_up()


def waited(executor: NotifiedLocalExecutor, seconds: float) -> float:
    started = time.monotonic()
    executor._wait(seconds)
    return time.monotonic() - started


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO dag_run VALUES ('queued')",
        "UPDATE dag_run SET state = 'running'",
        "INSERT INTO task_instance VALUES (NULL)",
        "UPDATE task_instance SET state = 'scheduled'",
        "UPDATE task_instance SET state = NULL",
    ],
)
def test_new_run_or_task_or_another_state_ends_the_wait(
    executor: NotifiedLocalExecutor, database: psycopg.Connection[Any], change: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(waited, executor, LONG)
        database.execute(change)
        assert found.result() < LONG / 2


def test_change_that_was_committed_before_the_wait_began_ends_it_once(
    executor: NotifiedLocalExecutor, database: psycopg.Connection[Any]
) -> None:
    for state in ("scheduled", "queued", "running"):
        database.execute("UPDATE task_instance SET state = %s", (state,))
    assert waited(executor, LONG) < LONG / 2
    while waited(executor, SHORT) < SHORT:  # Those that came in a packet of their own.
        pass


def test_what_changes_no_state_ends_no_wait(executor: NotifiedLocalExecutor, database: psycopg.Connection[Any]) -> None:
    for table in ("dag_run", "task_instance"):
        database.execute(f"UPDATE {table} SET looked_at = now(), state = state")
        database.execute(f"UPDATE {table} SET state = 'failed' WHERE state = 'no such'")
    assert waited(executor, SHORT) >= SHORT


def test_change_ends_the_wait_when_it_is_committed_and_not_before(
    executor: NotifiedLocalExecutor, database: psycopg.Connection[Any]
) -> None:
    with database.transaction():
        database.execute("UPDATE dag_run SET state = 'success'")
        assert waited(executor, SHORT) >= SHORT
    assert waited(executor, LONG) < LONG / 2


def test_connection_that_was_cut_is_told_of_and_made_anew(
    executor: NotifiedLocalExecutor, database: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert executor._news is not None
    database.execute("SELECT pg_terminate_backend(%s, 60000)", (executor._news.info.backend_pid,))
    with caplog.at_level(logging.WARNING):
        assert waited(executor, SHORT) >= SHORT
    assert "tells of no changes" in caplog.text
    assert waited(executor, LONG) < LONG / 2, "the loop looks once more at what it was told nothing of"
    database.execute("UPDATE dag_run SET state = 'running'")
    assert waited(executor, LONG) < LONG / 2


def test_while_the_database_is_away_each_wait_is_as_long_as_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "postgresql://127.0.0.1:1/airflow"
    monkeypatch.setattr(module, "load_settings", lambda: SimpleNamespace(postgres_url=lambda role, name: nowhere))
    assert waited(NotifiedLocalExecutor(), SHORT) >= SHORT


@pytest.mark.parametrize(
    ("running", "ended", "waits"), [((), (), [IDLE_SECONDS]), ("a", (), [BUSY_SECONDS]), ("a", "b", [])]
)
def test_scheduler_waits_less_while_tasks_run_and_not_at_all_when_one_has_ended(
    monkeypatch: pytest.MonkeyPatch, running: tuple[str, ...], ended: tuple[str, ...], waits: list[float]
) -> None:
    monkeypatch.setattr(LocalExecutor, "sync", lambda self: None)
    found: list[float] = []
    executor = NotifiedLocalExecutor()
    monkeypatch.setattr(executor, "_wait", found.append)
    executor.running, executor.event_buffer = set(running), dict.fromkeys(ended)  # type: ignore[assignment, arg-type]
    executor.sync()
    assert found == waits
