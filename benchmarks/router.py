"""What the router carries, with the ledger on: events a second, memory over a million, the cost beside a long history.

    python benchmarks/router.py [--events 100000] [--runs 3] [--twice]
    python benchmarks/router.py --flat [--events 1000000]
    python benchmarks/router.py --history [--events 10000] [--runs 3]

Each starts a Kafka, a Postgres and a router of its own, as a stack has them, on free ports, once `make setup` has made
them. Events are in Kafka before the router starts, but for `--flat`. Prints lines of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote_plus

import confluent_kafka
import psutil
import psycopg

from consumers.broker import ensure_grants, ensure_topics
from consumers.migrate import migrate
from consumers.topics import BRONZE_EVENTS, WORK_TOPICS, retention_days
from contracts.settings import USUAL_PORTS, Settings, load_settings
from contracts.states import Layer
from contracts.work import parse_work
from sluice import postgres_server
from sluice.secrets import ensure_secrets
from tests.servers import free_port_block, running_kafka, running_postgres

PIECE = 100_000
AT_ONCE = 5_000
"""Events before their second deliveries, with `--twice`: what MinIO's queue on disk holds after a second or more."""
ROWS = (100, 10_000, 1_000_000)
WAIT_SECONDS = 120.0
"""For the next file to be handed on."""


def notification(run: str, number: int) -> tuple[str, bytes]:
    """Key and value of the message that MinIO writes for the `number`-th file.

    Source of the shape: a PUT by minio-py to the MinIO of `sluice.install`, with the notification rules of
    `ingest.bootstrap`.
    """
    key = f"nyc_yellow/{run}/{number:07d}.parquet"
    now = datetime.now(UTC)
    record = {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "awsRegion": "us-east-1",
        "eventTime": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "eventName": "s3:ObjectCreated:Put",
        "userIdentity": {"principalId": "sluice-ingest"},
        "requestParameters": {
            "principalId": "sluice-ingest",
            "region": "us-east-1",
            "sourceIPAddress": "127.0.0.1",
        },
        "responseElements": {
            "x-amz-id-2": "dd9025bab4ad464b049177c95eb6ebf374d3b3fd1af9251148b658df7ac2e3e8",
            "x-amz-request-id": f"{number:016X}",
            "x-minio-deployment-id": "5c1f0a3e-6a0d-4b7e-9d2f-0a8f4a7c6b1d",
            "x-minio-origin-endpoint": "http://127.0.0.1:9000",
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "Config",
            "bucket": {
                "name": "bronze",
                "ownerIdentity": {"principalId": "sluice-ingest"},
                "arn": "arn:aws:s3:::bronze",
            },
            "object": {
                "key": quote_plus(key),
                "size": 1000 + number,
                "eTag": hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(),
                "contentType": "application/octet-stream",
                "userMetadata": {"content-type": "application/octet-stream"},
                "sequencer": f"{int(now.timestamp() * 1e9):X}",
            },
        },
        "source": {
            "host": "127.0.0.1",
            "port": "",
            "userAgent": "MinIO (Linux; x86_64) minio-py/7.2.20",
        },
    }
    body = {"EventName": "s3:ObjectCreated:Put", "Key": f"bronze/{key}", "Records": [record]}
    return f"bronze/{key}", json.dumps(body, separators=(",", ":")).encode()


def client(settings: Settings) -> dict[str, str]:
    """How librdkafka signs in: it takes less of the machine from the router than a client in Python."""
    login = settings.kafka_login("admin")
    return {
        "bootstrap.servers": login.bootstrap,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "admin",
        "sasl.password": login.password.get_secret_value(),
    }


def fill(settings: Settings, events: int, twice: bool = False, together: int = 1) -> None:
    """Write the events of as many new files; MinIO writes each in a record batch of its own, not some `together`."""
    run = uuid.uuid4().hex[:8]
    producer = confluent_kafka.Producer({**client(settings), "batch.num.messages": together})
    for start in range(0, events, AT_ONCE):
        messages = [notification(run, number) for number in range(start, min(events, start + AT_ONCE))]
        for key, value in messages * (2 if twice else 1):
            producer.produce(BRONZE_EVENTS, value, key)
        if producer.flush(WAIT_SECONDS):
            raise SystemExit("Kafka did not take the events.")


@dataclass(frozen=True)
class Sample:
    """CPU seconds by then of each server's processes and of the whole machine, and the router's memory."""

    at: float
    router: float
    postgres: float
    kafka: float
    own: float
    """This process, which reads the work messages."""
    machine: float
    resident_mb: float


class Monitor:
    """Takes a sample each tenth of a second."""

    def __init__(self, router: int) -> None:
        self.samples: list[Sample] = []
        self._router = psutil.Process(router)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    def at(self, moment: float) -> Sample:
        """The sample that was taken nearest to a moment (seconds since 1970)."""
        return min(self.samples, key=lambda sample: abs(sample.at - moment))

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self.samples.append(self.now())

    def now(self) -> Sample:
        """A sample of this moment."""
        seconds = {"postgres": 0.0, "java": 0.0}
        for process in psutil.Process().children(recursive=True):
            try:
                if process.name() in seconds:
                    seconds[process.name()] += sum(process.cpu_times()[:2])
            except psutil.NoSuchProcess:
                continue
        router, resident = sum(self._router.cpu_times()[:2]), self._router.memory_info().rss / 1e6
        own, machine = sum(psutil.Process().cpu_times()[:2]), psutil.cpu_times()
        busy = sum(machine) - machine.idle - machine.iowait
        return Sample(time.time(), router, seconds["postgres"], seconds["java"], own, busy, resident)


class Handed:
    """Follows the work topic: how many files were handed on, and when."""

    def __init__(self, settings: Settings) -> None:
        topic = WORK_TOPICS[Layer.SILVER]
        self._consumer = confluent_kafka.Consumer(
            {**client(settings), "group.id": uuid.uuid4().hex, "enable.auto.commit": False}
        )
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = {part: confluent_kafka.TopicPartition(topic, part) for part in partitions}
        for place in ends.values():
            place.offset = self._consumer.get_watermark_offsets(place, timeout=10)[1]
        self._consumer.assign(list(ends.values()))

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()

    def wait(self, files: int) -> tuple[float, float, int]:
        """Wait until so many were handed on.

        Returns:
            When the first poll's were, when the last ones were (seconds since 1970), and the files in between.
        """
        polls: dict[datetime, tuple[float, int]] = {}
        left = files
        while left > 0:
            message = self._consumer.poll(WAIT_SECONDS)
            if message is None or message.error():
                raise SystemExit(f"The router stands still; {left} files are not handed on.")
            work = parse_work(message.value())
            at, known = polls.get(work.at, (0.0, 0))
            polls[work.at] = max(at, message.timestamp()[1] / 1000), known + len(work.items)
            left -= len(work.items)
        if left < 0:
            raise SystemExit(f"{-left} files were handed on twice.")
        first, count = polls[min(polls)]
        return first, polls[max(polls)][0], files - count


@contextmanager
def servers() -> Iterator[Settings]:
    """Kafka and Postgres as a stack has them, with empty topics and a ledger without rows."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        os.environ |= {"SLUICE_HOME": folder, "SLUICE_PORT_BASE": str(free_port_block(len(USUAL_PORTS)))}
        ensure_secrets(Path(folder))
        settings = load_settings()
        with running_kafka(settings), running_postgres(settings):
            ensure_topics(settings.kafka_login("admin"), retention_days(settings))
            ensure_grants(settings.kafka_login("admin"))
            postgres_server.bootstrap_databases(settings)
            migrate(settings.postgres_url("ledger", "lake"))
            yield settings


@contextmanager
def router(settings: Settings) -> Iterator[int]:
    """The router as a stack has it, its log in a file. Gives its process id."""
    with (settings.home / "router.log").open("ab") as out:
        process = subprocess.Popen([sys.executable, "-m", "consumers.router"], stdout=out, stderr=out)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def cost(monitor: Monitor, first: float, last: float, files: int) -> dict[str, float]:
    """Events a second between two moments, microseconds of each part per event, and the cores that others used."""
    start, end = monitor.at(first), monitor.at(last)
    router, postgres, kafka, own, machine = (
        getattr(end, part) - getattr(start, part) for part in ("router", "postgres", "kafka", "own", "machine")
    )
    return {
        "per_second": round(files / (last - first)),
        "us": round((last - first) / files * 1e6),
        "router_cpu_us": round(router / files * 1e6),
        "postgres_cpu_us": round(postgres / files * 1e6),
        "kafka_cpu_us": round(kafka / files * 1e6),
        "cores_of_others": round((machine - router - postgres - kafka - own) / (end.at - start.at), 2),
    }


def drain(settings: Settings, events: int, twice: bool = False) -> dict[str, float]:
    """Fill the topic, start a router, and measure it from its second poll to its last."""
    fill(settings, events, twice)
    handed = Handed(settings)
    try:
        with router(settings) as pid, Monitor(pid) as monitor:
            first, last, files = handed.wait(events)
            time.sleep(0.3)  # For the sample after the last one.
            return cost(monitor, first, last, files)
    finally:
        handed.close()


def rate(settings: Settings, events: int, twice: bool) -> None:
    """The rate into an empty ledger."""
    _empty(settings)
    print(json.dumps({"events": events, "twice": twice, **drain(settings, events, twice)}), flush=True)


def flat(settings: Settings, events: int) -> None:
    """One router, and one piece after the other."""
    handed = Handed(settings)
    with router(settings) as pid:
        monitor = Monitor(pid)
        for done in range(PIECE, events + 1, PIECE):
            # Together: memory is asked for, not the rate, and Kafka would take most of the time.
            fill(settings, PIECE, together=100)
            handed.wait(PIECE)
            print(json.dumps({"events": done, "resident_mb": round(monitor.now().resident_mb, 1)}), flush=True)
    handed.close()


def history(settings: Settings, rows: int, events: int) -> None:
    """The cost of an event beside so many files with three passages each."""
    _empty(settings)
    _prefill(settings, rows)
    print(json.dumps({"rows": rows, "events": events, **drain(settings, events)}), flush=True)


def _empty(settings: Settings) -> None:
    with psycopg.connect(settings.postgres_url("ledger", "lake"), autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger.history DISABLE TRIGGER append_only")
        connection.execute("TRUNCATE ledger.files, ledger.history")
        connection.execute("ALTER TABLE ledger.history ENABLE TRIGGER append_only")


def _prefill(settings: Settings, rows: int) -> None:
    with psycopg.connect(settings.postgres_url("ledger", "lake"), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ledger.files (bucket, key, etag, dataset, state, size, sequencer, put_at, version, updated_at)"
            " SELECT 'bronze', format('nyc_yellow/%%s/%%s.parquet', md5((n / 1000)::text), n), md5(n::text),"
            "  'nyc_yellow', 'done', n, lpad(upper(to_hex(n)), 32, '0'), now() - (%(rows)s - n) * interval '1 s',"
            "  upper(to_hex(n)), now() - (%(rows)s - n) * interval '1 s' FROM generate_series(1, %(rows)s) n",
            {"rows": rows},
        )
        connection.execute(
            "INSERT INTO ledger.history (bucket, key, etag, at, hop, state)"
            " SELECT bucket, key, etag, put_at, hop, state FROM ledger.files,"
            " unnest(ARRAY['put', 'event', 'routed']) hop ORDER BY put_at"
        )
    with psycopg.connect(settings.postgres_url(settings.postgres_superuser, "lake"), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def main() -> None:
    """Measure what the options ask for."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--twice", action="store_true", help="each event a second time, as MinIO's two targets do")
    kinds = arguments.add_mutually_exclusive_group()
    kinds.add_argument("--flat", action="store_true")
    kinds.add_argument("--history", action="store_true")
    asked = arguments.parse_args()
    with servers() as settings:
        if asked.flat:
            flat(settings, asked.events or 1_000_000)
        for _ in range(0 if asked.flat else asked.runs):
            if asked.history:
                for rows in ROWS:
                    history(settings, rows, asked.events or 10_000)
            else:
                rate(settings, asked.events or 100_000, asked.twice)


if __name__ == "__main__":
    main()
