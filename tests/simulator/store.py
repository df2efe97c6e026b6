"""MinIO in memory: objects, and events that are told at once, again, late, or never."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

from consumers.topics import BRONZE_EVENTS, GOLD_EVENTS, SILVER_EVENTS
from contracts.errors import ObjectChanged, ObjectGone
from contracts.events import BucketEvent, notification
from contracts.markers import PREFIX
from ingest.store import ObjectInfo
from tests.simulator.log import KAFKA, Log
from tests.simulator.world import World

STORE = "minio"
TOPICS = {"bronze": BRONZE_EVENTS, "silver": SILVER_EVENTS, "gold": GOLD_EVENTS}


@dataclass(frozen=True)
class Row:
    """A row of a file."""

    number: int
    day: date
    amount: int
    good: bool


@dataclass(frozen=True)
class Content:
    """What a file of bronze holds."""

    etag: str
    kind: str = "parquet"
    """`parquet`, or how it is broken: `text`, `cut`, `empty`, `no_rows`, `bad_pages` (found before Spark reads) or
    `bad_data` (found by Spark)."""
    rows: tuple[Row, ...] = ()

    @property
    def size(self) -> int:
        """Bytes."""
        return 0 if self.kind == "empty" else 100 + 10 * len(self.rows)


@dataclass(frozen=True)
class Object:
    """An object as it is now."""

    content: Content | bytes
    etag: str
    size: int
    modified: datetime


class Store:
    """As `ingest.store.Store`, and MinIO behind it."""

    def __init__(self, world: World, log: Log) -> None:
        self.world = world
        self.log = log
        self.objects: dict[tuple[str, str], Object] = {}
        self.puts: dict[str, list[Content]] = {}
        """Key in bronze -> every content that it ever had, in order."""
        self.being_read = ""
        """The key that a job read last."""
        self.read_late: set[str] = set()
        """Keys that held other content when many rows of them were read; the second look may have come before."""
        self.on_the_way = 0
        """Events that MinIO has yet to tell."""
        self._sequencer = 0

    # ---- what users do

    def put(self, key: str, content: Content) -> None:
        """Put a file into bronze; it is acknowledged on return."""
        self.objects["bronze", key] = Object(content, content.etag, content.size, self.world.now)
        self.puts.setdefault(key, []).append(content)
        self._tell("s3:ObjectCreated:Put", "bronze", key, content.etag, content.size)

    def delete(self, key: str) -> bool:
        """Delete a file from bronze. Whether it was there."""
        if self.objects.pop(("bronze", key), None) is None:
            return False
        self._tell("s3:ObjectRemoved:Delete", "bronze", key, "", 0)
        return True

    # ---- as ingest.store.Store

    def stat(self, bucket: str, key: str) -> ObjectInfo | None:
        return self.world.do(f"stat {bucket}/{key}", self._stat, bucket, key, service=STORE)

    def get_bytes(self, bucket: str, key: str, limit: int, etag: str | None = None) -> bytes:
        content = self.world.do(f"get {bucket}/{key}", self.content, bucket, key, etag, service=STORE)
        if not isinstance(content, bytes):
            raise TypeError(f"{bucket}/{key} is a file of rows")
        return content

    def put_bytes(self, bucket: str, key: str, data: bytes, content_type: str = "") -> None:
        self.world.do(f"put {bucket}/{key}", self._put_bytes, bucket, key, data, service=STORE)

    def copy(self, bucket: str, key: str, etag: str, to_bucket: str, to_key: str) -> None:
        self.world.do(f"copy {bucket}/{key}", self._copy, bucket, key, etag, to_bucket, to_key, service=STORE)

    def list(self, bucket: str, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        keys = sorted(key for own, key in self.objects if own == bucket and key > after)
        for key in keys:
            # What is put or deleted meanwhile may be in a listing or not.
            found = self._stat(bucket, key)
            if found is not None:
                yield found

    # ---- inside

    def content(self, bucket: str, key: str, etag: str | None = None) -> Content | bytes:
        """What an object holds.

        Raises:
            ObjectGone, ObjectChanged: it is not there, or has another etag.
        """
        found = self.objects.get((bucket, key))
        if found is None:
            raise ObjectGone(f"{bucket}/{key} is not there.")
        if etag is not None and found.etag != etag:
            raise ObjectChanged(f"{bucket}/{key} has other content.")
        return found.content

    def _stat(self, bucket: str, key: str) -> ObjectInfo | None:
        found = self.objects.get((bucket, key))
        return ObjectInfo(bucket, key, found.etag, found.size, found.modified) if found else None

    def _put_bytes(self, bucket: str, key: str, data: bytes) -> None:
        self.objects[bucket, key] = Object(data, f"m{len(data)}", len(data), self.world.now)
        if key.startswith(PREFIX):
            self._tell("s3:ObjectCreated:Put", bucket, key, f"m{len(data)}", len(data))

    def _copy(self, bucket: str, key: str, etag: str, to_bucket: str, to_key: str) -> None:
        content = self.content(bucket, key, etag)
        found = self.objects[bucket, key]
        self.objects[to_bucket, to_key] = Object(content, found.etag, found.size, self.world.now)

    def _tell(self, name: str, bucket: str, key: str, etag: str, size: int) -> None:
        world = self.world
        self._sequencer = max(world.nanoseconds, self._sequencer + 1)
        event = BucketEvent.model_construct(
            name=name, bucket=bucket, key=key, etag=etag, size=size, at=world.now, sequencer=f"{self._sequencer:X}"
        )
        world.counts["events"] += 1
        random, hazards = world.random, world.hazards
        if random.random() < hazards.event_lost:
            world.counts["events lost"] += 1
            world.note(f"the event of {name} {bucket}/{key} is lost")
            return
        delays = [random.random() * 0.2]
        if random.random() < hazards.event_twice:
            world.counts["events repeated"] += 1
            delays.append(random.random() * 3)
        if random.random() < hazards.event_late:
            world.counts["events late"] += 1
            delays = [delay + random.random() * 300 for delay in delays]
        for delay in delays:
            self.on_the_way += 1
            world.after(delay, lambda: self._deliver(event))

    def _deliver(self, event: BucketEvent) -> None:
        if self.world.down.get(KAFKA, 0) > self.world.micros:
            # It stays in the queue on disk.
            self.world.after(3.0, lambda: self._deliver(event))
            return
        self.on_the_way -= 1
        self.log.append(TOPICS[event.bucket], f"{event.bucket}/{event.key}", notification(event))
