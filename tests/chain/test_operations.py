"""Every command of two pages works, with what it names put in place of the names that the pages made up."""

from __future__ import annotations

import shlex
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from consumers.broker import Producer
from consumers.ledger import Ledger
from consumers.topics import BRONZE_EVENTS
from contracts.settings import PROJECT
from contracts.states import FileState, Reason
from ingest.generator import generate_month
from sluice.files import wait_for_end
from tests.chain.conftest import WAIT_SECONDS, Drop, MakeMonth, wait_until
from tests.chain.test_references import write_zones
from tests.conftest import Stack
from tests.documents import resolve, shell_lines, sluice_commands

PAGES = (PROJECT / "docs" / "operations.md", PROJECT / "docs" / "troubleshooting.md")
COMMANDS = list(dict.fromkeys(command for page in PAGES for command in sluice_commands(page)))
MADE_UP = {
    "bronze/nyc_yellow/a.parquet": "file",
    "bronze/<key>": "file",
    "2026-01-01": "before",
    "2fd4751e5eb5": "batch",
    "3862954202917998577": "snapshot",
    "17": "letter",
    "taxi_zone_lookup.csv": "zones",
    "2023-01..2024-12": "published",
    "2014-01..2024-12": "months",
    "/data/green": "folder",
    "profile.html": "page",
}
"""A word of the pages -> what stands for it among the things that the test made."""
AS_IT_STANDS = {
    "nyc_yellow",
    "nyc_green",
    "taxi_zones",
    "silver",
    "200",
    "running",
    "received",
    "spark-connect",
    "spark-worker",
    "router",
    "airflow-triggerer",
    "kafka",
    "minio",
    "postgres",
    "unknown_dataset",
    "select _reason, count(*) from silver.nyc_yellow_rejects group by all",
}
ONLY_HELP = {"sluice why", "sluice drop", "sluice replay", "sluice down"}
"""Not run: the first three are named without a file, and the last would end the stack that the tests share."""

MONTH = 2025, 11


@pytest.fixture(scope="module")
def made(stack: Stack, put: Drop, month: MakeMonth, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A file in gold with its batch and snapshot, and dead letters: one of an unknown dataset, one that is no event."""
    name = uuid.uuid4().hex[:10]
    before = datetime.now(UTC)
    story = put(f"nyc_yellow/{name}/a_2025-11.parquet", month(60, seed=43))
    assert story.state is FileState.DONE
    assert put(f"{name}/a.parquet", b"of a dataset that nobody knows").reason is Reason.UNKNOWN_DATASET
    snapshot = str(story.layers[0].snapshot_id)
    # A batch may hold files of other tests too.
    (batch,) = {source["batch_id"] for source in stack.json("why", "--snapshot", snapshot)}
    folder = tmp_path_factory.mktemp("green")
    generate_month(folder / f"{name}_2043-03.parquet", 2043, 3, 60, 1, "nyc_green")
    generate_month(stack.published / "yellow_tripdata_2043-01.parquet", 2043, 1, 60, 1)
    return {
        "file": f"bronze/{story.key}",
        "before": before.strftime("%Y-%m-%dT%H:%M:%S"),
        "batch": batch,
        "snapshot": snapshot,
        "letter": _dead_letter(stack, f"bronze/{name}"),
        "zones": str(write_zones(tmp_path_factory.mktemp("zones"), {})),
        "published": "2043-01",
        "months": "2043-03",
        "folder": str(folder),
        "page": str(folder / "profile.html"),
    }


def _dead_letter(stack: Stack, key: str) -> str:
    """The id of a new dead letter: a message of that key which is no event."""
    producer = Producer(stack.settings.kafka_login("admin"))
    producer.send(BRONZE_EVENTS, key, b"no event")
    producer.flush()
    producer.close()

    def found() -> list[dict[str, Any]]:
        return [letter for letter in stack.json("dlq", "list", "--reason", "bad_event") if letter["key"] == key]

    wait_until(lambda: bool(found()), f"a dead letter of {key}")
    return str(found()[0]["id"])


def test_pages_hold_only_commands_that_the_tests_know() -> None:
    assert COMMANDS
    # Those of docker are tests/compose/test_documents.py's.
    lines = (line for page in PAGES for line in shell_lines(page))
    assert [line for line in lines if not line.startswith(("sluice ", "docker "))] == []
    for command in COMMANDS:
        _, words = resolve(command)
        unknown = {word for word in words if not word.startswith("-")} - set(MADE_UP) - AS_IT_STANDS
        assert unknown == set(), f"{command}: say in this file what stands for them"
    held = {word for command in COMMANDS for word in shlex.split(command)}
    assert set(MADE_UP) | AS_IT_STANDS <= held, "the pages do not hold these any more"


@pytest.mark.stack
@pytest.mark.alone
@pytest.mark.every_file
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_pages_works(stack: Stack, ledger: Ledger, made: dict[str, str], command: str) -> None:
    words = [made[MADE_UP[word]] if word in MADE_UP else word for word in shlex.split(command)[1:]]
    done = stack.run(*words, *(["--help"] if command in ONLY_HELP else []))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stdout + done.stderr
    # What it set going ends well, before the next command and the next test.
    key = made["file"].removeprefix("bronze/")
    story = wait_for_end(lambda: ledger.story("bronze", key), made["file"], 0, WAIT_SECONDS)
    assert story.state is FileState.DONE
