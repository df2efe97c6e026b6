"""Values that the consumers' tests share."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote_plus

from consumers.broker import Record
from consumers.headers import ATTEMPT, REDRIVEN_FROM
from consumers.routing import Arrival, Decision, plan
from consumers.rows import Changes, KnownFiles
from contracts.dataset import DatasetContract
from contracts.events import BucketEvent
from contracts.loading import load_contract
from contracts.markers import CommitMarker, SourceResult
from contracts.states import Layer

NOON = datetime(2025, 1, 2, 12, tzinfo=UTC)
KEY = "nyc_yellow/2025/may.parquet"

CONTRACT = load_contract(Path(__file__).parents[2] / "contracts" / "datasets" / "nyc_yellow.yaml")
CONTRACTS: dict[str, DatasetContract] = {CONTRACT.dataset: CONTRACT}


def put(key: str = KEY, etag: str = "a1", sequencer: str = "10", bucket: str = "bronze") -> BucketEvent:
    """The event of an object created at a minute after noon that the sequencer tells."""
    at = NOON + timedelta(seconds=int(sequencer or "0", 16))
    return BucketEvent(
        name="s3:ObjectCreated:Put", bucket=bucket, key=key, etag=etag, size=7, at=at, sequencer=sequencer
    )


def removal(key: str = KEY, sequencer: str = "20") -> BucketEvent:
    """The event of an object removed."""
    return BucketEvent(name="s3:ObjectRemoved:Delete", bucket="bronze", key=key, at=NOON, sequencer=sequencer)


def arrival(event: BucketEvent) -> Arrival:
    """The event as Kafka gave it, a tenth of a second later."""
    return Arrival(event, event.at + timedelta(milliseconds=100))


def planned(known: KnownFiles, *events: BucketEvent) -> tuple[list[Decision], Changes]:
    """Decisions and changes for events that come in one poll."""
    return plan([arrival(event) for event in events], CONTRACTS, known, NOON + timedelta(minutes=10))


def body(event: BucketEvent) -> bytes:
    """The message that MinIO writes for an event."""
    item = {"key": quote_plus(event.key), "eTag": event.etag, "size": event.size, "sequencer": event.sequencer}
    record = {
        "eventName": event.name,
        "eventTime": event.at.isoformat(),
        "s3": {"bucket": {"name": event.bucket}, "object": item},
    }
    return json.dumps({"Key": f"{event.bucket}/{event.key}", "Records": [record]}).encode()


def message(value: bytes | None, offset: int = 0, topic: str = "lake.bronze.events", partition: int = 0) -> Record:
    """A Kafka message."""
    return Record(topic, partition, offset, NOON, b"bronze/key", value)


def redriven(value: bytes | None, offset: int = 0, letter_id: int = 12, attempt: int = 2) -> Record:
    """A Kafka message that was sent again from a dead letter."""
    headers = {REDRIVEN_FROM: str(letter_id), ATTEMPT: str(attempt)}
    return replace(message(value, offset), headers=headers)


def accepted(
    key: str = KEY, etag: str = "a1", rows: int = 10, rejected: int = 2, bucket: str = "bronze"
) -> SourceResult:
    """A file of which a stage took some rows."""
    return SourceResult(
        bucket=bucket,
        key=key,
        etag=etag,
        size=7,
        rows_in=rows,
        rows_accepted=rows - rejected,
        rows_rejected=rejected,
    )


def marker(
    *sources: SourceResult, layer: Layer = Layer.SILVER, batch_id: str = "b1", snapshot: int | None = 5
) -> CommitMarker:
    """A commit marker, by default of silver."""
    table = {Layer.SILVER: "silver.nyc_yellow", Layer.GOLD: "gold.nyc_yellow_features"}[layer]
    return CommitMarker(
        layer=layer,
        dataset="nyc_yellow",
        table=table,
        snapshot_id=snapshot,
        batch_id=batch_id,
        dag_id=f"nyc_yellow_to_{layer}",
        run_id="run-1",
        started_at=NOON + timedelta(minutes=11),
        committed_at=NOON + timedelta(minutes=12),
        sources=sources,
    )
