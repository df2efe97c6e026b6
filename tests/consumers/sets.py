"""A router with its real ledger and decisions, Kafka and the store in memory, and a dataset that waits for sets."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from consumers import reconciler
from consumers.broker import Record
from consumers.ledger import Ledger
from consumers.router import Router
from consumers.topics import DEAD_LETTERS, WORK_TOPICS
from consumers.watched_contracts import WatchedContracts
from contracts.dataset import DatasetContract
from contracts.errors import ObjectChanged, ObjectGone, ObjectTooLarge
from contracts.events import BucketEvent
from contracts.markers import CommitMarker, SourceResult
from contracts.states import Layer
from contracts.story import FileStory
from contracts.work import WorkItem, make_batch, parse_work
from tests.consumers.samples import body, marker, message, put

FOLDER = "nyc_yellow/2025/"
DATASETS = Path(__file__).parents[2] / "contracts" / "datasets"


def write_contract(folder: Path, **change: object) -> Path:
    """The contract of nyc_yellow, which waits for sets up to six hours."""
    document = yaml.safe_load((DATASETS / "nyc_yellow.yaml").read_text("utf-8"))
    rules = {"timeLimit": "PT6H", "onTimeLimit": "release"} | change
    own = [item for item in document["customProperties"] if item["property"] != "onDelete"]
    retract = {"property": "onDelete", "value": "retract"}
    document["customProperties"] = [*own, retract, {"property": "completeness", "value": rules}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nyc_yellow.yaml").write_text(yaml.safe_dump(document), "utf-8")
    # Which it refers to.
    shutil.copy(DATASETS / "taxi_zones.yaml", folder)
    return folder


def listing(**rows: int | None) -> bytes:
    """A manifest: `a=10` lists a.parquet with ten rows."""
    return json.dumps({"files": [{"name": f"{name}.parquet", "rows": count} for name, count in rows.items()]}).encode()


class Line:
    """What a dataset's files pass through; stages end as soon as they are asked to."""

    def __init__(self, ledger: Ledger, contracts: Path) -> None:
        self.ledger = ledger
        self.objects: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.sent: list[tuple[str, bytes]] = []
        self.silver: list[CommitMarker] = []
        self._unsent: list[tuple[str, bytes]] = []
        self._numbers = itertools.count(16)
        self._polled: list[Record] = []
        self.router = self.start(contracts)

    def start(self, contracts: Path) -> Router:
        """A router in a fresh process: it remembers nothing."""
        fake: Any = self
        self._unsent = []
        return Router(lambda: fake, fake, self.ledger, fake, WatchedContracts(contracts), threading.Event())

    def event(self, name: str, content: bytes = b"data", etag: str = "") -> BucketEvent:
        """An object put into the set's folder, and its event."""
        number = next(self._numbers)
        event = put(FOLDER + name, etag or f"e{number}", f"{number:X}")
        self.objects[event.bucket, event.key] = (content, event.etag)
        return event

    def tell(self, *events: BucketEvent, router: Router | None = None) -> None:
        """The router reads events in one poll."""
        self._polled = [
            message(body(event), topic=f"lake.{event.bucket}.events", offset=number)
            for number, event in enumerate(events)
        ]
        fake: Any = self
        (router or self.router).step(fake)

    def drop(self, *names: str) -> dict[str, BucketEvent]:
        """Data files come."""
        events = {name: self.event(f"{name}.parquet") for name in names}
        self.tell(*events.values())
        return events

    def list_files(self, **rows: int | None) -> BucketEvent:
        """A manifest comes."""
        event = self.event("manifest.json", listing(**rows))
        self.tell(event)
        return event

    def run(self, layer: Layer, *names: str, rows: int = 10, tell: bool = True, **change: object) -> BucketEvent:
        """The stage takes the work that was handed on last for some files, in one batch, and commits.

        Returns:
            The event of its marker.
        """
        newest = {item.key: item for item in self.work(layer)}
        items = [newest[f"{FOLDER}{name}.parquet"] for name in names]
        batch = make_batch(layer, "nyc_yellow", items)
        assert self.ledger.claim(batch)
        self.ledger.handed_over(batch.batch_id)
        own = [_result(item, rows, change) for item in items]
        found = marker(*own, layer=layer, batch_id=batch.batch_id, snapshot=next(self._numbers))
        found = found.model_copy(update={"committed_at": datetime.now(UTC)})
        self.objects[layer, found.key] = (found.model_dump_json().encode(), "m")
        event = put(found.key, bucket=layer)
        if tell:
            self.tell(event)
        return event

    def work(self, layer: Layer = Layer.GOLD) -> list[WorkItem]:
        """What was handed on to a layer."""
        values = [value for topic, value in self.sent if topic == WORK_TOPICS[layer]]
        return [item for value in values for item in parse_work(value).items]

    def in_gold(self) -> list[str]:
        """Names of the files handed on to gold, once for each time."""
        return [item.key.removeprefix(FOLDER).removesuffix(".parquet") for item in self.work()]

    def dead(self) -> list[dict[str, Any]]:
        return [json.loads(value) for topic, value in self.sent if topic == DEAD_LETTERS]

    def story(self, name: str, etag: str | None = None) -> FileStory:
        found = self.ledger.story("bronze", FOLDER + name if "." in name else f"{FOLDER}{name}.parquet", etag)
        assert found is not None
        return found

    def hops(self, name: str, etag: str | None = None) -> list[str]:
        """Of waiting alone."""
        return [p.hop for p in self.story(name, etag).timeline if p.hop in ("held", "released")]

    # Kafka

    def poll(self, timeout_ms: int, max_records: int) -> Sequence[Record]:
        return self._polled

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        pass

    def send(self, topic: str, key: str, value: bytes, headers: object = None) -> None:
        self._unsent.append((topic, value))

    def flush(self) -> None:
        self.sent += self._unsent
        self._unsent = []

    # The store

    def get_bytes(self, bucket: str, key: str, limit: int, etag: str | None = None) -> bytes:
        if (bucket, key) not in self.objects:
            raise ObjectGone(f"{bucket}/{key!r} is not there (NoSuchKey).")
        content, found = self.objects[bucket, key]
        if etag not in (None, found):
            raise ObjectChanged(f"{bucket}/{key!r} has other content by now than the version asked for.")
        if len(content) > limit:
            raise ObjectTooLarge(f"{bucket}/{key!r} has {len(content)} bytes; at most {limit} were expected here.")
        return content


def _result(item: WorkItem, rows: int, change: Mapping[str, object]) -> SourceResult:
    refused = "refused" in change
    fields: dict[str, Any] = {
        "bucket": item.bucket,
        "key": item.key,
        "etag": item.etag,
        "rows_in": 0 if refused else rows,
        "rows_accepted": 0 if refused else rows,
        "cause": item.cause,
        "depth": item.depth,
        "deleted": item.deleted,
    }
    return SourceResult(**fields | change)


def committed_at(line: Line, moment: datetime) -> None:
    """All silver results are of that moment."""
    line.ledger._run(lambda connection: connection.execute("UPDATE ledger.results SET at = %s", (moment,)))


def reconcile_pass(
    line: Line, contracts: Mapping[str, DatasetContract], now: datetime, repair: bool
) -> reconciler._Pass:
    """A full pass of reconcile over the ledger and Kafka of a line, before any of its steps."""
    others: dict[str, Any] = {"settings": None, "store": None, "batches_since": None, "oldest_unread": lambda *_: None}
    fake: Any = line
    return reconciler._Pass(
        contracts=tuple(contracts.values()),
        ledger=line.ledger,
        producer=fake,
        full=True,
        repair=repair,
        now=now,
        **others,
    )
