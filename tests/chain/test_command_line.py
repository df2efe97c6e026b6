"""The program `sluice`, as users and their scripts call it."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.chain.conftest import MakeMonth, wait_until
from tests.conftest import Stack
from tests.servers import listening

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
MONTH = 2025, 8


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, month: MakeMonth) -> Path:
    """A good file, whether a test has dropped it before or not."""
    path = tmp_path_factory.mktemp("file") / f"{uuid.uuid4().hex[:10]}_2025-08.parquet"
    path.write_bytes(month(60, seed=31))
    return path


def ready(stack: Stack) -> list[dict[str, Any]]:
    """The services once `sluice status` says ready: one look gives a server 2 s, which a busy machine may exceed."""
    status: dict[str, Any] = {}

    def look() -> bool:
        status.update(stack.json("status"))
        return status["ready"] is True

    wait_until(look, "the stack is ready")
    return list(status["services"])


def test_status_names_every_service_and_says_ready(stack: Stack) -> None:
    services = ready(stack)
    assert {"name", "state", "pid", "url"} <= set(services[0])
    assert {"minio", "kafka", "postgres", "spark-master", "router", "airflow-triggerer"} <= {
        service["name"] for service in services
    }


def test_drop_with_wait_answers_with_the_whole_story(stack: Stack, file: Path) -> None:
    story = stack.json("drop", str(file), "--dataset", "nyc_yellow", "--wait")
    assert story["bucket"] == "bronze"
    assert story["key"] == f"nyc_yellow/{file.name}"
    assert story["dataset"] == "nyc_yellow"
    assert story["state"] == "done"
    assert story["reason"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", story["timeline"][0]["at"])
    assert [layer["layer"] for layer in story["layers"]] == ["silver", "gold"]
    assert story["layers"][0]["table"] == "silver.nyc_yellow"
    assert {"dag_id", "run_id", "snapshot_id", "rows_in", "rows_accepted", "rows_rejected"} <= set(story["layers"][0])
    assert stack.json("why", f"bronze/nyc_yellow/{file.name}") == story


def test_dropping_the_same_file_again_with_wait_ends_at_once(stack: Stack, file: Path) -> None:
    first = stack.json("drop", str(file), "--dataset", "nyc_yellow", "--wait")
    again = stack.json("drop", str(file), "--dataset", "nyc_yellow", "--wait", timeout=60)
    assert again["layers"] == first["layers"]


def test_drop_of_a_bad_file_ends_with_exit_code_4(stack: Stack, tmp_path: Path, unique: str) -> None:
    path = tmp_path / f"{unique}.parquet"
    path.write_text("no parquet")
    story = stack.json("drop", str(path), "--dataset", "nyc_yellow", "--wait", code=4)
    assert (story["state"], story["reason"]) == ("quarantined", "not_parquet")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["drop", "/nowhere.parquet", "--dataset", "nyc_yellow"], id="no-such-file"),
        pytest.param(["drop", "pyproject.toml", "--dataset", "nyc_purple"], id="no-such-dataset"),
        pytest.param(["why", "silver/x"], id="not-a-bronze-key"),
        pytest.param(["why", "bronze/nyc_yellow/never-seen.parquet"], id="unknown-file"),
        pytest.param(["why"], id="no-key"),
        pytest.param(["sql", "selec 1"], id="no-sql"),
        pytest.param(["sql", "select * from silver.nothing"], id="no-such-table"),
        pytest.param(["logs", "nobody"], id="no-such-service"),
        pytest.param(["topics", "--topic", "nothing"], id="no-such-topic"),
        pytest.param(["frobnicate"], id="no-such-command"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_exit_code_2(stack: Stack, arguments: list[str]) -> None:
    done = stack.run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.strip()


def test_wait_that_runs_out_is_exit_code_5(stack: Stack, month: MakeMonth, tmp_path: Path, unique: str) -> None:
    file = tmp_path / f"{unique}_2025-08.parquet"
    file.write_bytes(month(61, seed=31))
    answer = stack.json("drop", str(file), "--dataset", "nyc_yellow", "--wait", "--timeout", "0", code=5)
    assert answer["error"] == "WaitTimedOut"
    stack.json("drop", str(file), "--dataset", "nyc_yellow", "--wait")


def test_commands_of_a_stack_that_is_not_running_end_with_exit_code_3(stack: Stack, tmp_path: Path) -> None:
    environment = stack.environment | {"SLUICE_HOME": str(tmp_path / "other"), "SLUICE_PORT_BASE": "20800"}
    other = Stack(stack.settings, environment, stack.published)
    for arguments in (["why", "bronze/x"], ["sql", "select 1"], ["topics"], ["status"], ["env"]):
        done = other.run(*arguments)
        assert done.returncode == 3, arguments
        assert "Traceback" not in done.stderr


def test_sql_gives_row_objects(stack: Stack) -> None:
    rows = stack.json("sql", "select 1 as one, 'x' as two")
    assert rows == [{"one": 1, "two": "x"}]
    count = stack.json("sql", "select count(*) as trips from gold.nyc_yellow_features")
    assert count[0]["trips"] >= 0


def test_topics_show_messages_and_lag(stack: Stack) -> None:
    topics = {item["topic"]: item for item in stack.json("topics")}
    assert {"lake.bronze.events", "lake.bronze.work", "lake.silver.events", "lake.silver.work", "lake.dlq"} <= set(
        topics
    )
    assert "sluice-router" in topics["lake.bronze.events"]["lag"]


def test_env_lets_boto3_drop_without_further_settings(stack: Stack, month: MakeMonth, unique: str) -> None:
    variables = stack.json("env")
    assert {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MC_HOST_sluice"} <= set(variables)
    client = boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_REGION"],
    )
    client.put_object(Bucket="bronze", Key=f"nyc_yellow/{unique}.parquet", Body=month(10, seed=32))


def test_env_prints_lines_that_a_shell_can_evaluate(stack: Stack) -> None:
    printed = stack.run("env").stdout
    done = subprocess.run(
        ["/bin/sh", "-c", f"{printed}\nprintenv AWS_ACCESS_KEY_ID"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == stack.settings.ingest_access_key


def test_logs_shows_the_last_lines_of_a_service(stack: Stack) -> None:
    answer = stack.json("logs", "router", "--lines", "3")
    assert answer["service"] == "router"
    assert 0 < len(answer["lines"]) <= 3


def test_list_of_files_can_be_narrowed_by_state(stack: Stack, file: Path) -> None:
    stack.json("drop", str(file), "--dataset", "nyc_yellow", "--wait")
    listed = stack.json("why", "--list", "--state", "done", "--dataset", "nyc_yellow")
    assert f"nyc_yellow/{file.name}" in {story["key"] for story in listed}
    assert {story["state"] for story in listed} == {"done"}


def test_secrets_file_is_readable_by_its_owner_alone(stack: Stack) -> None:
    path = stack.settings.home / "secrets.env"
    assert path.stat().st_mode & 0o777 == 0o600


def test_servers_listen_on_the_loopback_address_only(stack: Stack) -> None:
    sockets = listening(stack.settings.home)
    assert stack.settings.ports.minio in {socket.port for socket in sockets}
    assert [socket for socket in sockets if not socket.on_loopback] == []


def test_no_password_is_on_a_command_line(stack: Stack) -> None:
    import psutil

    secrets = [
        line.partition("=")[2] for line in (stack.settings.home / "secrets.env").read_text().splitlines() if line
    ]
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        assert not any(secret in line for secret in secrets), process.name()


def test_second_up_of_a_running_stack_is_quick_and_harmless(stack: Stack) -> None:
    pids = {service["name"]: service["pid"] for service in ready(stack)}
    answer = stack.json("up")
    assert {service["name"]: service["pid"] for service in answer["services"]} == pids
    assert {service["name"]: service["pid"] for service in ready(stack)} == pids


def test_doctor_finds_nothing_wrong_where_the_stack_runs(stack: Stack) -> None:
    answer = stack.json("doctor")
    assert answer["ok"] is True


def test_taken_port_is_one_line_with_the_remedy(stack: Stack, tmp_path: Path) -> None:
    base = stack.settings.port_base
    if base is None:
        pytest.skip("this stack has the usual ports, so their base cannot be taken")
    environment = stack.environment | {"SLUICE_HOME": str(tmp_path / "second"), "SLUICE_PORT_BASE": str(base)}
    done = Stack(stack.settings, environment, stack.published).run("up")
    assert done.returncode == 1
    assert f"port {base}" in done.stderr
    assert "SLUICE_PORT_BASE" in done.stderr
    assert "Traceback" not in done.stderr
    assert not os.path.exists(tmp_path / "second" / "postgres")  # noqa: PTH110
