"""What the tests of the whole chain share: files to drop, and a client that is not ours."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from consumers.ledger import Ledger, open_ledger
from contracts.errors import WaitTimedOut
from contracts.story import FileStory
from ingest.generator import generate_month
from sluice.files import wait_for_end
from sluice.query import run_query
from tests.conftest import Stack, tails

WAIT_SECONDS = 420.0


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds; what that is is told when it does not within `WAIT_SECONDS`."""
    limit = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < limit, what
        time.sleep(0.2)


@pytest.fixture(scope="session")
def ledger(stack: Stack) -> Iterator[Ledger]:
    """The stack's ledger."""
    with open_ledger(stack.settings) as found:
        yield found


@pytest.fixture(scope="session")
def s3(stack: Stack) -> Any:
    """boto3, signed in as the ingest user: a client that knows nothing of Sluice."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://{stack.settings.s3_endpoint}",
        aws_access_key_id=stack.settings.ingest_access_key,
        aws_secret_access_key=stack.settings.ingest_secret_key.get_secret_value(),
        region_name=stack.settings.s3_region,
    )


@pytest.fixture(scope="session")
def owner(stack: Stack) -> Any:
    """boto3 as the store's owner, who may delete."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://{stack.settings.s3_endpoint}",
        aws_access_key_id=stack.settings.minio_root_user,
        aws_secret_access_key=stack.settings.minio_root_password.get_secret_value(),
        region_name=stack.settings.s3_region,
    )


@pytest.fixture
def unique() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex[:10]


def month_of(year: int, number: int, rows: int, seed: int = 5) -> bytes:
    """The bytes of a generated month of the calendar."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "month.parquet"
        generate_month(path, year, number, rows, seed)
        return path.read_bytes()


MakeMonth = Callable[..., bytes]


@pytest.fixture(scope="module")
def month(request: pytest.FixtureRequest) -> MakeMonth:
    """Make the bytes of a generated month: `month(rows, seed)`.

    It is January of 2025, or what the module's `MONTH` says: with each file its month's aggregate is made anew, from
    all files of that month.
    """
    year, number = getattr(request.module, "MONTH", (2025, 1))

    def make(rows: int = 500, seed: int = 1) -> bytes:
        return month_of(year, number, rows, seed)

    return make


Drop = Callable[..., FileStory]
DropAll = Callable[[Mapping[str, bytes]], dict[str, FileStory]]


@pytest.fixture(scope="session")
def put_all(stack: Stack, s3: Any, ledger: Ledger) -> DropAll:
    """Put files with boto3 at once, and wait until all have ended: `put_all({key: body})` gives key to story."""

    def drop(key: str, body: bytes) -> Callable[[], FileStory]:
        before = ledger.story("bronze", key)
        etag = s3.put_object(Bucket="bronze", Key=key, Body=body)["ETag"].strip('"')
        known = len(before.timeline) if before is not None and before.etag == etag else 0
        return lambda: wait_for_end(lambda: ledger.story("bronze", key, etag), f"bronze/{key}", known, WAIT_SECONDS)

    def drop_all(bodies: Mapping[str, bytes]) -> dict[str, FileStory]:
        with ThreadPoolExecutor(8) as pool:
            ends = dict(zip(bodies, pool.map(drop, bodies.keys(), bodies.values()), strict=True))
        try:
            return {key: end() for key, end in ends.items()}
        except WaitTimedOut as error:
            raise AssertionError(f"{error}\n{_last_lines(stack)}") from error

    return drop_all


@pytest.fixture(scope="session")
def put(put_all: DropAll) -> Drop:
    """Put a file with boto3, and wait until it has ended: `put(key, body)` gives its story."""
    return lambda key, body: put_all({key: body})[key]


def _last_lines(stack: Stack) -> str:
    """What Airflow's tasks logged last, and the servers: the place where a file got stuck."""
    tasks = sorted((stack.settings.home / "airflow" / "logs").rglob("*.log"), key=lambda path: path.stat().st_mtime)
    lines = []
    for path in tasks[-6:]:
        lines += [
            f"--- {path.parent.parent.parent.name} {path.parent.parent.name}",
            *path.read_text("utf-8", errors="replace").splitlines()[-5:],
        ]
    return "\n".join([*(line[:400] for line in lines), tails(stack.settings.home)])


Query = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="session")
def query(stack: Stack) -> Query:
    """Run SQL over silver and gold as `sluice sql` does."""

    def run(statement: str) -> list[tuple[Any, ...]]:
        return run_query(stack.settings, statement)[1]

    return run


def sql_text(value: str) -> str:
    """A string literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def rows_in_file(path: Path) -> int:
    """Rows that a parquet file says it has."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)
