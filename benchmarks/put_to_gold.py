"""Seconds from the PUT's answer to gold complete, and to the Spark job's start, on the running stack.

`python benchmarks/put_to_gold.py [--small 20] [--months 3]` drops generated files one after another, each when the
one before is done, and prints one line of JSON. Start the stack first: `sluice up`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from consumers.ledger import Ledger, open_ledger
from contracts.settings import Settings, load_settings
from contracts.states import FileState, Hop, Layer
from ingest.generator import generate_month
from ingest.store import Store, store_for
from sluice.files import wait_for_end
from sluice.stack import status
from sluice.supervisor import require_running

DATASET = "nyc_yellow"
SMALL_ROWS = 3_000
MONTH_ROWS = 3_000_000
WAIT_SECONDS = 300.0


def measure(store: Store, ledger: Ledger, file: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Put one file under a new key and wait for it.

    Returns:
        Seconds from the PUT's answer: `start` (the Spark job's start), `silver` (its commit), `gold` (the ledger
        says done, so features and aggregate are both committed). And those to each point on the file's way, in order.
    """
    put = store.put_file("bronze", f"{DATASET}/bench-{uuid.uuid4().hex[:8]}/{file.name}", file)
    answered, clock = datetime.now(UTC), time.monotonic()
    story = wait_for_end(lambda: ledger.story(put.bucket, put.key, put.etag), put.key, 0, WAIT_SECONDS)
    took = time.monotonic() - clock
    if story.state is not FileState.DONE:
        raise SystemExit(f"{put.key} ended as {story.state}: {story.reason} {story.detail}")
    after = {(passage.hop, passage.layer): (passage.at - answered).total_seconds() for passage in story.timeline}
    points = {f"{layer or ''} {hop}".strip(): seconds for (hop, layer), seconds in after.items()}
    start, silver = after[Hop.STARTED, Layer.SILVER], after[Hop.COMMITTED, Layer.SILVER]
    return {"start": start, "silver": silver, "gold": took}, points


def run(settings: Settings, files: int, rows: int, months: range | list[int]) -> dict[str, object]:
    """Measure `files` files of `rows` rows; each stands for another month, as real ones do."""
    store = store_for(settings, "ingest")
    found = []
    with tempfile.TemporaryDirectory() as folder, open_ledger(settings) as ledger:
        for number in range(files):
            year, month = 2010 + (months[number % len(months)] // 12) % 15, months[number % len(months)] % 12 + 1
            path = Path(folder) / f"yellow_tripdata_{year}-{month:02d}.parquet"
            generate_month(path, year, month, rows, number)
            found.append(measure(store, ledger, path))
            path.unlink()
    summary: dict[str, object] = {"rows": rows, "runs": files}
    for name in ("start", "silver", "gold"):
        values = [item[name] for item, _ in found]
        summary[name] = {"median": round(statistics.median(values), 2), "max": round(max(values), 2)}
    ways = [points for _, points in found]
    common = [name for name in ways[0] if all(name in way for way in ways)]
    summary["way"] = {name: round(statistics.median(way[name] for way in ways), 2) for name in common}
    return summary


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=20, help="how many files of 3,000 rows")
    parser.add_argument("--months", type=int, default=3, help="how many files of 3 million rows")
    parser.add_argument("--same-month", action="store_true", help="all small files fall into one month")
    asked = parser.parse_args()
    settings = load_settings()
    require_running(settings)
    rest = sum(service.memory_mb for service in status(settings).services)
    months = [180] if asked.same_month else list(range(180))
    results = []
    if asked.small:
        results.append(run(settings, asked.small, SMALL_ROWS, months))
    if asked.months:
        results.append(run(settings, asked.months, MONTH_ROWS, list(range(100, 180))))
    after = sum(service.memory_mb for service in status(settings).services)
    print(json.dumps({"memory_mb_before": rest, "memory_mb_after": after, "results": results}))


if __name__ == "__main__":
    main()
