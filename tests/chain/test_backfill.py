"""`sluice backfill`: interrupted, killed, gone on with, and repeated."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from consumers.ledger import Ledger
from ingest.generator import generate_month
from tests.conftest import SLUICE, Stack

pytestmark = [pytest.mark.stack, pytest.mark.beside, pytest.mark.timeout(900)]

MONTHS = [(2041, month) for month in range(1, 7)]
ASKED = "2041-01..2041-06"
ROWS = 400


@pytest.fixture
def folder(tmp_path: Path, unique: str) -> Path:
    """Six months of green trips."""
    for year, month in MONTHS:
        generate_month(tmp_path / f"{unique}_{year}-{month:02d}.parquet", year, month, ROWS, month, "nyc_green")
    return tmp_path


def test_backfill_that_was_stopped_and_killed_goes_on_and_loads_each_month_once_and_a_corrected_one_again(
    stack: Stack, ledger: Ledger, folder: Path, unique: str
) -> None:
    first = stopped_after(stack, ledger, folder, unique, 1, signal.SIGINT)
    assert first.returncode == 130
    states = json.loads(first.stdout)["states"]
    assert states["done"] >= 1
    assert states["not begun"] >= 1
    assert stopped_after(stack, ledger, folder, unique, 2, signal.SIGKILL).returncode == -signal.SIGKILL

    done = stack.json("backfill", "nyc_green", ASKED, "--source", str(folder))
    assert done["states"] == {"done": len(MONTHS)}
    assert 0 < done["put"] < len(MONTHS)
    assert done["rows_in"] == len(MONTHS) * ROWS == done["rows_accepted"] + done["rows_rejected"]
    assert sum(done["reasons"].values()) >= done["rows_rejected"] > 0
    for year, month in MONTHS:
        story = ledger.story("bronze", f"nyc_green/{unique}_{year}-{month:02d}.parquet")
        assert story is not None
        assert [passage.hop for passage in story.timeline].count("put") == 1

    again = stack.json("backfill", "nyc_green", ASKED, "--source", str(folder))
    assert again | {"seconds": 0} == done | {
        "seconds": 0,
        "put": 0,
        "files": [f | {"put": False} for f in done["files"]],
    }

    generate_month(folder / f"{unique}_2041-02.parquet", 2041, 2, 300, 99, "nyc_green")
    corrected = stack.json("backfill", "nyc_green", "2041-01..2041-02", "--source", str(folder))
    assert [(file["put"], file["rows_in"]) for file in corrected["files"]] == [(False, ROWS), (True, 300)]


def test_published_months_arrive_and_what_is_missing_or_bad_is_told_and_stops_no_other(
    stack: Stack, folder: Path, unique: str
) -> None:
    for month in (7, 9):
        generate_month(stack.published / f"yellow_tripdata_2041-{month:02d}.parquet", 2041, month, ROWS, month)
    found = stack.json("backfill", "nyc_yellow", "2041-07..2041-09", "--source", "tlc", code=1)
    assert [file["state"] for file in found["files"]] == ["done", "failed", "done"]
    assert "not published" in found["files"][1]["detail"]
    (folder / f"{unique}_2041-03.parquet").write_text("no parquet")
    (folder / f"{unique}_2041-04.parquet").unlink()
    found = stack.json("backfill", "nyc_green", "2041-02..2041-04", "--source", str(folder), code=4)
    assert [file["state"] for file in found["files"]] == ["done", "quarantined", "missing"]


def stopped_after(
    stack: Stack, ledger: Ledger, folder: Path, unique: str, done: int, how: signal.Signals
) -> subprocess.CompletedProcess[str]:
    """Run the backfill, one file at a time, until so many months are done, and then send a signal."""
    command = [str(SLUICE), "backfill", "nyc_green", ASKED, "--source", str(folder), "--parallel", "1", "--json"]
    # As from a terminal: what runs in the background ignores Ctrl-C, and so do its children.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, env=stack.environment, stdout=subprocess.PIPE, text=True, preexec_fn=heeding)
    limit = time.monotonic() + 300

    def ended(year: int, month: int) -> bool:
        story: Any = ledger.story("bronze", f"nyc_green/{unique}_{year}-{month:02d}.parquet")
        return story is not None and story.state == "done"

    while sum(ended(*month) for month in MONTHS) < done:
        assert process.poll() is None, "it ended before it was stopped"
        assert time.monotonic() < limit
        time.sleep(0.05)
    process.send_signal(how)
    output, _ = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, output)
