"""The hand-over, against fakes at its edges that keep one common record of what happened in which order."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from sluice_listener.handover import HandOver
from sluice_listener.topic import Message

from consumers.batching import DEFAULT_BATCH_FILES, MAX_WAITING
from consumers.routing import MAX_ITEMS
from contracts.dataset import DatasetContract
from contracts.errors import ServiceUnavailable
from contracts.loading import load_contracts
from contracts.settings import load_settings
from contracts.states import Layer
from contracts.work import Batch, WorkItem, WorkMessage

TOPIC = "lake.bronze.work"
CONTRACTS = load_contracts(load_settings().contracts_dir)
DATASET = next(iter(CONTRACTS))


@dataclass
class World:
    """All fakes in one: queue of messages, ledger, REST API, dead letters; `events` is the order of effects."""

    messages: list[Message] = field(default_factory=list)
    events: list[tuple[str, Any]] = field(default_factory=list)
    claimed: dict[str, Batch] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)
    active: str | None = None
    is_paused: bool = False
    postponed: dict[str, str] = field(default_factory=dict)
    """DAG -> the run of it that waits for a time to come."""
    tasks: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    """DAG -> the task of it that waits for a time to come."""
    held: set[int] = field(default_factory=set)
    read_at_most: int = 1_000
    failures: dict[str, int] = field(default_factory=dict)
    """Name of a call -> how many times it still fails."""

    def _fail(self, name: str) -> None:
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            raise ServiceUnavailable(f"{name} is away")

    def read(self, timeout: float) -> list[Message]:
        found, self.messages = self.messages[: self.read_at_most], self.messages[self.read_at_most :]
        return found

    def hold(self, partitions: Collection[int]) -> None:
        self.held = set(partitions)

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> bool:
        self.events.append(("commit", dict(offsets)))
        return True

    def send(self, message: Message, reason: str, detail: str) -> None:
        self._fail("send")
        self.events.append(("letter", reason))

    def unclaimed(self, layer: Layer, dataset: str, items: tuple[WorkItem, ...]) -> list[WorkItem]:
        self._fail("unclaimed")
        taken = {item for batch_id in self.handed for item in self.claimed[batch_id].items}
        return [item for item in items if item not in taken]

    @property
    def handed(self) -> list[str]:
        return [what for name, what in self.events if name == "handed_over"]

    def claim(self, batch: Batch) -> bool:
        self._fail("claim")
        new = batch.batch_id not in self.claimed
        self.claimed[batch.batch_id] = batch
        self.events.append(("claim", batch.batch_id))
        return new

    def handed_over(self, batch_id: str) -> None:
        self.events.append(("handed_over", batch_id))

    async def create_run(self, dag_id: str, run_id: str, conf: dict[str, Any], note: str) -> bool:
        self._fail("create_run")
        new = run_id not in self.runs
        self.runs.add(run_id)
        self.events.append(("run", conf["batch_id"]))
        return new

    async def active_run(self, dag_id: str) -> str | None:
        self._fail("active_run")
        return self.active

    async def paused(self, dag_id: str) -> bool:
        self._fail("paused")
        return self.is_paused

    async def postponed_runs(self, dag_id: str) -> list[tuple[str, dict[str, Any], str]]:
        return [(self.postponed[dag_id], {"batch_id": "b1"}, "a file")] if dag_id in self.postponed else []

    async def postponed_tasks(self, dag_id: str) -> list[tuple[str, str, int]]:
        return [self.tasks[dag_id]] if dag_id in self.tasks else []

    async def try_now(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> None:
        self._fail("try_now")
        assert self.tasks.pop(dag_id) == (run_id, task_id, map_index)
        self.events.append(("try", run_id))

    async def end_run(self, dag_id: str, run_id: str, note: str) -> None:
        self._fail("end_run")
        self.events.append(("end", run_id))
        del self.postponed[dag_id]

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def commits(self) -> list[Any]:
        return [what for name, what in self.events if name == "commit"]


async def direct(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def hand_over(
    world: World, contracts: Mapping[str, DatasetContract] = CONTRACTS, layer: Layer = Layer.SILVER
) -> HandOver:
    return HandOver(layer, world, world, world, world, lambda: contracts, direct)


def item(name: str) -> WorkItem:
    return WorkItem(bucket="bronze", key=f"{DATASET}/{name}", etag="e", version="1")


def message(offset: int, names: Iterable[str] = (), dataset: str = DATASET, layer: Layer = Layer.SILVER) -> Message:
    items = tuple(item(name) for name in names or [f"{offset}.parquet"])
    work = WorkMessage(layer=layer, dataset=dataset, items=items, at=datetime.now(UTC))
    return Message(TOPIC, 0, offset, work.model_dump_json().encode(), b"key")


def forged(**fields: Any) -> Message:
    """Work whose second item nobody of ours would send."""
    items = (item("good.parquet"), item("bad.parquet").model_copy(update=fields))
    work = WorkMessage(layer=Layer.SILVER, dataset=DATASET, items=items, at=datetime.now(UTC))
    return Message(TOPIC, 0, 0, work.model_dump_json().encode(), b"key")


def steps(hands: HandOver, count: int = 1) -> None:
    async def run() -> None:
        for _ in range(count):
            await hands.step()

    asyncio.run(run())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice_listener.handover.RETRY", 0.0)


@pytest.fixture
def listen(monkeypatch: pytest.MonkeyPatch) -> Callable[[HandOver], None]:
    """Let the loop itself go through some twenty rounds, however long they take: its clock advances by a look at it."""
    looks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: next(looks) / 100, time=lambda: 0.0)

    def run(hands: HandOver) -> None:
        monkeypatch.setattr("sluice_listener.handover.time", clock)
        asyncio.run(hands.run(clock.monotonic() + 1.0))

    return run


def test_full_messages_and_what_follows_them_are_one_batch() -> None:
    def names(offset: int, count: int) -> list[str]:
        return [f"{offset}-{number}.parquet" for number in range(count)]

    counts = (MAX_ITEMS, MAX_ITEMS, 5)
    world = World([message(offset, names(offset, count)) for offset, count in enumerate(counts)], read_at_most=1)
    steps(hand_over(world))
    assert [len(batch.items) for batch in world.claimed.values()] == [sum(counts)]


def test_message_that_is_not_full_waits_for_no_other() -> None:
    world = World([message(0), message(1)], read_at_most=1)
    steps(hand_over(world))
    assert [len(batch.items) for batch in world.claimed.values()] == [1]


def test_offset_moves_only_after_claim_and_run() -> None:
    world = World([message(0)])
    steps(hand_over(world))
    assert world.names() == ["claim", "run", "handed_over", "commit"]
    assert world.commits() == [{(TOPIC, 0): 1}]


@pytest.mark.parametrize("call", ["active_run", "unclaimed", "claim", "create_run"])
def test_offset_stays_while_a_server_is_away_and_moves_once_it_is_back(call: str) -> None:
    world = World([message(0)], failures={call: 2})
    hands = hand_over(world)
    steps(hands, 2)
    assert {(TOPIC, 0): 1} not in world.commits()
    steps(hands)
    assert world.commits()[-1] == {(TOPIC, 0): 1}
    assert len(world.runs) == 1


def test_run_that_is_there_already_counts_as_made() -> None:
    first = World([message(0)])
    steps(hand_over(first))
    second = World([message(0)], runs=set(first.runs))
    steps(hand_over(second))
    assert second.commits() == [{(TOPIC, 0): 1}]
    assert second.runs == first.runs


def test_messages_that_come_again_after_the_hand_over_make_no_second_run() -> None:
    world = World([message(0)])
    steps(hand_over(world))
    world.messages = [message(0), message(1)]
    steps(hand_over(world))
    files = [len(world.claimed[what].items) for name, what in world.events if name == "run"]
    assert files == [1, 1]
    assert world.commits()[-1] == {(TOPIC, 0): 2}


def test_files_gather_into_one_batch_while_a_run_is_under_way() -> None:
    world = World([message(0), message(1)], active="running")
    hands = hand_over(world)
    steps(hands)
    world.messages = [message(2)]
    steps(hands)
    assert "claim" not in world.names()
    assert {(TOPIC, 0): 0} in world.commits() or world.commits() == []
    world.active = None
    steps(hands)
    assert [len(batch.items) for batch in world.claimed.values()] == [3]
    assert world.commits()[-1] == {(TOPIC, 0): 3}


def test_paused_stage_keeps_its_files_waiting_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    world = World([message(0)], active="queued", is_paused=True)
    steps(hand_over(world), 3)
    assert not world.runs
    assert caplog.text.count("is paused, so 1 file(s) wait") == 1


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (Message(TOPIC, 0, 0, b'{"nonsense":'), "bad_work"),
        (Message(TOPIC, 0, 0, None), "bad_work"),
        (message(0, layer=Layer.GOLD), "bad_work"),
        (message(0, dataset="nobody"), "unknown_dataset"),
        (forged(key="another/a.parquet"), "bad_work"),
        (forged(key=f"{DATASET}/../another/a.parquet"), "bad_work"),
        (forged(key=f"{DATASET}/%2e%2e/another/a.parquet"), "bad_work"),
        (forged(key=f"/{DATASET}/a.parquet"), "bad_work"),
        (forged(bucket="quarantine"), "bad_work"),
        (forged(bucket="silver", deleted=True), "bad_work"),
        (forged(etag="\0"), "bad_work"),
    ],
    ids=[
        *("not-json", "empty", "other-layer", "unknown-dataset", "another-dataset-s-file", "path-that-climbs"),
        *(
            "encoded-path-that-climbs",
            "absolute-path",
            "quarantined-file",
            "deletion-in-silver",
            "text-that-no-ledger-holds",
        ),
    ],
)
def test_message_that_cannot_be_used_goes_to_the_dead_letters_and_blocks_nothing(poison: Message, reason: str) -> None:
    world = World([poison, message(1)])
    steps(hand_over(world))
    assert ("letter", reason) in world.events
    assert [[item.key for item in batch.items] for batch in world.claimed.values()] == [[f"{DATASET}/1.parquet"]]
    assert len(world.runs) == 1
    assert world.commits() == [{(TOPIC, 0): 2}]


def test_dataset_of_which_too_many_files_wait_holds_its_own_partition_alone(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"{number}.parquet" for number in range(1000)]
    many = [message(offset, [f"{offset}/{name}" for name in names]) for offset in range(MAX_WAITING // 1000)]
    world = World(many, active="running")
    hands = hand_over(world)
    for _ in range(3):
        steps(hands)
    assert world.held == {0}
    assert f"20,000 file(s) of {DATASET} wait" in caplog.text
    world.active = None
    steps(hands, 2 + MAX_WAITING // DEFAULT_BATCH_FILES)
    assert world.held == set()


def test_offset_does_not_pass_a_dead_letter_that_is_not_written_yet() -> None:
    world = World([Message(TOPIC, 0, 0, b"poison")], failures={"send": 3})
    steps(hand_over(world))
    assert world.names() == ["letter", "commit"]


def test_new_contract_is_found_without_a_restart() -> None:
    world = World([message(0)])
    known: dict[str, DatasetContract] = {}
    hands = hand_over(world, known)
    known.update(CONTRACTS)
    steps(hands)
    assert len(world.runs) == 1


def test_loop_ends_when_its_time_is_up_although_the_api_is_away() -> None:
    world = World([message(0)], failures={"active_run": 10**6})
    asyncio.run(hand_over(world).run(time.monotonic() + 0.05))
    assert not world.runs


def test_listener_looks_at_its_stages_again_until_the_api_is_there(
    listen: Callable[[HandOver], None], caplog: pytest.LogCaptureFixture
) -> None:
    world = World(is_paused=True, failures={"paused": 2})
    listen(hand_over(world))
    assert caplog.text.count("is paused: its files will wait") == len(CONTRACTS)


def test_run_made_while_the_clock_was_ahead_is_replaced_by_one_that_starts_now(
    listen: Callable[[HandOver], None],
) -> None:
    world = World(postponed={f"{DATASET}_to_silver": "a.parquet__b1"}, failures={"end_run": 1})
    listen(hand_over(world))
    assert set(world.runs) == {"a.parquet__b1__again"}
    assert world.names() == ["run", "run", "end"]


@pytest.mark.parametrize("dag_id", [f"{DATASET}_to_silver", "profiles", "reconcile", "upkeep"])
def test_task_that_failed_while_the_clock_was_ahead_is_tried_at_once(
    listen: Callable[[HandOver], None], dag_id: str
) -> None:
    world = World(tasks={dag_id: ("r1", "a_task", 2)}, failures={"try_now": 1})
    listen(hand_over(world))
    assert world.events == [("try", "r1")]


def test_listener_goes_on_looking_for_what_a_late_server_noted_after_the_clock_was_set_back(
    listen: Callable[[HandOver], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    now, reads = [10_000.0], []
    monkeypatch.setattr("sluice_listener.handover._clock", lambda: now[0])
    monkeypatch.setattr("sluice_listener.handover.LOOK_AGAIN", 0.01)

    def read(timeout: float) -> list[Message]:
        reads.append(now[0])
        now[0] = 9_000.0
        if len(reads) == 3:
            # By now it has looked since.
            world.tasks["profiles"] = ("r1", "a_task", -1)
        return []

    monkeypatch.setattr(world, "read", read)
    listen(hand_over(world))
    assert world.events == [("try", "r1")]


def test_listener_of_gold_leaves_what_is_no_stage_to_that_of_silver(listen: Callable[[HandOver], None]) -> None:
    world = World(tasks={"profiles": ("r1", "a_task", -1)})
    listen(hand_over(world, layer=Layer.GOLD))
    assert world.events == []


def test_listener_looks_for_postponed_runs_whenever_the_clock_is_set_back(
    listen: Callable[[HandOver], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    now = [10_000.0]
    monkeypatch.setattr("sluice_listener.handover._clock", lambda: now[0])

    def read(timeout: float) -> list[Message]:
        if now[0] == 10_000.0:
            # By now it has looked once.
            world.postponed[f"{DATASET}_to_silver"] = "a.parquet__b1"
            now[0] -= 600
        return []

    monkeypatch.setattr(world, "read", read)
    listen(hand_over(world))
    assert ("end", "a.parquet__b1") in world.events


def test_listener_of_gold_asks_for_no_stage_of_a_reference(
    listen: Callable[[HandOver], None], caplog: pytest.LogCaptureFixture
) -> None:
    world = World(is_paused=True)
    listen(hand_over(world, layer=Layer.GOLD))
    with_gold = [name for name, contract in CONTRACTS.items() if contract.gold]
    assert caplog.text.count("is paused: its files will wait") == len(with_gold) < len(CONTRACTS)
