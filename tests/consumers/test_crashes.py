"""The router killed between every two steps: its real decisions and ledger, with Kafka and the store in memory."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from consumers.broker import Record
from consumers.ledger import Ledger
from consumers.router import Router
from consumers.topics import DEAD_LETTERS, WORK_TOPICS
from consumers.watched_contracts import WatchedContracts
from contracts.markers import CommitMarker
from contracts.states import FileState, Hop, Layer, Reason
from contracts.work import parse_work
from tests.consumers.samples import accepted, body, marker, message, put
from tests.consumers.sets import FOLDER, Line, listing, write_contract

pytestmark = pytest.mark.services

DATASETS = Path(__file__).parents[2] / "contracts" / "datasets"
GOOD, LOST = "nyc_yellow/good.parquet", "oders/lost.parquet"
MARKER: CommitMarker = marker(accepted("nyc_yellow/old.parquet"))
TOPIC, SILVER = "lake.bronze.events", "lake.silver.events"
MOST_STEPS = 100


class Killed(BaseException):
    """As a SIGKILL: nothing of the process goes on."""


class Machine:
    """Kafka and the object store, which outlive the router, and the moment at which it is killed."""

    def __init__(self, ledger: Ledger, kill_at: int) -> None:
        self.ledger = ledger
        self.kill_at = kill_at
        self.steps = 0
        self.log = [
            message(body(put(GOOD)), 0, TOPIC),
            message(body(put(LOST)), 1, TOPIC),
            message(b"no event", 2, TOPIC),
            message(body(put(MARKER.key, bucket="silver")), 0, SILVER),
        ]
        self.committed: dict[tuple[str, int], int] = {}
        self.unsent: list[tuple[str, bytes]] = []
        self.sent: list[tuple[str, bytes]] = []

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self.kill_at:
            raise Killed

    def poll(self, timeout_ms: int, max_records: int) -> list[Record]:
        return [r for r in self.log if r.offset >= self.committed.get((r.topic, r.partition), 0)]

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self._step()
        self._check_durable(offsets)
        self.committed |= offsets
        self._step()

    def send(self, topic: str, key: str, value: bytes, headers: object = None) -> None:
        self._step()
        self.unsent.append((topic, value))

    def flush(self) -> None:
        # Killed while it sends: Kafka has some of the messages.
        for sent in self.unsent:
            self._step()
            self.sent.append(sent)
        self.unsent = []
        self._step()

    def apply(self, names: Sequence[tuple[str, str, str]], plan: Any) -> Any:
        self._step()
        decided = self.ledger.apply(names, plan)
        self._step()
        return decided

    def record_marker(self, found: CommitMarker) -> None:
        self._step()
        self.ledger.record_marker(found)
        self._step()

    def get_bytes(self, bucket: str, key: str, limit: int) -> bytes:
        self._step()
        return MARKER.model_dump_json().encode()

    def work(self, layer: Layer) -> set[str]:
        values = [value for topic, value in self.sent if topic == WORK_TOPICS[layer]]
        return {item.key for value in values for item in parse_work(value).items}

    def dead(self) -> int:
        return sum(topic == DEAD_LETTERS for topic, _ in self.sent)

    def _check_durable(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """What the offsets stand for is in the ledger and in Kafka (I6)."""
        if offsets.get((TOPIC, 0), 0) > 0:
            assert self.ledger.story("bronze", GOOD) is not None
            assert self.work(Layer.SILVER) == {GOOD}
        if offsets.get((TOPIC, 0), 0) > 2:
            assert self.dead() >= 2
        if offsets.get((SILVER, 0), 0) > 0:
            assert self.ledger.commit_sources(MARKER.snapshot_id or 0)
            assert self.work(Layer.GOLD) == {"nyc_yellow/old.parquet"}


def start(machine: Machine) -> None:
    """A router in a fresh process: it remembers nothing. One poll."""
    machine.unsent = []
    fake: Any = machine
    Router(lambda: fake, fake, fake, fake, WatchedContracts(DATASETS), threading.Event()).step(fake)


def test_router_killed_between_any_two_steps_loses_nothing_and_moves_no_offset_too_early(
    emptied: Callable[[], Ledger],
) -> None:
    kills = 0
    for kill_at in itertools.count(1):
        assert kill_at < MOST_STEPS
        ledger = emptied()
        machine = Machine(ledger, kill_at)
        try:
            start(machine)
        except Killed:
            kills += 1
            start(machine)
        assert machine.committed == {(TOPIC, 0): 3, (SILVER, 0): 1} or machine.steps < kill_at
        good, lost = ledger.story("bronze", GOOD), ledger.story("bronze", LOST)
        assert good is not None
        assert lost is not None
        assert (good.state, lost.reason) == (FileState.RECEIVED, Reason.UNKNOWN_DATASET)
        assert sorted(passage.hop for passage in good.timeline) == ["event", "put", "routed"]
        assert (machine.work(Layer.SILVER), machine.dead() >= 2) == ({GOOD}, True)
        assert machine.work(Layer.GOLD) == {"nyc_yellow/old.parquet"}
        if machine.steps < kill_at:
            break
    assert kills >= 10


class KilledLine(Line):
    """Killed at one step of the ledger, the store or Kafka, counted from when it is armed."""

    def __init__(self, ledger: Ledger, contracts: Path) -> None:
        self.kill_at = 0
        self.steps = 0
        self.moved = False
        super().__init__(ledger, contracts)
        self.real, self.ledger = self.ledger, self  # type: ignore[assignment]
        self.router = self.start(contracts)

    def _step(self) -> None:
        self.steps += self.kill_at > 0
        if self.steps and self.steps == self.kill_at:
            raise Killed

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.real, name)

        def between_steps(*arguments: Any, **named: Any) -> Any:
            self._step()
            answer = method(*arguments, **named)
            self._step()
            return answer

        return between_steps

    def story(self, name: str, etag: str | None = None) -> Any:
        return self.real.story("bronze", FOLDER + name, etag)

    def send(self, topic: str, key: str, value: bytes, headers: object = None) -> None:
        self._step()
        super().send(topic, key, value, headers)

    def flush(self) -> None:
        self._step()
        super().flush()
        self._step()

    def get_bytes(self, bucket: str, key: str, limit: int, etag: str | None = None) -> bytes:
        self._step()
        return super().get_bytes(bucket, key, limit, etag)

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        self._step()
        assert set(self.in_gold()) == {"a", "b"}
        self.moved = True


@pytest.mark.parametrize("last", ["manifest", "marker", "both"])
def test_router_killed_between_any_two_steps_hands_a_complete_set_on(
    emptied: Callable[[], Ledger], tmp_path: Path, last: str
) -> None:
    contracts = write_contract(tmp_path)
    for kill_at in itertools.count(1):
        assert kill_at < MOST_STEPS
        ledger = emptied()
        whole = Line(ledger, contracts)
        whole.drop("a", "b")
        whole.run(Layer.SILVER, "a")
        marker_b = whole.run(Layer.SILVER, "b", tell=last == "manifest")
        manifest = whole.event("manifest.json", listing(a=10, b=10))
        if last == "marker":
            whole.tell(manifest)
        events = {"manifest": [manifest], "marker": [marker_b], "both": [marker_b, manifest]}[last]
        line = KilledLine(ledger, contracts)
        line.objects, line.kill_at = whole.objects, kill_at
        try:
            line.tell(*events)
        except Killed:
            line.tell(*events, router=line.start(contracts))
        assert line.moved
        assert set(line.in_gold()) == {"a", "b"}
        stories = [line.story(name) for name in ("a.parquet", "b.parquet", "manifest.json")]
        assert [(story.state, story.detail) for story in stories] == [
            (FileState.RUNNING, None),
            (FileState.RUNNING, None),
            (FileState.DONE, None),
        ]
        told = [passage.hop for passage in stories[0].timeline if passage.hop in (Hop.HELD, Hop.RELEASED)]
        assert told == [Hop.HELD, Hop.RELEASED]
        if line.steps < kill_at:
            break
    assert kill_at > 10
