"""Seventeen years of two datasets by `sluice backfill`, stopped twice, while live files arrive, on the running stack.

`python benchmarks/years.py [--rows 200000] [--second nyc_green] [--second-rows 20000] [--every 20] [--until 2025-12]`
makes a month for every one that the TLC published, loads both datasets at once from folders, sends the backfill of
`nyc_yellow` a Ctrl-C and then a SIGKILL, and goes on with it. Meanwhile a file of 3,000 rows of `nyc_yellow` is dropped
every so many seconds. It prints one line of JSON: seconds, files, rows, rejected rows by reason, and the live files'
seconds to gold. Start the stack first: `sluice up`. The TLC has green trips since 2013-08 alone; a second dataset of
your own, whose contract is like that of `nyc_yellow`, gets the months of `nyc_yellow`.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from all_months import months
from put_to_gold import DATASET, SMALL_ROWS, measure

from consumers.ledger import open_ledger
from contracts.settings import Settings, load_settings
from ingest.eras import FIRST_MONTHS
from ingest.generator import generate_month
from ingest.store import store_for
from sluice.supervisor import require_running

SLUICE = Path(sys.executable).with_name("sluice")
STOP_AFTER = 90.0
"""Seconds of work before each of the two interruptions."""


def make(folder: Path, dataset: str, rows: int, until: tuple[int, int]) -> str:
    """Make a folder of months; the months as `sluice backfill` names them."""
    folder.mkdir()
    published = dataset if dataset in FIRST_MONTHS else DATASET
    mark = uuid.uuid4().hex[:6]
    made = list(months(published, until))
    for year, month in made:
        path = folder / f"{mark}_tripdata_{year}-{month:02d}.parquet"
        generate_month(path, year, month, rows, year * 12 + month, published)
    return f"{made[0][0]}-{made[0][1]:02d}..{made[-1][0]}-{made[-1][1]:02d}"


def start(dataset: str, span: str, folder: Path) -> subprocess.Popen[str]:
    """Begin, or go on with, a backfill."""
    command = [str(SLUICE), "backfill", dataset, span, "--source", str(folder), "--json"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A benchmark that runs in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def ended(backfill: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for its end, and give what it says."""
    out, errors = backfill.communicate()
    if not out:
        raise SystemExit(f"sluice backfill ended with {backfill.returncode}: {errors[-2000:]}")
    return dict(json.loads(out))


def live(settings: Settings, every: float, enough: threading.Event, found: list[float]) -> None:
    """Drop a small file every so many seconds, and note its seconds to gold."""
    with open_ledger(settings) as ledger, tempfile.TemporaryDirectory() as folder:
        store, number = store_for(settings, "ingest"), 0
        while not enough.wait(every):
            path = Path(folder) / f"yellow_tripdata_2025-{number % 12 + 1:02d}.parquet"
            generate_month(path, 2025, number % 12 + 1, SMALL_ROWS, number, DATASET)
            found.append(round(measure(store, ledger, path)[0]["gold"], 1))
            number += 1


def main() -> None:
    """Make, load with two interruptions, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="rows of each month of nyc_yellow")
    parser.add_argument("--second", default="nyc_green", help="the second dataset")
    parser.add_argument("--second-rows", type=int, default=20_000, help="rows of each of its months")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two live files")
    parser.add_argument("--until", default="2025-12")
    asked = parser.parse_args()
    settings = load_settings()
    require_running(settings)
    until = (int(asked.until[:4]), int(asked.until[5:]))
    with tempfile.TemporaryDirectory() as scratch:
        rows = {DATASET: asked.rows, asked.second: asked.second_rows}
        folders = {name: Path(scratch) / name for name in rows}
        spans = {name: make(folder, name, rows[name], until) for name, folder in folders.items()}
        enough, seconds = threading.Event(), list[float]()
        dropping = threading.Thread(target=live, args=(settings, asked.every, enough, seconds))
        dropping.start()
        began = time.monotonic()
        try:
            found = load(spans, folders, asked.second)
        finally:
            enough.set()
            dropping.join()
        wall = time.monotonic() - began
    print(
        json.dumps(
            {
                "seconds": round(wall),
                "datasets": {name: {key: of[key] for key in of if key != "files"} for name, of in found.items()},
                "live": {
                    "files": len(seconds),
                    "median": statistics.median(seconds) if seconds else None,
                    "p95": sorted(seconds)[int(len(seconds) * 0.95)] if seconds else None,
                    "max": max(seconds, default=None),
                },
            }
        )
    )


def load(spans: dict[str, str], folders: dict[str, Path], second: str) -> dict[str, dict[str, Any]]:
    """Both datasets at once; that of nyc_yellow is stopped twice."""
    other = start(second, spans[second], folders[second])
    for stop in (signal.SIGINT, signal.SIGKILL):
        yellow = start(DATASET, spans[DATASET], folders[DATASET])
        time.sleep(STOP_AFTER)
        yellow.send_signal(stop)
        yellow.communicate()
        if yellow.returncode == 0:
            raise SystemExit(f"{stop.name} came too late: the backfill had ended. Make more rows.")
    yellow = start(DATASET, spans[DATASET], folders[DATASET])
    return {DATASET: ended(yellow), second: ended(other)}


if __name__ == "__main__":
    main()
