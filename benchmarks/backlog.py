"""Many small files at once, and what a file of another dataset waits beside them, on the running stack.

`python benchmarks/backlog.py [--files 1000] [--rows 100] [--dataset nyc_green] [--beside 5]` prints one line of JSON:
seconds until all files are in gold, what became of them, their DAG runs, and from PUT to gold the seconds of files of
`nyc_yellow` that were dropped one after another, first alone and then while the many wait. Start it first: `sluice up`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from put_to_gold import DATASET, SMALL_ROWS, measure

from consumers.ledger import Ledger, open_ledger
from contracts.settings import Settings, load_settings
from contracts.states import FileState
from contracts.story import FileStory
from ingest.generator import generate_month
from ingest.store import ObjectInfo, Store, store_for
from sluice.files import wait_for_end
from sluice.supervisor import require_running

CONTENTS = 50
"""Different files that are put under many keys each."""
WAIT_SECONDS = 3_600.0


def drop_all(settings: Settings, files: int, rows: int, dataset: str) -> list[ObjectInfo]:
    """Put files under keys of their own, eight at a time."""
    store, mark = store_for(settings, "ingest"), uuid.uuid4().hex[:8]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"tripdata_2024-{number % 12 + 1:02d}-{number}.parquet" for number in range(CONTENTS)]
        for number, path in enumerate(paths):
            generate_month(path, 2024, number % 12 + 1, rows, number, dataset)
        keys = [f"{dataset}/many-{mark}/{n}/{paths[n % CONTENTS].name}" for n in range(files)]
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda n: store.put_file("bronze", keys[n], paths[n % CONTENTS]), range(files)))


def in_gold(ledger: Ledger, puts: list[ObjectInfo]) -> list[FileStory]:
    """Wait for every file's end."""
    return [
        wait_for_end(lambda put=put: ledger.story(put.bucket, put.key, put.etag), put.key, 0, WAIT_SECONDS)
        for put in puts
    ]


def beside(store: Store, ledger: Ledger, files: int) -> list[float]:
    """Seconds from PUT to gold of files dropped one after another."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(files):
            path = Path(folder) / f"yellow_tripdata_2023-{number % 12 + 1:02d}.parquet"
            generate_month(path, 2023, number % 12 + 1, SMALL_ROWS, number, DATASET)
            found.append(round(measure(store, ledger, path)[0]["gold"], 1))
    return found


def summary(stories: list[FileStory]) -> dict[str, object]:
    """What became of the many."""
    silver = [story.layers[0] for story in stories if story.layers]
    gold = [story.layers[1] for story in stories if len(story.layers) > 1]
    return {
        "states": Counter(str(story.state) for story in stories),
        "not_in_gold": sum(story.state is not FileState.DONE for story in stories),
        "rows": {
            "in": sum(layer.rows_in for layer in silver),
            "accepted": sum(layer.rows_accepted for layer in silver),
            "rejected": sum(layer.rows_rejected for layer in silver),
            "gold": sum(layer.rows_accepted for layer in gold),
        },
        "runs": {"silver": len({layer.run_id for layer in silver}), "gold": len({layer.run_id for layer in gold})},
    }


def main() -> None:
    """Drop, wait, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=100, help="rows of each file")
    parser.add_argument("--dataset", default="nyc_green", choices=("nyc_green", "nyc_yellow"))
    parser.add_argument("--beside", type=int, default=0, help="how many files of nyc_yellow meanwhile")
    asked = parser.parse_args()
    settings = load_settings()
    require_running(settings)
    store, clock = store_for(settings, "ingest"), time.monotonic
    with open_ledger(settings) as ledger:
        alone = beside(store, ledger, asked.beside)
        began = clock()
        puts = drop_all(settings, asked.files, asked.rows, asked.dataset)
        dropped = clock()
        meanwhile = beside(store, ledger, asked.beside)
        waited = sum(story.state is not FileState.DONE for story in in_flight(ledger, puts))
        stories = in_gold(ledger, puts)
    print(
        json.dumps(
            {
                "files": asked.files,
                "seconds": {"to_put_all": round(dropped - began, 1), "all_in_gold": round(clock() - began, 1)},
                **summary(stories),
                "beside": {
                    "alone": _figures(alone),
                    "meanwhile": _figures(meanwhile),
                    "many_still_waiting_afterwards": waited,
                },
            }
        )
    )


def in_flight(ledger: Ledger, puts: list[ObjectInfo]) -> list[FileStory]:
    """What is known of the files now."""
    return [story for put in puts if (story := ledger.story(put.bucket, put.key, put.etag)) is not None]


def _figures(seconds: list[float]) -> dict[str, object]:
    return {"median": statistics.median(seconds), "each": seconds} if seconds else {}


if __name__ == "__main__":
    main()
