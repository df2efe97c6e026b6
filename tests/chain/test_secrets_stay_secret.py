"""No password of the stack is in a log, a process list, a message, a table, or on a page of Airflow or Spark.

The passwords are those that the stack itself made at its start; one more is planted into an Airflow connection. Each
search is shown to find a text that is known to be there.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from consumers.airflow_api import token_file
from contracts.settings import HOST, SECRETS_FILE
from sluice import kafka_server, supervisor
from sluice.services import connect_properties
from tests.chain.conftest import Drop, MakeMonth
from tests.chain.test_privileges import airflow
from tests.conftest import Stack

MINIO_USERS = Path("minio", "data", ".minio.sys", "config", "iam")
"""Where MinIO keeps its users, below the home folder: it needs their keys to check signatures."""

PIECE = 4 * 1024**2
"""Bytes of a file that are searched at once."""

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
MONTH = 2025, 10


@pytest.fixture(scope="module")
def secrets(stack: Stack) -> dict[str, str]:
    """Every password and key of the stack."""
    values = {
        name: value.get_secret_value()
        for name, value in stack.settings
        if hasattr(value, "get_secret_value") and value.get_secret_value()
    }
    assert len(values) > 15
    return values


@pytest.fixture(scope="module")
def taken() -> str:
    """A name that is in the keys of a file in gold and of one that was refused."""
    return uuid.uuid4().hex[:10]


@pytest.fixture(scope="module", autouse=True)
def run_id(put: Drop, month: MakeMonth, taken: str) -> str:
    """The run that took the file to gold; other files may have come with it."""
    story = put(f"nyc_yellow/a/{taken}_2025-10.parquet", month(60, seed=81))
    put(f"nyc_yellow/{taken}/bad.parquet", f"no parquet of {taken}".encode())
    assert story.layers[-1].layer == "gold"
    assert story.layers[-1].run_id
    return story.layers[-1].run_id


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Iterator[httpx.Client]:
    with airflow(stack, stack.settings.airflow_admin_user, stack.settings.airflow_admin_password) as client:
        yield client


def private_files(stack: Stack) -> set[Path]:
    """The files that are there to hold passwords."""
    home = stack.settings.home
    return {home / SECRETS_FILE, connect_properties(stack.settings), kafka_server.properties_file(stack.settings)}


def files_with(folder: Path, texts: Collection[str], without: Collection[Path] = ()) -> set[tuple[Path, str]]:
    """Which files below a folder hold which of some texts."""
    found = set()
    # Servers remove files and folders meanwhile, and cut files: of a mapped one that would end this process.
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            with suppress(FileNotFoundError):
                if path not in without and stat.S_ISREG(path.lstat().st_mode):
                    found |= {(path.relative_to(folder), text) for text in texts_in(path, texts)}
    return found


def texts_in(path: Path, texts: Collection[str]) -> set[str]:
    """Those of some texts that a file holds; it is read piece by piece, and a text may lie across two."""
    sought = {text: text.encode() for text in texts}
    overlap = max(map(len, sought.values()))
    found: set[str] = set()
    with path.open("rb", buffering=0) as file:
        end = b""
        while piece := file.read(PIECE):
            content = end + piece
            found |= {text for text, encoded in sought.items() if encoded in content}
            end = content[-overlap:]
    return found


def test_no_file_of_the_stack_has_a_password_but_the_private_ones(
    stack: Stack, secrets: dict[str, str], taken: str, run_id: str
) -> None:
    home = stack.settings.home
    planted = home / "logs" / f"planted-{taken}.log"
    planted.write_text(f"postgresql://ledger:{secrets['ledger_password']}@{HOST}/lake\n")
    try:
        found = files_with(home, [*secrets.values(), taken, run_id], without=private_files(stack))
    finally:
        planted.unlink()
    # The search sees what it should: logs of servers and tasks, Kafka's messages, objects of each bucket.
    seen = {"/".join(path.parts[:n]) for path, text in found if text in (taken, run_id) for n in (2, 3, 4)}
    places = {"logs/router.log", "airflow/logs", "kafka/data", "minio/data", "minio/data/bronze", "postgres/pg_wal"}
    assert places <= seen
    names = {value: name for name, value in secrets.items()}
    leaks = {(path, names[text]) for path, text in found if text in names and not path.is_relative_to(MINIO_USERS)}
    assert leaks == {(planted.relative_to(home), "ledger_password")}


def test_files_that_have_passwords_are_their_owner_s_alone(stack: Stack, secrets: dict[str, str]) -> None:
    assert (stack.settings.home / MINIO_USERS.parts[0]).stat().st_mode & 0o777 == 0o700
    for path in private_files(stack):
        assert path.stat().st_mode & 0o777 == 0o600, path
        assert any(value in path.read_text() for value in secrets.values()), path
    assert token_file(stack.settings).stat().st_mode & 0o777 == 0o600


def test_files_beside_the_home_folder_have_no_password(stack: Stack, secrets: dict[str, str], taken: str) -> None:
    home = stack.settings.home
    # Those of tests are the homes of other servers.
    others = Path(tempfile.gettempdir()).glob("sluice-test-*")
    beside = {*Path(tempfile.gettempdir()).glob("sluice-*")} - {home, *others}
    folders = [supervisor.run_folder(stack.settings), *beside]
    for folder in folders:
        if folder.is_dir():
            assert files_with(folder, secrets.values(), without=private_files(stack)) == set()


def test_no_process_has_a_password_on_its_command_line(stack: Stack, secrets: dict[str, str], taken: str) -> None:
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    assert any(str(connect_properties(stack.settings)) in line for line in lines)
    assert not [name for name, value in secrets.items() if any(value in line for line in lines)]


def airflow_pages(admin: httpx.Client) -> dict[str, str]:
    """What Airflow's API and pages tell an admin: path -> text."""
    pages: dict[str, str] = {}

    def get(path: str, **params: Any) -> Any:
        answer = admin.get(path, params=params)
        assert answer.status_code in (200, 403, 404), (path, answer.text)
        pages[f"{path} {params}"] = answer.text
        return answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}

    for path in (
        *("connections", "variables", "pools", "config", "providers", "plugins", "importErrors", "eventLogs"),
        *("dagWarnings", "jobs", "assets", "monitor/health", "version"),
    ):
        get(f"/api/v2/{path}")
    get("/api/v2/config", section="database")
    get("/api/v2/config/section/core/option/fernet_key")
    get("/api/v2/connections/sluice_kafka")
    get("/api/v2/dags/~/dagRuns/~/taskInstances/~/xcomEntries", limit=100)
    for dag in get("/api/v2/dags")["dags"]:
        name = dag["dag_id"]
        get(f"/api/v2/dags/{name}/details")
        get(f"/api/v2/dagSources/{name}")
        runs = f"/api/v2/dags/{name}/dagRuns"
        for run in get(runs, limit=5, order_by="-start_date")["dag_runs"]:
            tasks = f"{runs}/{run['dag_run_id']}/taskInstances"
            # With `rendered_fields`: the rendered templates.
            for task in get(tasks)["task_instances"]:
                one = f"{tasks}/{task['task_id']}"
                get(f"{one}/logs/{max(task['try_number'], 1)}")
                for entry in get(f"{one}/xcomEntries")["xcom_entries"]:
                    get(f"{one}/xcomEntries/{entry['key']}")
    return pages


def test_airflow_shows_no_password_on_any_page_of_runs_tasks_logs_xcoms_and_connections(
    stack: Stack, admin: httpx.Client, secrets: dict[str, str], taken: str, run_id: str
) -> None:
    planted = uuid.uuid4().hex
    name = f"planted_{taken}"
    extra = json.dumps({"sasl.username": taken, "sasl.password": planted})
    body = {"connection_id": name, "conn_type": "kafka", "login": taken, "password": planted, "extra": extra}
    assert admin.post("/api/v2/connections", json=body).status_code == 201
    try:
        pages = airflow_pages(admin)
    finally:
        assert admin.delete(f"/api/v2/connections/{name}").status_code == 204
    # The search sees what it should: the connection but for its password, confs, logs and rendered fields.
    with_name = {path for path, text in pages.items() if taken in text}
    assert any(path.startswith("/api/v2/connections ") for path in with_name)
    assert any("dagRuns {" in path for path in with_name)
    assert any("/logs/" in path and run_id in text for path, text in pages.items())
    assert any('"rendered_fields"' in text for text in pages.values())
    held = {"planted": planted} | secrets
    assert not [(path, secret) for path, text in pages.items() for secret, value in held.items() if value in text]


def spark_pages(stack: Stack) -> dict[str, str]:
    """What the pages and REST addresses of Spark's master, worker and Connect server tell: address -> text."""
    ports = stack.settings.ports
    pages = {}
    applications = f"http://{HOST}:{ports.spark_connect_ui}/api/v1/applications"
    application = httpx.get(applications, trust_env=False, timeout=60).json()[0]["id"]
    for url in (
        *(
            f"http://{HOST}:{port}{path}"
            for port in (ports.spark_master_ui, ports.spark_worker_ui)
            for path in ("/", "/json/")
        ),
        *(
            f"http://{HOST}:{ports.spark_connect_ui}/{page}/"
            for page in ("environment", "jobs", "stages", "storage", "executors", "SQL", "connect")
        ),
        *(f"{applications}/{application}/{page}" for page in ("environment", "jobs", "allexecutors", "sql?length=200")),
        f"http://{HOST}:{ports.spark_worker_ui}/logPage/?appId={application}&executorId=0&logType=stderr",
        f"http://{HOST}:{ports.spark_worker_ui}/logPage/?appId={application}&executorId=0&logType=stdout",
    ):
        answer = httpx.get(url, trust_env=False, follow_redirects=True, timeout=60)
        assert answer.status_code == 200, url
        pages[url] = answer.text
    return pages


def test_spark_shows_no_password_on_its_pages(stack: Stack, secrets: dict[str, str], taken: str) -> None:
    pages = spark_pages(stack)
    environments = [text for url, text in pages.items() if "environment" in url]
    # The search sees what it should: the property that holds the catalog's password is there, and hidden.
    assert len(environments) == 2
    assert all("jdbc.password" in text and "redacted" in text for text in environments)
    assert not [(url, name) for url, text in pages.items() for name, value in secrets.items() if value in text]


def test_metrics_and_status_have_no_password(stack: Stack, secrets: dict[str, str], taken: str) -> None:
    ports = stack.settings.ports
    texts = {
        "router": httpx.get(f"http://{HOST}:{ports.router_metrics}/metrics", trust_env=False, timeout=60).text,
        **{
            command: stack.run(*command.split()).stdout
            for command in (
                "status --json",
                "doctor --json",
                "topics --json",
                f"why bronze/nyc_yellow/{taken}/bad.parquet",
            )
        },
    }
    assert "sluice_router_events" in texts["router"]
    assert [place for place, text in texts.items() if not text] == []
    assert not [(place, name) for place, text in texts.items() for name, value in secrets.items() if value in text]
