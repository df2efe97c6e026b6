"""Jobs as applications of their own on the stack's cluster: started by hand, or by a contract that says `submit`."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumers.ledger import Ledger
from contracts.settings import HOST, PROJECT
from contracts.states import FileState
from contracts.story import FileStory
from tests.chain.accounting import assert_accounted
from tests.chain.conftest import Drop, Query, month_of, wait_until
from tests.conftest import Stack, write_variant
from tests.servers import Listening, listening

pytestmark = [pytest.mark.stack, pytest.mark.beside, pytest.mark.timeout(900)]


def test_jobs_run_by_hand_with_spark_submit_listen_to_nobody_else_and_the_cascade_follows(
    stack: Stack, put: Drop, query: Query, ledger: Ledger
) -> None:
    dropped = put("nyc_yellow/yellow_tripdata_2019-07.parquet", month_of(2019, 7, 600))

    def told() -> FileStory:
        story = ledger.story(dropped.bucket, dropped.key, dropped.etag)
        assert story is not None
        return story

    gold = told().layers[1]
    before = listening(stack.settings.home)
    submit = Path(sys.executable).with_name("spark-submit")
    month = ("--year", "2019", "--month", "7")  # without a dataset: it is found by the file
    sockets: set[Listening] = set()
    for job in ("data_preprocessing_job.py", "feature_engineering_job.py"):
        with ThreadPoolExecutor() as pool:
            running = pool.submit(
                subprocess.run,
                [str(submit), str(PROJECT / "spark_jobs" / job), *month],
                env=stack.environment | {"PATH": f"{submit.parent}:{os.environ['PATH']}"},
                capture_output=True, text=True, timeout=600, check=False,
            )  # fmt: skip
            # A driver lives for many seconds, and a look goes over all processes.
            while wait([running], timeout=3).not_done:
                sockets |= listening(stack.settings.home) - before
        done = running.result()
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        assert "yellow_tripdata_2019-07.parquet" in done.stdout
        # The first one's marker has the cascade run gold, and the second one takes the same file there.
        wait_until(lambda: told().layers[1] != gold, "the cascade's own run of gold is over")
    assert "java" in {socket.process for socket in sockets}, "the drivers were seen"
    assert [socket for socket in sockets if not socket.on_loopback] == []
    assert_accounted(query, (told(), 600))


def test_contract_that_says_submit_takes_its_files_by_applications_of_their_own(
    stack: Stack, put: Drop, query: Query, unique: str, tmp_path: Path
) -> None:
    dataset = f"zones_{unique}"
    write_variant(stack.settings.contracts_dir, dataset, {"launch": "submit"}, like="taxi_zones")
    rows = [{"LocationID": "1", "Borough": "EWR", "Zone": "Newark Airport", "service_zone": "EWR"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "zones.parquet")
    story = put(f"{dataset}/zones.parquet", (tmp_path / "zones.parquet").read_bytes())
    assert story.state is FileState.DONE, story
    assert query(f"select zone from silver.{dataset}") == [("Newark Airport",)]
    page = f"http://{HOST}:{stack.settings.ports.spark_master_ui}/json/"
    master = httpx.get(page, timeout=60).raise_for_status().json()
    assert f"sluice-{story.layers[0].run_id}" in {application["name"] for application in master["completedapps"]}
