"""A stack of containers for these tests alone: a project, ports, secrets and volumes of its own, gone at the end.

They run where `SLUICE_TEST_COMPOSE` is set, as `make test-compose` does: images have to be built first, which takes
minutes. `SLUICE_TEST_COMPOSE_ENV` names an env file with other base images; `SLUICE_TEST_COMPOSE_KEEP` keeps the stack.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest

from consumers.ledger import open_ledger
from contracts.settings import PROJECT, Settings
from contracts.states import FileState
from contracts.story import FileStory
from sluice.containers import PARTS
from sluice.files import wait_for_end
from sluice.query import run_query
from tests.servers import free_port_block

PROJECT_NAME = "sluice-test"
PORTS = (
    "MINIO_PORT", "MINIO_CONSOLE_PORT", "KAFKA_PORT", "SPARK_MASTER_PORT", "SPARK_MASTER_UI_PORT",
    "SPARK_WORKER_UI_PORT", "SPARK_CONNECT_PORT", "SPARK_CONNECT_UI_PORT", "AIRFLOW_PORT", "KAFKA_UI_PORT",
)  # fmt: skip
ASK_FOR_ADDRESSES = """
import json
from sluice.compose_stack import environment
print(json.dumps(environment()))
"""

NUMBERS: list[str] = []
"""What the run measured, printed at its end."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was measured, with where the base images came from."""
    if NUMBERS:
        stand_ins = os.environ.get("SLUICE_TEST_COMPOSE_ENV")
        terminalreporter.section("the stack in containers")
        for line in (*NUMBERS, f"base images: {'stand-ins' if stand_ins else 'the public ones'}"):
            terminalreporter.write_line(line)


@dataclass
class Containers:
    """A running stack of containers, and how its tests speak to it."""

    environment: dict[str, str]

    def run(self, *command: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository's root with the stack's environment."""
        done = subprocess.run(
            command, cwd=PROJECT, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"[-6000:]
            )
        return done

    def compose(self, *arguments: str, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """`docker compose …` of this project."""
        return self.run("docker", "compose", *arguments, check=check, timeout=timeout)

    def sluice(self, *arguments: str, codes: Sequence[int] = (0,), timeout: float = 900) -> Any:
        """`sluice --stack compose … --json`; what it printed, decoded."""
        done = self.run(
            str(Path(sys.executable).with_name("sluice")), "--stack", "compose", *arguments, "--json",
            check=False, timeout=timeout,
        )  # fmt: skip
        assert done.returncode in codes, (
            f"sluice {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return json.loads(done.stdout)

    def ids(self, service: str) -> list[str]:
        """Ids of a service's containers that run."""
        return self.compose("ps", "--quiet", service).stdout.split()

    @property
    def settings(self) -> Settings:
        """The settings by which the host reaches the stack, as `sluice --stack compose` finds them.

        Found anew each time: Postgres is at its container's address, which may be another after a restart.
        """
        # In a process of its own, since the tests' own environment is not the stack's, and threads share it.
        found = json.loads(self.run(sys.executable, "-c", ASK_FOR_ADDRESSES).stdout)
        secrets = found.pop("SLUICE_SECRETS_FILE")
        at = {name.removeprefix("SLUICE_").lower(): value for name, value in found.items()}
        return Settings(_env_file=secrets, stack="compose", **at)  # type: ignore[call-arg]

    @cached_property
    def published(self) -> Settings:
        """The same, found once: for who needs nothing but ports of this machine, which stay."""
        return self.settings

    def put(self, key: str, path: Path) -> None:
        """Put a file into bronze with a client that is not ours."""
        self.s3().put_object(Bucket="bronze", Key=key, Body=path.read_bytes())

    def wait_for(self, key: str, seconds: float = 400) -> FileStory:
        """Wait until the newest version of a file has ended; its story."""
        with open_ledger(self.settings) as ledger:
            return wait_for_end(lambda: ledger.story("bronze", key), f"bronze/{key}", 0, seconds)

    def variables(self) -> dict[str, str]:
        """What `sluice env` prints."""
        return dict(self.sluice("env"))

    def s3(self) -> Any:
        """boto3, signed in as the ingest user."""
        settings = self.published
        return boto3.client(
            "s3", endpoint_url=settings.s3_url, region_name=settings.s3_region,
            aws_access_key_id=settings.ingest_access_key,
            aws_secret_access_key=settings.ingest_secret_key.get_secret_value(),
            verify=str(settings.ca_file) if settings.ca_file else None,
        )  # fmt: skip

    @contextmanager
    def edited(self, path: str, change: Callable[[str], str]) -> Iterator[None]:
        """Have a mounted file as a person's editor leaves it, and at the end as it was.

        Args:
            path: below the folder that is mounted, which for these tests is a copy.
        """
        file = Path(self.environment["CODE_FOLDER"]) / path
        before = file.read_text("utf-8")
        after = change(before)
        assert after != before, f"the change of {path} changes nothing"
        try:
            _replace(file, after)
            yield
        finally:
            _replace(file, before)

    def wait_healthy(self, seconds: float = 240) -> None:
        """Wait until every lasting container is healthy."""
        limit = time.monotonic() + seconds
        while True:
            found = self.sluice("status", codes=(0, 3))
            if found["ready"]:
                return
            if time.monotonic() > limit:
                bad = [item for item in found["services"] if item["state"] != "running"]
                raise AssertionError(f"not healthy after {seconds} s: {bad}")
            time.sleep(1)


def _replace(file: Path, text: str) -> None:
    """Beside and renamed, so that no part reads half of it."""
    draft = file.with_name(f".{file.name}.new")
    draft.write_text(text, "utf-8")
    draft.replace(file)


def copy_of_code(folder: Path) -> Path:
    """The folders that containers mount, for tests to change."""
    for name in ("airflow/dags", "spark_jobs", "contracts"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def unique_key() -> str:
    """An object key that no other test uses."""
    return f"nyc_yellow/{uuid.uuid4().hex[:8]}_2025-01.parquet"


def accounted(containers: Containers, key: str, rows: int) -> FileStory:
    """Wait for the file's end: every row of it is in silver and gold, or in rejects, and nowhere twice."""
    story = containers.wait_for(key)
    tables = ("silver.nyc_yellow", "silver.nyc_yellow_rejects", "gold.nyc_yellow_features")
    counts = (f"(select count(*) from {table} where _source_key = '{key}')" for table in tables)
    silver, rejects, features = run_query(containers.settings, f"select {', '.join(counts)}")[1][0]
    assert story.state is FileState.DONE, story
    assert (silver + rejects, features) == (rows, silver)
    return story


def _environment(folder: Path, project: str) -> dict[str, str]:
    base = free_port_block(len(PORTS))
    ports = {name: str(base + place) for place, name in enumerate(PORTS)}
    secrets = folder / "secrets"
    for part in PARTS:
        (secrets / part).mkdir(parents=True, exist_ok=True)
    extra: dict[str, str] = {}
    if path := os.environ.get("SLUICE_TEST_COMPOSE_ENV"):
        lines = Path(path).read_text("utf-8").splitlines()
        extra = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    return {
        **inherited,
        **extra,
        **ports,
        "COMPOSE_PROJECT_NAME": project,
        "SECRETS_FOLDER": str(secrets),
        "SLUICE_VERSION": "test",
        "SLUICE_HOME": str(folder / "home"),
    }


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """The stack: built, started, healthy."""
    folder = tmp_path_factory.mktemp("compose")
    with running(folder, PROJECT_NAME, CODE_FOLDER=str(copy_of_code(folder / "code"))) as stack:
        yield stack


@contextmanager
def running(
    folder: Path,
    project: str,
    beside: Callable[[Containers], AbstractContextManager[None]] | None = None,
    **variables: str,
) -> Iterator[Containers]:
    """A stack: built, started, healthy, and gone at the end. Skips the test where there can be none.

    Args:
        folder: for the secrets.
        beside: entered with the built stack before it starts, and left before it goes.
        variables: what else is in the environment of Compose.
    """
    if not os.environ.get("SLUICE_TEST_COMPOSE"):
        pytest.skip("needs images that are built for it; run: make test-compose")
    stack = Containers(_environment(folder, project) | variables)
    if stack.compose("version", check=False).returncode or stack.run("docker", "info", check=False).returncode:
        pytest.skip("there is no Docker engine with `docker compose` here")
    stack.compose("down", "--volumes", "--remove-orphans")
    try:
        with ExitStack() as others:
            _step(stack, "build", "build")
            if beside is not None:
                others.enter_context(beside(stack))
            _step(stack, "start", "up", "--detach", "--wait", "--wait-timeout", "1200")
            yield stack
    finally:
        if not os.environ.get("SLUICE_TEST_COMPOSE_KEEP"):
            stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "20", check=False)


def _step(stack: Containers, name: str, *command: str) -> None:
    begun = time.monotonic()
    done = stack.compose(*command, check=False, timeout=2400)
    if done.returncode and name == "build":
        # A package index that did not answer once says nothing of the files here.
        done = stack.compose(*command, check=False, timeout=2400)
    project = stack.environment["COMPOSE_PROJECT_NAME"]
    NUMBERS.append(f"{project}: docker compose {name} took {time.monotonic() - begun:.0f} s")
    if done.returncode:
        told = stack.compose("ps", "--all").stdout + stack.compose("logs", "--tail", "30").stdout
        raise AssertionError(f"docker compose {name} failed\n{done.stderr[-3000:]}\n{told[-8000:]}")
