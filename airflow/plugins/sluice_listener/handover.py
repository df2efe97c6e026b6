"""The listener's loop: gather work messages, make one run per dataset and batch, then move the offsets."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol

from consumers.batching import Gatherer, run_conf, run_note
from consumers.routing import MAX_ITEMS
from contracts.dataset import DatasetContract
from contracts.errors import BadWork, Permanent, Retryable, ServiceUnavailable, UnknownDataset
from contracts.fail_points import Step, reach
from contracts.states import Layer
from contracts.work import Batch, WorkItem, make_batch, parse_work, refuse_foreign, stage_dag_id
from sluice_listener import clock
from sluice_listener.topic import Message

log = logging.getLogger(__name__)

POLL = 0.2
"""Seconds that a read waits: the pace of looking at a busy dataset, and the delay of a cancellation."""
FOLLOWS = 0.1
"""Seconds that a read waits for the message after a full one."""
RETRY = 1.0
"""Seconds until a dataset whose hand-over failed is tried again."""
SET_BACK = 10.0
"""Seconds; a clock that was set back by more leaves runs behind that wait for a time to come."""
SETTLES = 60.0
"""Seconds after that until every server has the right time: what one that was late noted meanwhile waits, too."""
LOOK_AGAIN = 5.0
"""Seconds between two looks for such work until then."""
SAY_AGAIN = 30.0
"""Seconds between two log lines about the same trouble."""

UPKEEP_DAGS = ("profiles", "reconcile", "upkeep")
"""No stage's, so the listener of the first layer looks after them."""

Call = Callable[..., Awaitable[Any]]
"""Runs a blocking function in the thread that owns consumer and ledger."""


class Topic(Protocol):
    """What the loop needs of `topic.WorkTopic`."""

    def read(self, timeout: float) -> list[Message]: ...
    def hold(self, partitions: Collection[int]) -> None: ...
    def commit(self, offsets: Mapping[tuple[str, int], int]) -> bool: ...


class Letters(Protocol):
    """What the loop needs of `topic.DeadLetters`."""

    def send(self, message: Message, reason: str, detail: str) -> None: ...


class Claims(Protocol):
    """What the loop needs of `consumers.ledger.Ledger`."""

    def unclaimed(self, layer: Layer, dataset: str, items: tuple[WorkItem, ...]) -> list[WorkItem]: ...
    def claim(self, batch: Batch) -> bool: ...
    def handed_over(self, batch_id: str) -> None: ...


class Runs(clock.Runs, Protocol):
    """What the loop needs of `consumers.airflow_api.AirflowApi`."""

    async def active_run(self, dag_id: str) -> str | None: ...
    async def paused(self, dag_id: str) -> bool: ...


class HandOver:
    """Hands the work of one layer over to its stage DAGs."""

    def __init__(
        self,
        layer: Layer,
        topic: Topic,
        letters: Letters,
        ledger: Claims,
        runs: Runs,
        load_contracts: Callable[[], Mapping[str, DatasetContract]],
        call: Call,
    ) -> None:
        self._layer = layer
        self._topic = topic
        self._letters = letters
        self._ledger = ledger
        self._runs = runs
        self._load_contracts = load_contracts
        self._call = call
        self._contracts: Mapping[str, DatasetContract] = {}
        self._gatherer = Gatherer(layer)
        self._not_before: dict[str, float] = {}
        self._said: dict[str, float] = {}
        self._committed: dict[tuple[str, int], int] = {}

    async def run(self, until: float) -> None:
        """Work until the monotonic time `until`. What still waits then comes again to the next listener.

        Raises:
            ServiceUnavailable: the Kafka client gave up for good.
        """
        look_at = settled_at = 0.0
        now = _clock()
        while time.monotonic() < until:
            before, now = now, _clock()
            if now < before - SET_BACK:
                log.warning("The clock was set back by %.0f s.", before - now)
                look_at, settled_at = 0.0, time.monotonic() + SETTLES
            if time.monotonic() >= look_at:
                if not await self._look_around():
                    look_at = time.monotonic() + RETRY
                else:
                    look_at = time.monotonic() + LOOK_AGAIN if time.monotonic() < settled_at else math.inf
            await self.step()

    async def step(self) -> None:
        """One round: read, hand over what may go, commit what was handed over."""
        crowded = self._gatherer.crowded
        for dataset, waiting in crowded.items():
            self._say(
                f"{dataset} waits", f"{waiting:,} file(s) of {dataset} wait; no more are read until some have gone."
            )
        await self._call(self._topic.hold, self._gatherer.partitions_of(crowded))
        messages = await self._call(self._topic.read, POLL)
        while messages:
            full = [await self._take(message) for message in messages]
            more = any(full) and not self._gatherer.crowded
            messages = await self._call(self._topic.read, FOLLOWS) if more else []
        # By now each message is in the gatherer, or durable in the dead-letter topic.
        await self._hand_over_all()
        # By now the ledger holds each batch handed over, and its DAG run exists.
        await self._commit()

    async def _look_around(self) -> bool:
        """Once, as soon as the API is there, and whenever the clock was set back: stages paused, and work postponed.

        It also takes the 1.5 s of the first login off the first file.
        """
        self._contracts = await self._call(self._load_contracts)
        try:
            for dataset in self._datasets():
                dag_id = stage_dag_id(dataset, self._layer)
                if await self._runs.paused(dag_id):
                    log.warning("%s is paused: its files will wait until somebody unpauses it.", dag_id)
                await clock.go_on(self._runs, dag_id)
            if self._layer == Layer.SILVER:
                for dag_id in UPKEEP_DAGS:
                    await clock.go_on(self._runs, dag_id)
        except (Retryable, Permanent) as error:
            self._say("api", f"Airflow's API is not ready yet. {error.message}")
            return False
        log.info(
            "Airflow's API is ready; listening for work of %s.", ", ".join(sorted(self._datasets())) or "no dataset"
        )
        return True

    def _datasets(self) -> list[str]:
        """Those that have a stage of this layer: a reference has none of gold."""
        return [name for name, own in self._contracts.items() if self._layer == Layer.SILVER or own.gold]

    async def _take(self, message: Message) -> bool:
        """Gather a message's files; whether it is full, so that the rest of what the router had is right behind it."""
        try:
            work = parse_work(message.value)
            if work.layer != self._layer:
                raise BadWork(f"The work is for {work.layer}; this listener makes {self._layer}.")
            refuse_foreign(await self._contract(work.dataset), work.items, "The work message")
        except (BadWork, UnknownDataset) as error:
            reason = "unknown_dataset" if isinstance(error, UnknownDataset) else "bad_work"
            await self._bury(message, reason, error.message)
            self._gatherer.pass_over(message.topic, message.partition, message.offset)
            return False
        log.info("%s: %d file(s) of %s", message.place, len(work.items), work.dataset)
        self._gatherer.add(work, message.topic, message.partition, message.offset)
        return len(work.items) == MAX_ITEMS

    async def _contract(self, dataset: str) -> DatasetContract:
        if dataset not in self._contracts:
            self._contracts = await self._call(self._load_contracts)
        if dataset not in self._contracts:
            known = ", ".join(sorted(self._contracts)) or "none"
            raise UnknownDataset(f"No contract is called {dataset!r}. Known: {known}. Add it, then redrive this.")
        return self._contracts[dataset]

    async def _bury(self, message: Message, reason: str, detail: str) -> None:
        """Write the dead letter, however long Kafka takes: the offset may pass only what is durable elsewhere."""
        while True:
            try:
                await self._call(self._letters.send, message, reason, detail)
            except ServiceUnavailable as error:
                log.warning("%s: %s Trying again.", message.place, error.message)
                await asyncio.sleep(RETRY)
            else:
                log.warning("%s: to the dead letters (%s): %s", message.place, reason, detail)
                return

    async def _hand_over_all(self) -> None:
        limits = {name: contract.max_batch_files for name, contract in self._contracts.items()}
        now = time.monotonic()
        resting = {dataset for dataset, at in self._not_before.items() if at > now}
        for batch in self._gatherer.next_batches(resting, limits):
            try:
                if await self._free(batch):
                    await self._hand_over(batch)
            except (Retryable, Permanent) as error:
                self._say(batch.dataset, f"{batch.dataset}: the hand-over waits. {error.message}")
                self._not_before[batch.dataset] = time.monotonic() + RETRY

    async def _free(self, batch: Batch) -> bool:
        """Whether the dataset's stage has no run under way; says so when a paused DAG is why."""
        state = await self._runs.active_run(batch.dag_id)
        if state == "queued" and await self._runs.paused(batch.dag_id):
            self._say(batch.dataset, f"{batch.dag_id} is paused, so {len(batch.items)} file(s) wait. Unpause it.")
            self._not_before[batch.dataset] = time.monotonic() + RETRY
        return state is None

    async def _hand_over(self, batch: Batch) -> None:
        fresh = await self._call(self._ledger.unclaimed, batch.layer, batch.dataset, batch.items)
        if fresh:
            claimed = batch if len(fresh) == len(batch.items) else make_batch(batch.layer, batch.dataset, fresh)
            # 1. The ledger holds the batch: the run's task finds its files there.
            await self._call(self._ledger.claim, claimed)
            reach(Step.LISTENER_CLAIMED)
            # 2. The run exists. After a crash before step 3 the messages come again, and the same files make the same
            #    batch and run. With newer files they make another, but not before the run has ended; its task has
            #    then told the ledger what it took.
            new = await self._runs.create_run(claimed.dag_id, claimed.run_id, run_conf(claimed), run_note(claimed))
            reach(Step.LISTENER_RUN_MADE)
            # 3. The ledger knows that the run exists.
            await self._call(self._ledger.handed_over, claimed.batch_id)
            reach(Step.LISTENER_HANDED_OVER)
            log.info("%s %s/%s", "made the run" if new else "the run is there already:", claimed.dag_id, claimed.run_id)
        # 4. The offsets of its messages may move.
        self._gatherer.handed_over(batch)
        self._said.pop(batch.dataset, None)

    async def _commit(self) -> None:
        offsets = {
            place: offset
            for place, offset in self._gatherer.committable().items()
            if self._committed.get(place) != offset
        }
        if offsets and await self._call(self._topic.commit, offsets):
            self._committed.update(offsets)
            reach(Step.LISTENER_COMMITTED)

    def _say(self, about: str, text: str) -> None:
        now = time.monotonic()
        if now - self._said.get(about, -SAY_AGAIN) >= SAY_AGAIN:
            self._said[about] = now
            log.warning("%s", text)


def _clock() -> float:
    """The wall clock's seconds beside those of the clock that nobody sets."""
    return time.time() - time.monotonic()
