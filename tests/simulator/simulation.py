"""One run of the simulation: the real product code between the models, faults, then peace, then the check."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any

import sluice_listener.handover
import sluice_listener.stage
from sluice_listener.handover import HandOver

import consumers.ledger
import consumers.reconciler
import consumers.router
import sluice.replaying
import spark_jobs.data_preprocessing_job
import spark_jobs.feature_engineering_job
import spark_jobs.packs
import spark_jobs.preflight
import spark_jobs.quarantine
import spark_jobs.tables
import spark_jobs.upkeep_job
from consumers.reconcile import Finding
from consumers.reconciler import Report
from consumers.replay import plan_replay
from consumers.router import Router
from consumers.rows import FileRow
from consumers.topics import EVENT_TOPICS, LISTENER_GROUPS, ROUTER_GROUP, WORK_TOPICS
from contracts.dataset import Upkeep
from contracts.errors import AccountingMismatch, IllegalTransition, JobFailed, ServiceUnavailable
from contracts.markers import CommitMarker
from contracts.states import Layer, Reason
from contracts.work import Batch
from spark_jobs.tables import features_spec, rejects_spec, silver_spec
from tests.simulator import jobs
from tests.simulator.datasets import CONTRACTS, TABLES
from tests.simulator.invariants import Invariants
from tests.simulator.ledger import LedgerModel
from tests.simulator.log import Log, Member, Producer, WorkReader
from tests.simulator.scheduler import Run, Scheduler
from tests.simulator.store import Store
from tests.simulator.tables import Frame, Functions, Lake, Spark
from tests.simulator.workload import User
from tests.simulator.world import NO_HAZARDS, Actor, Violation, World

LEDGER = "postgres"
SERVICES = ("kafka", "minio", LEDGER, "spark", "airflow")
ROUND = 660.0
"""Seconds of peace between two looks whether everything is quiet: reconcile takes up what stood still for 600."""
MOST_ROUNDS = 25


class Stopping:
    """As a `threading.Event` that nobody sets."""

    def __init__(self, world: World) -> None:
        self._world = world

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> bool:
        # Always the same time: what the retries ask for is of a generator of their own.
        self._world.sleep(1.0)
        return False


class Letters:
    """As `sluice_listener.topic.DeadLetters`."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def send(self, message: Any, reason: str, detail: str) -> None:
        from consumers.dead_letters import make_letter

        letter = make_letter(message, reason, detail, self._log.world.now)
        producer = Producer(self._log)
        producer.send("lake.dlq", None, letter.model_dump_json().encode(), letter.headers)
        producer.flush()


class Silent:
    """As a logger."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *about, **more: None


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end: what it waits for takes the actor's turn, never an event loop's."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("a coroutine waits for an event loop")


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


class Simulation:
    """A seed's system."""

    def __init__(self, seed: int, trace: bool = False) -> None:
        self.world = World(seed, trace)
        self.log = Log(self.world)
        self.store = Store(self.world, self.log)
        self.ledger = LedgerModel(lambda: self.world.now, self._ledger_effect)
        self.lake = Lake(self.world, TABLES)
        self.spark = Spark(self.world, self.lake)
        self.scheduler = Scheduler(self.world, self._stage, self._give_up)
        self.user = User(self)
        self.invariants = Invariants(self)
        self.log.check = self.invariants.check_commit
        self.lake.check = self.invariants.check_rows
        self._reconciling = True
        # Of its own, so that half of all seeds are as they were without upkeep.
        self._upkeep = Random(f"upkeep {seed}")
        self._ids = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=f"{self._upkeep.getrandbits(128):032x}"))
        self._reconcile: Actor | None = None
        self._listeners = 0
        self.report: Report | None = None

    # ---- the whole

    def run(self) -> None:
        """Raises Violation: a guarantee does not hold."""
        world = self.world
        with self.patched():
            try:
                for number in (1, 2):
                    self._start_router(number)
                for layer in Layer:
                    self._start_listener(layer)
                self._schedule_reconcile()
                self._schedule_upkeep()
                self._schedule_outages()
                user = world.spawn("user", self.user.work, mortal=False)
                world.run(lambda: user.dead)
                self._heal()
                self.invariants.check_end()
            finally:
                world.close()

    def _heal(self) -> None:
        world = self.world
        world.note("---- no more faults")
        world.hazards = NO_HAZARDS
        world.down = {}
        self._reconciling = False
        quiet = 0
        for _ in range(MOST_ROUNDS):
            until = world.micros + int(ROUND * 1e6)
            world.run(lambda until=until: world.micros >= until)  # type: ignore[misc]
            report = self._reconcile_now()
            quiet = quiet + 1 if self._quiet(report) else 0
            if quiet == 2:
                return
            world.spawn("operator", self._operate, mortal=False)
        found = {kind.value: count for kind, count in report.found.items() if count} if report else None
        told = f"{found}, {self._unread()} unread, runs {self.scheduler.busy()}, {self.stuck()}"
        raise Violation("quiet", f"after {MOST_ROUNDS} rounds: {told}")

    def _quiet(self, report: Report | None) -> bool:
        if report is None or self.store.on_the_way or self.scheduler.busy() or self._unread():
            return False
        twice = sum(self._has_known_limit(told) for kind, told in report.named if kind is Finding.NO_RESULT_TWICE)
        return sum(report.found.values()) == twice and not self.stuck()

    def _has_known_limit(self, told: str) -> bool:
        """Whether a batch may tell nothing for good: its rows do not add up, since a file changed while it was read."""
        items = self.ledger.tables.batches[told.rpartition("__")[2]].batch.items
        return any(item.key in self.store.read_late for item in items)

    def _unread(self) -> int:
        work = sum(self.log.lag(LISTENER_GROUPS[layer], topic) for layer, topic in WORK_TOPICS.items())
        return work + sum(self.log.lag(ROUTER_GROUP, topic) for topic in EVENT_TOPICS)

    def stuck(self) -> list[tuple[str, str, str]]:
        """Files that are not at their end, or wait for a person."""
        newest = {name[:2]: self.ledger.newest(*name[:2]) for name in self.ledger.tables.files}
        return [
            name
            for name, file in self.ledger.tables.files.items()
            if not file.row.state.final or (self.unmended(file.row) and newest[name[:2]] is file)
        ]

    @staticmethod
    def unmended(row: FileRow) -> bool:
        """Whether a replay is due. A deleted object's is refused: that its run failed is all the answer it gets."""
        return row.reason == Reason.RUN_FAILED and row.removed_at is None

    def _operate(self) -> None:
        """What the advice says: files whose run failed are replayed; runs that told nothing twice are cleared."""
        for kind, told in self.named():
            dag_id, _, run_id = told.partition("/")
            again = self.scheduler.runs.get((dag_id, f"{run_id}__again"))
            if kind is Finding.NO_RESULT_TWICE and again is not None:
                self.world.counts["runs cleared by the operator"] += 1
                self.scheduler.clear(again)
        failed = {n[:2] for n in self.stuck() if self.unmended(self.ledger.tables.files[n].row)}
        if failed:
            self.world.counts["files replayed by the operator"] += len(failed)
            self.replay(self.ledger.newest_of_keys(failed), Layer.GOLD)

    def named(self) -> tuple[tuple[Finding, str], ...]:
        return self.report.named if self.report else ()

    def replay(self, rows: list[Any], depth: Layer) -> None:
        """As `sluice replay`."""
        version = f"replay-{self.world.nanoseconds}-{self.world.random.getrandbits(20)}"
        with suppress(ServiceUnavailable):
            settings: Any = SimpleNamespace(kafka_login=str)
            sluice.replaying.carry_out(settings, plan_replay(rows, CONTRACTS, depth, version))

    # ---- actors

    def _start_router(self, number: int, after: float = 0.0) -> None:
        def work() -> None:
            fakes: Any = SimpleNamespace(current=lambda: CONTRACTS)
            anything: Any = self
            try:
                Router(
                    connect=lambda: anything.member(ROUTER_GROUP, EVENT_TOPICS),
                    producer=anything.producer(),
                    ledger=anything.ledger,
                    store=anything.store,
                    contracts=fakes,
                    stopping=Stopping(self.world),  # type: ignore[arg-type]
                ).run()
            finally:
                # Whatever ended it, supervisord starts it again.
                self._start_router(number, 1 + self.world.random.random() * 30)

        self.world.spawn("router", work, str(number), after=after)

    def member(self, group: str, topics: Any) -> Member:
        return Member(self.log, group, topics)

    def producer(self) -> Producer:
        return Producer(self.log)

    def _start_listener(self, layer: Layer, after: float = 0.0) -> None:
        world = self.world
        replaced = False

        def replace(seconds: float) -> None:
            """Airflow starts another one where it hears nothing of this one, which may go on all the same."""
            nonlocal replaced
            if seconds > 30 and not replaced:
                replaced = True
                self._start_listener(layer, 30 + world.random.random() * 30)

        def work() -> None:
            actor.on_pause.append(replace)
            hands: Any = None

            def waits() -> float:
                return 20.0 if hands is not None and hands._gatherer.waiting else 300.0

            member: Member | None = None
            try:
                member = Member(self.log, LISTENER_GROUPS[layer], [WORK_TOPICS[layer]], waits)
                topic, letters, runs = WorkReader(member), Letters(self.log), self.scheduler
                claims: Any = self.ledger
                hands = HandOver(layer, topic, letters, claims, runs, lambda: CONTRACTS, call)
                finish(hands.run(world.seconds + 1800 + world.random.random() * 1800))
            except ServiceUnavailable:
                world.note("the listener ends")
            finally:
                if member is not None:
                    member.close()
            # Its time is over, or Kafka was down.
            if not replaced:
                self._start_listener(layer, 5)

        actor = world.spawn("listener", work, str(layer), after=after)

    def _schedule_reconcile(self) -> None:
        def start() -> None:
            if self._reconciling:
                if self._reconcile is None or self._reconcile.dead:
                    self._reconcile = self.world.spawn("reconcile", self._one_pass)
                self.world.after(300, start)

        self.world.after(self.world.random.random() * 300, start)

    def _schedule_upkeep(self) -> None:
        """Small files are put together at any time, beside whatever runs."""

        def start() -> None:
            if self._reconciling:
                self.world.spawn("upkeep", self._look_after)
                self.world.after(self._upkeep.random() * 200, start)

        if self._upkeep.random() < 0.5:
            self.world.after(self._upkeep.random() * 100, start)

    def _look_after(self) -> None:
        limits = Upkeep(pack_after=timedelta(0))
        given: Any = (self.spark, self.lake)
        for contract in CONTRACTS.values():
            for spec in (silver_spec(contract), rejects_spec(contract), features_spec(contract)):
                # Overtaken, or the server is away: the next one goes on.
                with suppress(JobFailed, ServiceUnavailable):
                    try:
                        packed = spark_jobs.upkeep_job.pack_once(*given, spec, limits, self.world.now)
                    except AccountingMismatch as error:
                        raise Violation("I3", error.message) from error
                    self.world.counts["source files packed"] += packed

    def _one_pass(self, full: bool = False) -> None:
        settings: Any = SimpleNamespace(kafka_login=str, contracts_dir=None)
        for _ in range(3):
            try:
                self.report = consumers.reconciler.reconcile(settings, self.lake.batches_since, full)
            except ServiceUnavailable:
                self.world.sleep(30)
            else:
                self.world.counts["reconcile repairs"] += sum(self.report.found.values())
                return

    def _reconcile_now(self) -> Report | None:
        self.report = None
        actor = self.world.spawn("reconcile", lambda: self._one_pass(full=True), mortal=False)
        self.world.run(lambda: actor.dead)
        return self.report

    def _schedule_outages(self) -> None:
        world = self.world
        if world.random.random() < world.hazards.outage:
            for _ in range(world.random.randint(1, 4)):
                service = world.random.choice(SERVICES)
                start, seconds = world.random.random() * 3000, world.random.random() * 120

                def fall(service: str = service, seconds: float = seconds) -> None:
                    if self._reconciling:
                        world.counts["outages"] += 1
                        world.note(f"{service} goes down for {seconds:.0f} s")
                        world.down[service] = world.micros + int(seconds * 1e6)

                world.after(start, fall)

    # ---- what the product is given

    def _ledger_effect(self, what: str, effect: Callable[[], Any]) -> Any:
        def legal() -> Any:
            try:
                return effect()
            except IllegalTransition as error:
                raise Violation("legal", error.message) from error

        return self.world.do(what, legal, service=LEDGER)

    def _stage(self, run: Run, number: int) -> None:
        layer = Layer(run.dag_id.rpartition("_")[2])
        sluice_listener.stage.run_stage(layer, run.dag_id, run.run_id, number, run.conf)

    def _give_up(self, run: Run, error: BaseException | str) -> None:
        sluice_listener.stage.give_up(run.dag_id, run.run_id, run.conf, error)

    def job(self, settings: Any, contract: Any, batch: Batch, dag_id: str, run_id: str) -> CommitMarker:
        silver, gold = spark_jobs.data_preprocessing_job, spark_jobs.feature_engineering_job
        job = silver if batch.layer is Layer.SILVER else gold
        given: Any = (self.spark, self.lake, self.store)
        return job.run(*given, contract, batch, dag_id, run_id)

    @contextmanager
    def patched(self) -> Iterator[None]:
        """The product's edges and clocks are the simulation's."""
        world = self.world

        class Clock(datetime):
            """The simulation's."""

            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return world.now

        silver, gold = spark_jobs.data_preprocessing_job, spark_jobs.feature_engineering_job
        time = SimpleNamespace(monotonic=lambda: world.seconds, time=lambda: world.seconds)

        async def sleep(seconds: float) -> None:
            world.sleep(seconds)

        def ensure_tables(spark: Any, lake: Lake, specs: Any) -> dict[str, Any]:
            return lake.tables(*(spec.name for spec in specs))

        patches: list[tuple[Any, dict[str, Any]]] = [
            (consumers.router, {"datetime": Clock, "time": time, "log": Silent()}),
            (consumers.ledger, {"datetime": Clock, "open_ledger": lambda settings: self.ledger}),
            (
                consumers.reconciler,
                {
                    "datetime": Clock,
                    "asyncio": SimpleNamespace(run=finish),
                    "Producer": lambda login: Producer(self.log),
                    "open_ledger": lambda settings: self.ledger,
                    "load_contracts": lambda folder: CONTRACTS,
                    "store_for": lambda settings, role: self.store,
                    "oldest_unread": lambda login, group, topic: self.log.oldest_unread(group, topic),
                    "service_api": lambda settings: self.scheduler,
                },
            ),
            (
                sluice.replaying,
                {
                    "datetime": Clock,
                    "Producer": lambda login: Producer(self.log),
                    "open_ledger": lambda settings: self.ledger,
                },
            ),
            (spark_jobs.quarantine, {"log": Silent()}),
            (spark_jobs.tables, {"F": Functions, "unpacked": jobs.unpacked}),
            (spark_jobs.upkeep_job, {"F": Functions, "into_packs": jobs.into_packs, "uuid": self._ids}),
            (spark_jobs.packs, {"LEAST": 2, "PACK_BYTES": 12, "MANY_FILES": 1, "FILES_A_PACK": 2, "uuid": self._ids}),
            (sluice_listener.handover, {"time": time, "asyncio": SimpleNamespace(sleep=sleep), "log": Silent()}),
            (
                sluice_listener.stage,
                {
                    "load_settings": lambda: SimpleNamespace(contracts_dir=None),
                    "load_contracts": lambda folder: CONTRACTS,
                    "_connect": self.job,
                    "set_note": lambda *about: None,
                    "log": Silent(),
                },
            ),
            (
                spark_jobs.preflight,
                {
                    "ThreadPoolExecutor": jobs.Pool,
                    "read_footer": jobs.read_footer,
                    "check_pages": jobs.check_pages,
                },
            ),
            (
                silver,
                {
                    "ThreadPoolExecutor": jobs.Pool,
                    "datetime": Clock,
                    "F": Functions,
                    "ensure_tables": ensure_tables,
                    "split_rows": lambda spark, contract, batch_id, files: jobs.split_rows(
                        spark, self.store, batch_id, files
                    ),
                    "find_unreadable": lambda spark, files: jobs.find_unreadable(self.store, files),
                    "tally_at": lambda *about: spark_jobs.data_preprocessing_job.Tally({}, {}),
                    "count_reasons": lambda *about: {},
                },
            ),
            (
                gold,
                {
                    "datetime": Clock,
                    "F": Functions,
                    "DataFrame": Frame,
                    "ensure_tables": ensure_tables,
                    "load_transforms": lambda contract: jobs.Transforms,
                    "into_packs": jobs.into_packs,
                },
            ),
        ]
        before = [(module, name, getattr(module, name)) for module, own in patches for name in own]
        for module, own in patches:
            for name, value in own.items():
                setattr(module, name, value)
        try:
            yield
        finally:
            for module, name, value in before:
                setattr(module, name, value)
