"""A steady stream of files with repeated and reordered events, on the running stack: what stays flat and what grows.

`python benchmarks/steady.py [--minutes 60] [--every 3]` drops a generated file of `nyc_yellow` every so often; one
of twenty is corrected at once, and its events are sent again, the last one first. It prints a line of JSON every ten
minutes with the memory of each service, the ledger's rows and the topics' messages, and at the end what became of all
files. Start the stack first: `sluice up`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

import psycopg
from kafka import KafkaConsumer, KafkaProducer

from consumers.broker import client_options, topics_overview
from consumers.ledger import open_ledger
from consumers.topics import BRONZE_EVENTS
from contracts.settings import Settings, load_settings
from ingest.generator import generate_month
from ingest.store import ObjectInfo, store_for
from sluice.files import wait_for_end
from sluice.query import run_query
from sluice.stack import status
from sluice.supervisor import require_running

DATASET = "nyc_yellow"
ROWS = 500
CONTENTS = 24
ONE_IN = 20
SAMPLE_SECONDS = 600
WAIT_SECONDS = 900.0
TABLES = ("files", "history", "results", "commits", "commit_sources", "batches", "batch_items")


class Events:
    """The events of bronze as they are in Kafka, to be sent again."""

    def __init__(self, settings: Settings) -> None:
        login = client_options(settings.kafka_login("operator"))
        self._producer = KafkaProducer(**login, acks="all")
        self._consumer = KafkaConsumer(BRONZE_EVENTS, **login, group_id=None, auto_offset_reset="latest")
        self._consumer.poll(timeout_ms=5000)

    def repeat(self, put: ObjectInfo, versions: int) -> None:
        """Send all events of an object once more, the last one first.

        Args:
            versions: how many events there are.

        Raises:
            SystemExit: they did not come within a while.
        """
        found: list[tuple[bytes, bytes]] = []
        limit = time.monotonic() + 60
        while len(found) < versions and time.monotonic() < limit:
            for records in self._consumer.poll(timeout_ms=500).values():
                found += [(one.key, one.value) for one in records if one.key == f"bronze/{put.key}".encode()]
        if len(found) < versions:
            raise SystemExit(f"{len(found)} events of {put.key} came within 60 s, expected {versions}.")
        for key, value in reversed(found):
            self._producer.send(BRONZE_EVENTS, key=key, value=value)
        self._producer.flush(timeout=20)

    def pass_over(self) -> None:
        """Forget what came; nothing of it is to be repeated."""
        self._consumer.poll(timeout_ms=0)


def sample(settings: Settings, files: int) -> dict[str, object]:
    """Memory of each service in MB, rows of the ledger and messages of the topics, for so many files put."""
    found: dict[str, object] = {"files": files, "mb": {s.name: s.memory_mb for s in status(settings).services}}
    with psycopg.connect(settings.postgres_url(settings.postgres_superuser, "lake")) as link:
        found["ledger_rows"] = {
            table: link.execute(f"SELECT count(*) FROM ledger.{table}").fetchone()[0]  # noqa: S608 - names of ours
            for table in TABLES
        }
    topics = topics_overview(settings.kafka_login("operator"))
    found["messages"] = {topic.topic: topic.messages for topic in topics if topic.messages}
    found["unread"] = sum(lag for topic in topics for lag in topic.lag.values())
    return found


def stream(settings: Settings, seconds: float, every: float, bodies: list[Path]) -> list[ObjectInfo]:
    """Drop files until the time is over; what is under each key in the end."""
    store, events, mark = store_for(settings, "ingest"), Events(settings), uuid.uuid4().hex[:8]
    puts: list[ObjectInfo] = []
    began = time.monotonic()
    next_sample = 60.0  # The first one when everything has warmed up.
    while (at := time.monotonic() - began) < seconds:
        number = len(puts)
        body = bodies[number % CONTENTS]
        put = store.put_file("bronze", f"{DATASET}/steady-{mark}/{number}/{body.name}", body)
        if number % ONE_IN == ONE_IN - 1:
            put = store.put_file("bronze", put.key, bodies[(number + 1) % CONTENTS])
            events.repeat(put, versions=2)
        else:
            events.pass_over()
        puts.append(put)
        if at >= next_sample:
            print(json.dumps({"minute": round(at / 60), **sample(settings, len(puts))}), flush=True)
            next_sample += SAMPLE_SECONDS
        time.sleep(max(0.0, began + len(puts) * every - time.monotonic()))
    return puts


def main() -> None:
    """Stream, wait, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=3, help="seconds between two files")
    asked = parser.parse_args()
    settings = load_settings()
    require_running(settings)
    with tempfile.TemporaryDirectory() as folder, open_ledger(settings) as ledger:
        bodies = [Path(folder) / f"yellow_tripdata_{2022 + n // 12}-{n % 12 + 1:02d}.parquet" for n in range(CONTENTS)]
        for number, path in enumerate(bodies):
            generate_month(path, 2022 + number // 12, number % 12 + 1, ROWS, number)
        puts = stream(settings, asked.minutes * 60, asked.every, bodies)
        stories = [
            wait_for_end(lambda put=put: ledger.story(put.bucket, put.key, put.etag), put.key, 0, WAIT_SECONDS)
            for put in puts
        ]
    print(json.dumps({"minute": "end", **sample(settings, len(puts))}))
    print(
        json.dumps(
            {
                "files": len(puts),
                "states": Counter(str(story.state) for story in stories),
                "corrected_and_events_repeated": len(puts) // ONE_IN,
                "rows_accepted": sum(story.layers[0].rows_accepted for story in stories if story.layers),
                "rows_in_features": rows_in_features(settings, puts[0]),
            }
        )
    )


def rows_in_features(settings: Settings, first: ObjectInfo) -> int:
    """Rows of the stream's files in gold."""
    folder = "/".join(first.key.split("/")[:2])
    statement = f"select count(*) from gold.{DATASET}_features where starts_with(_source_key, '{folder}/')"  # noqa: S608 - a key of ours
    return int(run_query(settings, statement)[1][0][0])


if __name__ == "__main__":
    main()
