"""The listener killed or overtaken between every two steps: real decisions and ledger, Kafka and Airflow in memory."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sluice_listener.handover import HandOver
from sluice_listener.topic import Message

from consumers.ledger import Ledger
from consumers.routing import Work, plan
from consumers.topics import WORK_TOPICS
from contracts.markers import SourceResult
from contracts.states import FileState, Layer
from contracts.work import Batch, WorkItem, WorkMessage, parse_work, stage_dag_id
from tests.consumers.samples import CONTRACT, NOON, arrival, marker, put

pytestmark = pytest.mark.services

TOPIC = WORK_TOPICS[Layer.SILVER]
PLACE = (TOPIC, 0)
CONTRACTS = {
    "nyc_yellow": CONTRACT.model_copy(update={"max_batch_files": 2}),
    "nyc_green": CONTRACT.model_copy(update={"dataset": "nyc_green"}),
}
WORK: list[tuple[str, ...]] = [
    (),  # nothing that a listener could read
    ("nyc_yellow/a", "nyc_yellow/b"),
    ("nyc_green/c",),
    ("nyc_yellow/d",),
    ("nobody/x",),
    ("nyc_yellow/a",),  # the router was killed before its offset moved
    ("nyc_green/e",),
]
FILES = {"nyc_yellow/a", "nyc_yellow/b", "nyc_yellow/d", "nyc_green/c", "nyc_green/e"}
POISON = {0, 4}
LATE, LATER = "nyc_green/f", "nyc_green/g"
MOST_STEPS = 100


class Killed(BaseException):
    """As a SIGKILL: nothing of the process goes on."""


@dataclass
class Run:
    """A DAG run, and whether it has ended."""

    dag_id: str
    batch: Batch
    ended: bool = False


class Member:
    """A consumer: it reads on from the group's offset, and only the group's present member may commit."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.join()

    def join(self) -> None:
        """Get the partition from whoever had it."""
        self._machine.member = self
        self._position = self._machine.committed

    def read(self, timeout: float) -> list[Message]:
        if self._machine.member is not self:
            return []
        found = self._machine.log[self._position :]
        self._position += len(found)
        return found

    def hold(self, partitions: Collection[int]) -> None: ...

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> bool:
        if self._machine.member is not self:
            return False
        with self._machine.effect():
            # Overtaken just now, perhaps.
            if self._machine.member is not self:
                return False
            assert offsets.keys() == {PLACE}
            self._machine.check_durable(offsets[PLACE])
            self._machine.committed = offsets[PLACE]
            return True


class Machine:
    """Kafka, Airflow and the ledger, which outlive a listener, and what happens at one of its steps."""

    def __init__(self, ledger: Ledger, at: int = 0, happens: Callable[[], None] = lambda: None) -> None:
        self.ledger = ledger
        self.at = at
        self.happens = happens
        self.steps = 0
        self.log: list[Message] = []
        self.committed = 0
        self.member: Member | None = None
        self.letters: list[int] = []
        self.runs: dict[str, Run] = {}
        self.others: dict[str, str] = {}
        """DAG -> state of a run that somebody else made; `queued` since the DAG is paused."""
        self.before_others: tuple[set[str], int] | None = None
        """Files that had runs, and the offset, when all that was left had to wait for those."""
        for keys in WORK:
            self.arrive(*keys)

    def arrive(self, *keys: str) -> None:
        """The router records files and sends one work message of them."""
        body = b"no work"
        if keys:
            dataset = keys[0].split("/")[0]
            items = tuple(item for key in keys for item in self._received(key))
            body = WorkMessage(layer=Layer.SILVER, dataset=dataset, items=items, at=NOON).model_dump_json().encode()
        self.log.append(Message(TOPIC, 0, len(self.log), body))

    def _received(self, key: str) -> Iterator[WorkItem]:
        event = put(f"{key}.parquet")
        contracts = CONTRACTS | {"nobody": CONTRACT.model_copy(update={"dataset": "nobody"})}
        name = (event.bucket, event.key, event.etag)
        for decided in self.ledger.apply([name], lambda known: plan([arrival(event)], contracts, known, NOON)):
            work = decided if isinstance(decided, Work) else getattr(decided, "again", None)
            assert isinstance(work, Work)
            yield work.item.model_copy(update={"depth": Layer.SILVER})

    @contextmanager
    def effect(self) -> Iterator[None]:
        """Something durable, with a step before it and one after it."""
        self._step()
        yield
        self._step()

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            self.happens()

    def send(self, message: Message, reason: str, detail: str) -> None:
        with self.effect():
            self.letters.append(message.offset)

    def unclaimed(self, layer: Layer, dataset: str, items: tuple[WorkItem, ...]) -> list[WorkItem]:
        return self.ledger.unclaimed(layer, dataset, items)

    def claim(self, batch: Batch) -> bool:
        with self.effect():
            return self.ledger.claim(batch)

    def handed_over(self, batch_id: str) -> None:
        with self.effect():
            self.ledger.handed_over(batch_id)

    async def create_run(self, dag_id: str, run_id: str, conf: dict[str, Any], note: str) -> bool:
        with self.effect():
            if run_id in self.runs:
                return False
            self.runs[run_id] = Run(dag_id, self.ledger.load_batch(conf["batch_id"]))
            return True

    async def active_run(self, dag_id: str) -> str | None:
        own = any(run.dag_id == dag_id and not run.ended for run in self.runs.values())
        return "queued" if own else self.others.get(dag_id)

    async def paused(self, dag_id: str) -> bool:
        return self.others.get(dag_id) == "queued"

    async def postponed_runs(self, dag_id: str) -> list[tuple[str, dict[str, Any], str]]:
        return []

    async def postponed_tasks(self, dag_id: str) -> list[tuple[str, str, int]]:
        return []

    async def try_now(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> None:
        raise NotImplementedError

    async def end_run(self, dag_id: str, run_id: str, note: str) -> None:
        raise NotImplementedError

    def run_all(self) -> bool:
        """Airflow runs what is queued, and the router records the markers. Whether there was anything."""
        waiting = [(run_id, run) for run_id, run in self.runs.items() if not run.ended]
        for run_id, run in waiting:
            self.ledger.started(run.batch, run.dag_id, run_id, 1)
            self.ledger.record_marker(marker(*map(taken, run.batch.items), batch_id=run.batch.batch_id))
            run.ended = True
        return bool(waiting)

    def end_others(self) -> bool:
        """The runs that somebody else made end. Whether there were any."""
        if not self.others:
            return False
        self.before_others = set(self.files_of_runs()), self.committed
        self.others.clear()
        return True

    def files_of_runs(self) -> Counter[str]:
        """Key without its ending -> runs that have it."""
        return Counter(item.key.removesuffix(".parquet") for run in self.runs.values() for item in run.batch.items)

    def check_durable(self, offset: int) -> None:
        """What an offset stands for is in a run, and the ledger knows of it, or in the dead letters."""
        in_runs = {item for run in self.runs.values() for item in run.batch.items}
        for message in self.log[:offset]:
            if message.offset in POISON:
                assert message.offset in self.letters
            else:
                work = parse_work(message.value)
                assert set(work.items) <= in_runs
                assert self.ledger.unclaimed(work.layer, work.dataset, work.items) == []

    def assert_all_done(self, files: set[str]) -> None:
        assert self.committed == len(self.log)
        assert set(self.letters) == POISON
        assert self.files_of_runs().keys() == files
        stories = [self.ledger.story("bronze", f"{name}.parquet") for name in files]
        assert {story.state for story in stories if story} == {FileState.DONE}


def taken(item: WorkItem) -> SourceResult:
    names = item.model_dump(include={"bucket", "key", "etag", "cause", "depth"})
    return SourceResult(**names, rows_in=1, rows_accepted=1)


class Listener:
    """A listener in a fresh process: it remembers nothing."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.member = Member(machine)
        self._hands = HandOver(Layer.SILVER, self.member, machine, machine, machine, lambda: CONTRACTS, self._call)

    @staticmethod
    async def _call(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def work(self) -> None:
        """Until there is nothing to do, and Airflow has run everything."""
        machine, quiet = self._machine, False
        while not quiet:
            before = machine.steps
            finish(self._hands.step())
            quiet = machine.steps == before and not machine.run_all() and not machine.end_others()


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it to its end; nothing in memory ever waits, so there need be no event loop, and one may run in another."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


def work_through_a_kill(machine: Machine, meanwhile: Callable[[], None] = lambda: None) -> bool:
    """A listener, and after its death, if that comes, a second one. Whether it came."""
    try:
        Listener(machine).work()
    except Killed:
        meanwhile()
        Listener(machine).work()
        return True
    return False


def kill() -> None:
    raise Killed


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice_listener.handover.RETRY", 0.0)


@pytest.mark.parametrize("runs_go_on", [False, True], ids=["runs-wait", "runs-go-on"])
@pytest.mark.parametrize("late", [False, True], ids=["no-file-comes", "a-file-comes"])
def test_listener_killed_between_any_two_steps_puts_each_file_into_one_run(
    emptied: Callable[[], Ledger], late: bool, runs_go_on: bool
) -> None:
    faultless = Machine(emptied())
    Listener(faultless).work()
    kills = 0
    for kill_at in itertools.count(1):
        assert kill_at < MOST_STEPS
        machine = Machine(emptied(), kill_at, kill)

        def meanwhile(machine: Machine = machine) -> None:
            if late:
                machine.arrive(LATE)
            if runs_go_on:
                machine.run_all()

        if not work_through_a_kill(machine, meanwhile):
            break
        kills += 1
        machine.assert_all_done(FILES | ({LATE} if late else set()))
        assert set(machine.files_of_runs().values()) == {1}
        assert late or machine.runs == faultless.runs
    assert kills == faultless.steps >= 20


@pytest.mark.parametrize("state", ["running", "queued"], ids=["busy", "paused"])
def test_listener_killed_while_one_dataset_waits_hands_the_other_over_and_loses_nothing(
    emptied: Callable[[], Ledger], state: str
) -> None:
    yellow = {name for name in FILES if name.startswith("nyc_yellow/")}
    for kill_at in itertools.count(1):
        assert kill_at < MOST_STEPS
        machine = Machine(emptied(), kill_at, kill)
        machine.others[stage_dag_id("nyc_green", Layer.SILVER)] = state
        killed = work_through_a_kill(machine)
        assert machine.before_others == (yellow, 2)
        machine.assert_all_done(FILES)
        assert set(machine.files_of_runs().values()) == {1}
        if not killed:
            break
    assert kill_at > 20


@pytest.mark.parametrize("late", [False, True], ids=["no-file-comes", "a-file-comes"])
def test_listener_overtaken_between_any_two_steps_does_no_harm_when_it_goes_on(
    emptied: Callable[[], Ledger], late: bool
) -> None:
    faultless = Machine(emptied())
    Listener(faultless).work()
    for overtaken_at in range(1, faultless.steps + 1):
        machine = Machine(emptied(), overtaken_at)

        def overtake(machine: Machine = machine) -> None:
            if late:
                machine.arrive(LATE)
            Listener(machine).work()

        machine.happens = overtake
        old = Listener(machine)
        old.work()
        files = FILES | ({LATE} if late else set())
        machine.assert_all_done(files)
        # Only what the old listener had chosen before it stood still, and the new one took with the late file.
        twice = {name for name, count in machine.files_of_runs().items() if count > 1}
        assert twice <= ({"nyc_green/c", "nyc_green/e"} if late else set())
        # The old one gets the partition back.
        old.member.join()
        machine.arrive(LATER)
        old.work()
        machine.assert_all_done(files | {LATER})
        assert machine.files_of_runs()[LATER] == 1
