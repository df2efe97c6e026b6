"""What upkeep does to a thousand small files, and to those who read meanwhile, on the running stack.

`python benchmarks/upkeep.py [--files 1000] [--rows 3000]` drops small files of `nyc_green`, waits for gold, and looks
after its tables as the DAG `upkeep` does, but without waiting a day for the files. It prints one line of JSON: data
files before and after by table, seconds of each part, seconds of a whole `sluice sql` before and after (median of
five), what somebody saw who read all the time, and whether one of the files is replaced exactly. Start it first:
`sluice up`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from backlog import drop_all, in_gold

from consumers.ledger import open_ledger
from contracts.dataset import Upkeep
from contracts.loading import load_contracts
from contracts.settings import Settings, load_settings
from ingest.generator import generate_month
from ingest.store import store_for
from sluice.query import run_query
from sluice.supervisor import require_running
from spark_jobs import upkeep_job
from spark_jobs.lake import open_lake
from spark_jobs.session import connect_session

DATASET = "nyc_green"
STATEMENT = f"select count(*), sum(total_amount), count(distinct _source_key) from gold.{DATASET}_features"  # noqa: S608
SLUICE = Path(sys.executable).with_name("sluice")


def query_seconds() -> float:
    """A whole process of `sluice sql`; the median of five."""
    found = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([str(SLUICE), "sql", STATEMENT], check=True, capture_output=True)
        found.append(time.monotonic() - began)
    return round(statistics.median(found), 2)


def read(settings: Settings, enough: threading.Event, seen: list[Any]) -> None:
    """Read all the time; an error is among what was seen."""
    while not enough.is_set():
        try:
            seen.append(run_query(settings, STATEMENT)[1])
        except Exception as error:
            seen.append(repr(error))


def replaced_exactly(settings: Settings, key: str) -> bool:
    """Whether a corrected file has its new rows, and all others keep theirs."""
    counts = f"select _source_key, count(*) from gold.{DATASET}_features group by 1"  # noqa: S608
    before = dict(run_query(settings, counts)[1])
    with tempfile.TemporaryDirectory() as folder, open_ledger(settings) as ledger:
        path = Path(folder) / "corrected.parquet"
        generate_month(path, 2024, 1, 500, 4711, DATASET)
        (story,) = in_gold(ledger, [store_for(settings, "ingest").put_file("bronze", key, path)])
    after = dict(run_query(settings, counts)[1])
    return after == before | {key: story.layers[1].rows_accepted} != before


def main() -> None:
    """Drop, look after, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=3000, help="rows of each file")
    asked = parser.parse_args()
    settings = load_settings()
    require_running(settings)
    puts = drop_all(settings, asked.files, asked.rows, DATASET)
    with open_ledger(settings) as ledger:
        in_gold(ledger, puts)
    contract = load_contracts(settings.contracts_dir)[DATASET]
    contract = contract.model_copy(update={"upkeep": Upkeep(pack_after=timedelta(0))})
    seconds_before, seen, enough = query_seconds(), list[Any](), threading.Event()
    reader = threading.Thread(target=read, args=(settings, enough, seen))
    reader.start()
    spark, began = connect_session(settings), time.monotonic()
    try:
        lake = open_lake(settings, store_for(settings, "spark"))
        done = upkeep_job.run(spark, lake, contract, datetime.now(UTC))
    finally:
        spark.stop()
        took = time.monotonic() - began
        enough.set()
        reader.join()
    print(
        json.dumps(
            {
                "upkeep_seconds": round(took, 1),
                "tables": [table.model_dump() for table in done],
                "query_seconds": {"before": seconds_before, "after": query_seconds()},
                "reader": {"looks": len(seen), "different": len({repr(one) for one in seen}), "first": repr(seen[0])},
                "replaced_exactly": replaced_exactly(settings, puts[len(puts) // 2].key),
            }
        )
    )


if __name__ == "__main__":
    main()
