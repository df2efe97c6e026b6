"""A generated month for every month that the TLC has published, through the running stack.

`python benchmarks/all_months.py [--rows 2000] [--until 2025-12]` drops the months of yellow and green taxis at once,
waits for all of them, and prints one line of JSON: wall time in seconds, and for each dataset its files, rows in,
accepted and rejected, and the rejected and warned rows by reason. Start the stack first: `sluice up`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from consumers.ledger import open_ledger
from contracts.settings import Settings, load_settings
from contracts.states import FileState
from contracts.story import FileStory
from ingest.eras import FIRST_MONTHS
from ingest.generator import generate_month
from ingest.store import ObjectInfo, store_for
from sluice.files import wait_for_end
from sluice.supervisor import require_running

DATASETS = ("nyc_yellow", "nyc_green")
WAIT_SECONDS = 1800.0


def months(dataset: str, until: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Year and month of each published month, up to and with `until`."""
    year, month = FIRST_MONTHS[dataset]
    while (year, month) <= until:
        yield year, month
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)


def drop_all(settings: Settings, rows: int, until: tuple[int, int]) -> dict[str, list[ObjectInfo]]:
    """Put all months under keys of their own, by dataset."""
    store, mark = store_for(settings, "ingest"), uuid.uuid4().hex[:8]
    puts: dict[str, list[ObjectInfo]] = {dataset: [] for dataset in DATASETS}
    with tempfile.TemporaryDirectory() as folder:
        for dataset in DATASETS:
            for year, month in months(dataset, until):
                path = Path(folder) / f"{dataset}_{year}-{month:02d}.parquet"
                generate_month(path, year, month, rows, year * 12 + month, dataset)
                puts[dataset].append(store.put_file("bronze", f"{dataset}/months-{mark}/{path.name}", path))
                path.unlink()
    return puts


def summary(stories: list[FileStory]) -> dict[str, object]:
    """What became of a dataset's files and rows."""
    silver = [story.layers[0] for story in stories if story.layers]
    reasons: Counter[str] = Counter()
    warnings: Counter[str] = Counter()
    for layer in silver:
        reasons.update(layer.reasons)
        warnings.update(layer.warnings)
    return {
        "files": len(stories),
        "done": sum(story.state is FileState.DONE for story in stories),
        "rows_in": sum(layer.rows_in for layer in silver),
        "rows_accepted": sum(layer.rows_accepted for layer in silver),
        "rows_rejected": sum(layer.rows_rejected for layer in silver),
        "rows_in_gold": sum(story.layers[1].rows_accepted for story in stories if len(story.layers) > 1),
        "reasons": dict(reasons.most_common()),
        "warnings": dict(warnings.most_common()),
        "runs": len({layer.run_id for story in stories for layer in story.layers}),
        "not_done": {story.key: f"{story.state} {story.reason}" for story in stories if story.state != FileState.DONE},
    }


def main() -> None:
    """Drop, wait, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000, help="rows of each month")
    parser.add_argument("--until", default="2025-12", help="the last month")
    asked = parser.parse_args()
    year, month = map(int, asked.until.split("-"))
    settings = load_settings()
    require_running(settings)
    began = time.monotonic()
    puts = drop_all(settings, asked.rows, (year, month))
    dropped = time.monotonic() - began
    found: dict[str, list[FileStory]] = {}
    with open_ledger(settings) as ledger:
        for dataset, objects in puts.items():
            for put in objects:
                story = wait_for_end(
                    lambda put=put: ledger.story(put.bucket, put.key, put.etag), put.key, 0, WAIT_SECONDS
                )
                found.setdefault(dataset, []).append(story)
    seconds = {"generated_and_dropped": round(dropped, 1), "all_in_gold": round(time.monotonic() - began, 1)}
    print(json.dumps({"seconds": seconds, **{name: summary(stories) for name, stories in found.items()}}))


if __name__ == "__main__":
    main()
