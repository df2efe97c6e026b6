"""The stack in containers with compose/remote-spark.yaml: a Spark Connect server that is none of its own does the jobs.

That server is a container beside the stack, of the same image and with a start of its own: it does the work itself,
behind TLS of an authority of its own, and asks for a token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml

from contracts.settings import SECRETS_FILE, SPARK_BEHIND_TLS_PORT, Settings
from ingest.generator import generate_month
from spark_jobs.session import connect_server_conf
from tests.compose.conftest import Containers, accounted, running, unique_key
from tests.tls import make_certificates

pytestmark = [pytest.mark.xdist_group("compose"), pytest.mark.long, pytest.mark.timeout(3000)]

PROJECT_NAME = "sluice-test-remote"
NAME = "spark-elsewhere"
TOKEN = "token-for-tests-0815"
MOUNTED = "/etc/elsewhere"
NOT_THERE = ("spark.master", "spark.cores.max", "spark.driver.", "spark.ui.")
"""Properties that the other server has of its own, as docs/scaling.md says."""
START = f"""
import os, sys
from pathlib import Path
from sluice.tls_front import run
argv = ["spark-submit", "--master", "local[2]", "--driver-memory", "1g", "--properties-file", "{MOUNTED}/properties"]
argv += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
sys.exit(run(argv, os.environ, Path("{MOUNTED}/server.pem"), "0.0.0.0", 15002, {SPARK_BEHIND_TLS_PORT}))
"""


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """The stack without a Spark of its own, and the other server."""
    folder = tmp_path_factory.mktemp("remote")
    there = folder / "elsewhere"
    there.mkdir()
    made = make_certificates(there, NAME)
    (there / "server.pem").write_bytes(made.key.read_bytes() + made.certificate.read_bytes())
    # As docs/scaling.md has it for an authority that is not one of the world's.
    trust = {
        "environment": {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": f"{MOUNTED}.pem"},
        "volumes": [f"{made.authority}:{MOUNTED}.pem:ro"],
    }
    overlay = folder / "authority.yaml"
    overlay.write_text(yaml.safe_dump({"services": {"warmup": trust, "airflow-worker": trust}}), "utf-8")
    with running(
        folder,
        PROJECT_NAME,
        partial(elsewhere, there),
        COMPOSE_FILE=f"compose/compose.yaml:compose/remote-spark.yaml:{overlay}",
    ) as stack:
        yield stack


@contextmanager
def elsewhere(folder: Path, stack: Containers) -> Iterator[None]:
    """Start the other server, once the stack has networks, passwords and what holds data; and name it to the stack."""
    stack.compose("up", "--detach", "--wait", "postgres", "minio", "kafka")
    secrets = Path(stack.environment["SECRETS_FOLDER"]) / "operator" / SECRETS_FILE
    inside = {"minio_address": "minio:9000", "postgres_address": "postgres:5432"}
    settings = Settings(_env_file=secrets, listen="127.0.0.1", **inside)  # type: ignore[call-arg, arg-type]
    conf = {name: value for name, value in connect_server_conf(settings).items() if not name.startswith(NOT_THERE)}
    conf |= {
        "spark.connect.authenticate.token": TOKEN,
        "spark.connect.grpc.binding.port": str(SPARK_BEHIND_TLS_PORT),
    }
    (folder / "properties").write_text("".join(f"{name} {value}\n" for name, value in conf.items()), "utf-8")
    credentials = {
        "AWS_ACCESS_KEY_ID": settings.spark_access_key,
        "AWS_SECRET_ACCESS_KEY": settings.spark_secret_key.get_secret_value(),
        "AWS_REGION": settings.s3_region,
    }
    (folder / "credentials.env").write_text("".join(f"{name}={value}\n" for name, value in credentials.items()))
    with secrets.open("a", encoding="utf-8") as file:
        file.write(f"SLUICE_SPARK_REMOTE=sc://{NAME}:15002/;use_ssl=true;token={TOKEN}\n")
    stack.run("docker", "rm", "--force", NAME)
    stack.run(
        "docker", "run", "--detach", "--init", "--name", NAME, "--network", f"{PROJECT_NAME}_lake",
        "--env-file", str(folder / "credentials.env"), "--volume", f"{folder}:{MOUNTED}:ro",
        "--entrypoint", "python", f"sluice/spark:{stack.environment['SLUICE_VERSION']}", "-c", START,
    )  # fmt: skip
    try:
        stack.run("docker", "network", "connect", f"{PROJECT_NAME}_database", NAME)
        yield
    finally:
        # Networks that something is in cannot go.
        stack.run("docker", "rm", "--force", "--volumes", NAME)


def test_a_file_reaches_gold_by_the_other_server_and_no_spark_of_the_stack_s_runs(
    remote: Containers, tmp_path: Path
) -> None:
    path, key = tmp_path / "a_2025-01.parquet", unique_key()
    generate_month(path, 2025, 1, 300, 1)
    remote.put(key, path)
    accounted(remote, key, 300)
    services = set(remote.compose("ps", "--all", "--format", "{{.Service}}").stdout.split())
    assert "airflow-worker" in services
    assert not {service for service in services if service.startswith("spark-")}
    assert "Running Spark version" in remote.run("docker", "logs", NAME).stderr


def test_the_token_is_shown_nowhere(remote: Containers) -> None:
    ids = remote.compose("ps", "--all", "--quiet").stdout.split()
    places = {
        "inspect": remote.run("docker", "inspect", *ids).stdout,
        "logs": remote.compose("logs", "--no-color").stdout,
        "tasks": remote.compose(
            "exec", "-T", "airflow-worker", "sh", "-c", "find /var/lib/sluice/airflow/logs -type f -exec cat {} +"
        ).stdout,
        "env": json.dumps(remote.variables()),
        "status": json.dumps(remote.sluice("status")),
    }
    assert NAME in places["env"]
    assert not [place for place, text in places.items() if TOKEN in text]


def test_a_new_token_is_taken_by_the_next_task_without_a_restart(remote: Containers, tmp_path: Path) -> None:
    """As docs/scaling.md says; the other server starts again, as one of another token would."""
    secrets = Path(remote.environment["SECRETS_FOLDER"]) / "operator" / SECRETS_FILE
    path, key = tmp_path / "b_2025-01.parquet", unique_key()
    generate_month(path, 2025, 1, 310, 2)
    properties = Path(remote.environment["SECRETS_FOLDER"]).parent / "elsewhere" / "properties"
    for file in (secrets, properties):
        file.write_text(file.read_text("utf-8").replace(TOKEN, TOKEN[::-1]), "utf-8")
    remote.run("docker", "restart", NAME)
    remote.compose("run", "--rm", "init")
    remote.put(key, path)
    accounted(remote, key, 310)
