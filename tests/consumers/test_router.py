"""The router's loop, with fakes in place of Kafka, Postgres and MinIO."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumers.broker import Record
from consumers.headers import ATTEMPT, REDRIVEN_FROM
from consumers.router import Router
from consumers.rows import Changes, FileRow, KnownFiles
from consumers.topics import DEAD_LETTERS, WORK_TOPICS
from consumers.watched_contracts import WatchedContracts
from contracts.errors import BadWork, ObjectGone, ServiceUnavailable
from contracts.markers import CommitMarker
from contracts.states import FileState, Layer, Reason
from contracts.work import parse_work
from tests.consumers.samples import KEY, accepted, body, marker, message, planned, put, redriven, removal

DATASETS = Path(__file__).parents[2] / "contracts" / "datasets"


class Servers:
    """Kafka, the ledger and the store at once, writing down in one list what happened in which order."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.polls: list[list[Record]] = []
        self.committed: dict[tuple[str, int], int] = {}
        self.unsent: list[tuple[str, str, bytes]] = []
        self.sent: list[tuple[str, str, bytes]] = []
        self.known = KnownFiles()
        self.markers: list[CommitMarker] = []
        self.objects: dict[tuple[str, str], bytes] = {}
        self.down: list[str] = []
        """Operations that fail, once for each mention."""
        self.poison = ""
        """A key that the ledger refuses."""

    def does(self, operation: str) -> None:
        if operation in self.down:
            self.down.remove(operation)
            raise ServiceUnavailable(f"{operation} is down")
        self.order.append(operation)

    def poll(self, timeout_ms: int, max_records: int) -> list[Record]:
        return self.polls.pop(0) if self.polls else []

    def commit(self, offsets: dict[tuple[str, int], int]) -> None:
        self.does("commit")
        self.committed |= offsets

    def close(self) -> None:
        self.order.append("close")

    def send(self, topic: str, key: str, value: bytes, headers: object = None) -> None:
        self.unsent.append((topic, key, value))

    def flush(self) -> None:
        unsent, self.unsent = self.unsent, []
        self.does("flush")
        self.sent += unsent

    def apply(self, names: Iterable[tuple[str, str, str]], plan: Callable[[KnownFiles], tuple[Any, Changes]]) -> Any:
        if any(key == self.poison for _, key, _ in names):
            raise BadWork("no such text")
        self.does("ledger")
        return plan(self.known)[0]

    def record_marker(self, marker: CommitMarker) -> None:
        self.does("marker")
        self.markers.append(marker)

    def get_bytes(self, bucket: str, key: str, limit: int) -> bytes:
        self.does("get")
        if (bucket, key) not in self.objects:
            raise ObjectGone(f"{bucket}/{key} is not there")
        return self.objects[bucket, key]

    def work(self, layer: Layer = Layer.SILVER) -> list[str]:
        """Keys of the files handed on to a layer."""
        values = [value for topic, _, value in self.sent if topic == WORK_TOPICS[layer]]
        return [item.key for value in values for item in parse_work(value).items]

    def dead(self) -> list[dict[str, Any]]:
        return [json.loads(value) for topic, _, value in self.sent if topic == DEAD_LETTERS]


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def router(servers: Servers, stopping: threading.Event) -> Router:
    fake: Any = servers
    return Router(lambda: fake, fake, fake, fake, WatchedContracts(DATASETS), stopping)


def step(router: Router, servers: Servers, *records: Record) -> None:
    servers.polls.append(list(records))
    fake: Any = servers
    router.step(fake)


def commit_event(of: CommitMarker, servers: Servers) -> Record:
    servers.objects[of.layer, of.key] = of.model_dump_json().encode()
    return message(body(put(of.key, bucket=of.layer)), topic=f"lake.{of.layer}.events")


def test_offset_moves_only_after_ledger_and_work_are_durable(router: Router, servers: Servers) -> None:
    step(router, servers, message(body(put()), offset=41))
    assert servers.order == ["ledger", "flush", "commit"]
    assert servers.work() == [KEY]
    assert servers.committed == {("lake.bronze.events", 0): 42}


@pytest.mark.parametrize("down", ["ledger", "flush", "get", "marker"])
def test_server_that_is_down_for_a_moment_loses_nothing(router: Router, servers: Servers, down: str) -> None:
    servers.down = [down]
    step(router, servers, message(body(put())), commit_event(marker(accepted()), servers))
    assert set(servers.work()) == {KEY}
    assert servers.work(Layer.GOLD) == [KEY]
    assert servers.committed["lake.bronze.events", 0] == 1


def test_server_that_stays_down_leaves_the_offset_when_the_router_is_stopped(
    router: Router, servers: Servers, stopping: threading.Event
) -> None:
    servers.down = ["flush"]
    stopping.set()
    with pytest.raises(ServiceUnavailable):
        step(router, servers, message(body(put())))
    assert servers.committed == {}


def test_crash_between_ledger_and_kafka_hands_the_work_on_at_the_next_start(router: Router, servers: Servers) -> None:
    record = message(body(put()))
    servers.apply([], lambda known: planned(known, put()))
    assert servers.work() == []
    step(router, servers, record)
    assert servers.work() == [KEY]


def test_event_repeated_in_one_poll_makes_one_work_item_in_effect(router: Router, servers: Servers) -> None:
    step(router, servers, message(body(put())), message(body(put()), offset=1))
    assert set(servers.work()) == {KEY}
    row = servers.known.version("bronze", KEY, "a1")
    assert row is not None
    assert row.state == FileState.RECEIVED


@pytest.mark.parametrize(
    "value",
    [None, b"", b"\xff\xfe", b"[]", b'{"Records": []}', b'{"Records": [{"s3": 1}]}', b"[" * 100_000],
    ids=["tombstone", "empty", "binary", "list", "no-records", "malformed-record", "deep-nesting"],
)
def test_poison_message_is_a_dead_letter_and_the_next_one_goes_on(
    router: Router, servers: Servers, value: bytes | None
) -> None:
    step(router, servers, message(value, offset=4), message(body(put()), offset=5))
    (letter,) = servers.dead()
    assert (letter["reason"], letter["offset"], letter["key"]) == ("bad_event", 4, "bronze/key")
    assert letter["value"] is None if value is None else value.startswith(base64.b64decode(letter["value"]))
    assert letter["value_cut"] == (len(value or b"") > 65536)
    assert servers.work() == [KEY]
    assert servers.committed == {("lake.bronze.events", 0): 6}


def test_event_that_the_ledger_refuses_stops_no_other_of_its_poll(router: Router, servers: Servers) -> None:
    servers.poison = "nyc_yellow/poison.parquet"
    keys = ["nyc_yellow/1.parquet", servers.poison, "nyc_yellow/2.parquet"]
    step(router, servers, *(message(body(put(key)), offset=n) for n, key in enumerate(keys)))
    assert servers.work() == [keys[0], keys[2]]
    assert [(letter["reason"], letter["offset"]) for letter in servers.dead()] == [("bad_work", 1)]


def test_unknown_dataset_is_a_dead_letter_that_says_what_to_do(router: Router, servers: Servers) -> None:
    step(router, servers, message(body(put("oders/may.parquet"))))
    (letter,) = servers.dead()
    assert letter["reason"] == Reason.UNKNOWN_DATASET
    assert "'oders'" in letter["detail"]
    assert "known datasets: " in letter["detail"]
    assert "nyc_yellow" in letter["detail"]


def test_silver_marker_makes_gold_work_after_it_is_recorded(router: Router, servers: Servers) -> None:
    step(router, servers, commit_event(marker(accepted()), servers))
    assert servers.order == ["ledger", "get", "marker", "flush", "commit"]
    assert servers.work(Layer.GOLD) == [KEY]


def test_gold_marker_ends_the_way(router: Router, servers: Servers) -> None:
    step(router, servers, commit_event(marker(accepted(), layer=Layer.GOLD), servers))
    assert len(servers.markers) == 1
    assert servers.sent == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"dataset": "oders"}, "bad_work", id="unknown-dataset"),
        pytest.param({"layer": Layer.GOLD}, "bad_work", id="layer-of-another-bucket"),
        pytest.param({"batch_id": "other"}, "bad_work", id="not-at-its-place"),
        pytest.param({"schema_version": 99}, "bad_work", id="newer-schema"),
        pytest.param({"sources": (accepted("taxi_zones/a.parquet"),)}, "bad_work", id="file-of-another-dataset"),
        pytest.param({"sources": (accepted(), accepted("nyc_yellow/../x.parquet"))}, "bad_work", id="path-that-climbs"),
        pytest.param({"sources": (accepted(bucket="quarantine"),)}, "bad_work", id="file-of-another-bucket"),
        pytest.param(None, "object_gone", id="marker-gone"),
    ],
)
def test_marker_that_cannot_be_taken_is_a_dead_letter(
    router: Router, servers: Servers, change: dict[str, object] | None, reason: str
) -> None:
    record = commit_event(marker(accepted()), servers)
    place = ("silver", marker(accepted()).key)
    if change is None:
        del servers.objects[place]
    else:
        servers.objects[place] = marker(accepted()).model_copy(update=change).model_dump_json().encode()
    step(router, servers, record)
    assert [letter["reason"] for letter in servers.dead()] == [reason]
    assert servers.markers == []
    assert servers.committed == {("lake.silver.events", 0): 1}


@pytest.mark.parametrize(
    ("layer", "table"),
    [
        pytest.param(Layer.SILVER, "silver.taxi_zones", id="another-dataset's"),
        pytest.param(Layer.SILVER, "gold.nyc_yellow", id="another-layer's"),
        pytest.param(Layer.GOLD, "gold.nyc_yellow_zone_hour", id="not-the-main-one"),
    ],
)
def test_marker_of_a_table_that_the_dataset_does_not_write_there_is_a_dead_letter(
    router: Router, servers: Servers, layer: Layer, table: str
) -> None:
    forged = marker(accepted(), layer=layer).model_copy(update={"table": table})
    step(router, servers, commit_event(forged, servers))
    (letter,) = servers.dead()
    assert letter["reason"] == "bad_work"
    assert table in letter["detail"]
    assert servers.markers == []


def test_lost_kafka_is_connected_to_anew_and_nothing_was_committed(servers: Servers, stopping: threading.Event) -> None:
    fake: Any = servers
    connections = []

    def connect() -> Any:
        connections.append(1)
        if len(connections) == 2:
            stopping.set()
        return fake

    servers.down = ["commit"]
    servers.polls = [[message(body(put()))]]
    stopping.wait = lambda timeout=None: False  # type: ignore[method-assign]
    Router(connect, fake, fake, fake, WatchedContracts(DATASETS), stopping).run()
    assert len(connections) == 2
    assert servers.committed == {}
    assert servers.order.count("close") == 2


def test_contract_added_while_running_is_used_and_a_broken_one_is_not(tmp_path: Path) -> None:
    text = (DATASETS / "taxi_zones.yaml").read_text("utf-8")
    watched = WatchedContracts(tmp_path)
    assert watched.current() == {}
    (tmp_path / "a.yaml").write_text(text, "utf-8")
    assert list(watched.current()) == ["taxi_zones"]
    (tmp_path / "a.yaml").write_text("id: [", "utf-8")
    assert list(watched.current()) == ["taxi_zones"]


def test_event_that_came_by_the_other_target_already_costs_no_ledger_transaction(
    router: Router, servers: Servers
) -> None:
    step(router, servers, message(body(put()), offset=1))
    step(router, servers, message(body(put()), offset=2))
    assert servers.order == ["ledger", "flush", "commit", "flush", "commit"]
    assert servers.work() == [KEY]
    assert servers.committed["lake.bronze.events", 0] == 3


@pytest.mark.parametrize("at_once", [True, False], ids=["one-poll", "three-polls"])
def test_removal_that_came_before_its_put_counts_when_it_is_delivered_again(
    router: Router, servers: Servers, at_once: bool
) -> None:
    events = [message(body(event), offset=number) for number, event in enumerate((removal(), put(), removal()))]
    for records in [events] if at_once else [[event] for event in events]:
        step(router, servers, *records)
    known = servers.known.newest("bronze", KEY)
    assert known is not None
    assert known.removed_at is not None


def test_event_whose_hand_over_failed_is_looked_at_again(
    router: Router, servers: Servers, stopping: threading.Event
) -> None:
    stopping.set()
    servers.down = ["flush"]
    with pytest.raises(ServiceUnavailable):
        step(router, servers, message(body(put()), offset=1))
    step(router, servers, message(body(put()), offset=1))
    assert servers.work() == [KEY]


LOST = "oders/may.parquet"


def test_redriven_event_is_looked_at_although_it_came_a_moment_ago_and_keeps_its_history(
    router: Router, servers: Servers
) -> None:
    step(router, servers, message(body(put(LOST)), offset=1))
    step(router, servers, redriven(body(put(LOST)), offset=2, letter_id=12, attempt=2))
    first, second = servers.dead()
    assert (first["offset"], first["redriven_from"], first["attempt"]) == (1, None, 1)
    assert (second["offset"], second["redriven_from"], second["attempt"]) == (2, 12, 2)
    assert second["reason"] == Reason.UNKNOWN_DATASET


def test_redriven_poison_is_a_dead_letter_that_keeps_its_history(router: Router, servers: Servers) -> None:
    step(router, servers, redriven(b"poison", letter_id=3, attempt=4))
    assert [(letter["redriven_from"], letter["attempt"]) for letter in servers.dead()] == [(3, 4)]


@pytest.mark.parametrize("seen_at", ["10", "11"], ids=["once", "dropped-again-since"])
def test_redriven_event_starts_its_file_when_the_contract_has_come_since(
    router: Router, servers: Servers, seen_at: str
) -> None:
    quarantined = FileState.QUARANTINED
    servers.known.put(FileRow("bronze", KEY, "a1", seen_at.rjust(32, "0"), quarantined, Reason.UNKNOWN_DATASET))
    # Kafka fails after the ledger has the file as received: the second look must hand the work on nevertheless.
    servers.down = ["flush"]
    step(router, servers, redriven(body(put(sequencer="10"))))
    assert servers.work() == [KEY]
    row = servers.known.version("bronze", KEY, "a1")
    assert row is not None
    assert (row.state, int(row.sequencer, 16)) == (FileState.RECEIVED, int(seen_at, 16))
    assert servers.dead() == []


def test_redriven_event_of_a_file_that_is_done_changes_nothing(router: Router, servers: Servers) -> None:
    servers.known.put(FileRow("bronze", KEY, "a1", "10", FileState.DONE))
    step(router, servers, redriven(body(put())))
    assert servers.sent == []
    assert servers.known.version("bronze", KEY, "a1") == FileRow("bronze", KEY, "a1", "10", FileState.DONE)


def test_redriven_marker_event_makes_its_gold_work(router: Router, servers: Servers) -> None:
    record = commit_event(marker(accepted()), servers)
    step(router, servers, record)
    step(router, servers, replace(record, offset=1, headers={REDRIVEN_FROM: "1", ATTEMPT: "2"}))
    assert servers.work(Layer.GOLD) == [KEY, KEY]
