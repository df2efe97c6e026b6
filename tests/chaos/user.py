"""The user of a chaos run: carries out what is planned with boto3, and tries again until it is acknowledged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import tenacity
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from consumers.broker import client_options
from consumers.topics import BRONZE_EVENTS
from contracts.settings import Settings
from ingest.generator import generate_month
from tests.chaos.files import CONTENTS, Kind, Operation

PATIENCE_SECONDS = 900
"""For one operation; the longest that a fault takes a server away."""

_patiently = tenacity.retry(
    retry=tenacity.retry_if_exception_type((BotoCoreError, ClientError, KafkaError, OSError)),
    wait=tenacity.wait_fixed(0.5),
    stop=tenacity.stop_after_delay(PATIENCE_SECONDS),
)


def contents() -> list[bytes]:
    """Small months, each with rows of its own and the usual dirt."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "month.parquet"
        made = []
        for number in range(CONTENTS):
            generate_month(path, 2025, 12, 60 + 20 * number, seed=900 + number)
            made.append(path.read_bytes())
    return made


@dataclass
class User:
    """Puts and deletes objects, and sends events that are none of a user's business."""

    settings: Settings
    bodies: Sequence[bytes] = field(default_factory=contents)

    def __post_init__(self) -> None:
        secrets = (self.settings.ingest_access_key, self.settings.ingest_secret_key.get_secret_value())
        root = (self.settings.minio_root_user, self.settings.minio_root_password.get_secret_value())
        self._ingest, self._owner = self._client(*secrets), self._client(*root)

    def etag(self, content: int) -> str:
        """The version of an object that holds a content."""
        return md5(self.bodies[content], usedforsecurity=False).hexdigest()

    @_patiently
    def do(self, operation: Operation) -> None:
        """Carry an operation out; on return it is acknowledged, and may have happened more than once."""
        if operation.kind in (Kind.PUT, Kind.PUT_AGAIN):
            assert operation.content is not None
            self._put(operation.key, self.bodies[operation.content])
        elif operation.kind in (Kind.PUT_BAD, Kind.PUT_STRAY):
            self._put(operation.key, b"no parquet: " + operation.key.encode())
        elif operation.kind is Kind.DELETE:
            self._owner.delete_object(Bucket="bronze", Key=operation.key)
        elif operation.kind is Kind.REPEAT_EVENTS:
            self._send(list(reversed(self._events(operation.key))))
        else:
            self._send([(None, f"no event: {operation.key}".encode())])

    def _client(self, access_key: str, secret_key: str) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"http://{self.settings.s3_endpoint}",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name=self.settings.s3_region,
            config=Config(connect_timeout=3, read_timeout=10, retries={"max_attempts": 1}),
        )

    def _put(self, key: str, body: bytes) -> None:
        self._ingest.put_object(Bucket="bronze", Key=key, Body=body)

    def _events(self, key: str) -> list[tuple[bytes | None, bytes]]:
        consumer = KafkaConsumer(
            BRONZE_EVENTS, **client_options(self.settings.kafka_login("operator")), group_id=None,
            auto_offset_reset="earliest", consumer_timeout_ms=1500,
        )  # fmt: skip
        try:
            return [(found.key, found.value) for found in consumer if found.key == f"bronze/{key}".encode()]
        finally:
            consumer.close()

    def _send(self, messages: Sequence[tuple[bytes | None, bytes]]) -> None:
        producer = KafkaProducer(**client_options(self.settings.kafka_login("operator")), acks="all")
        try:
            for key, value in messages:
                producer.send(BRONZE_EVENTS, key=key, value=value)
            producer.flush(timeout=20)
        finally:
            producer.close(timeout=5)


def pauses(random: Random, operations: int) -> list[float]:
    """Seconds between operations: some at once, some in the middle of what the ones before brought about."""
    return [random.choice((0.0, 0.0, 0.3, 1.0, 2.5)) for _ in range(operations)]
