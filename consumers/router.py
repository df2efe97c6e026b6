"""The router: bucket events become ledger rows, work for the stages, and dead letters.

`python -m consumers.router` runs it for the stack that the environment names, until SIGTERM or SIGINT.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import FrameType
from typing import TypeVar

import structlog
from prometheus_client import Counter, Gauge, Histogram, start_http_server
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from consumers.broker import Consumer, Producer, Record
from consumers.completeness import Place, place_of, weigh
from consumers.dead_letters import DeadLetter, dead_letter
from consumers.headers import origin
from consumers.ledger import Ledger, open_ledger
from consumers.logs import configure_logs
from consumers.recent import RecentEvents
from consumers.replay import content_changed, plan_refresh, readers, refresh_version
from consumers.routing import (
    Arrival,
    Decision,
    End,
    FetchManifest,
    FetchMarker,
    Repeat,
    UnknownBucket,
    Work,
    gold_work,
    plan,
    silver_work,
    work_messages,
)
from consumers.topics import DEAD_LETTERS, EVENT_TOPICS, ROUTER_GROUP, WORK_TOPICS
from consumers.watched_contracts import WatchedContracts
from contracts.dataset import Completeness
from contracts.errors import (
    BadEvent,
    BadManifest,
    BadWork,
    ObjectChanged,
    ObjectGone,
    ObjectTooLarge,
    Permanent,
    Retryable,
    SluiceError,
)
from contracts.events import BucketEvent, parse_events
from contracts.fail_points import Step, reach
from contracts.manifest import MAX_BYTES as MAX_MANIFEST_BYTES
from contracts.manifest import parse_manifest
from contracts.markers import CommitMarker, parse_marker
from contracts.settings import Settings, load_settings
from contracts.states import Layer, Reason
from contracts.work import WorkMessage, refuse_foreign
from ingest.store import Store, store_for

POLL_MS = 250
MAX_RECORDS = 2_000
TOLD_ONE_BY_ONE = 20
"""Events of a poll that have a line each in the log. Of more, a line a partition has the number of each kind: a line an
event took an eighth of the router's time, and the ledger has every file's way anyway."""
REFRESHED_AT_ONCE = 1_000
"""Files that a ledger transaction takes to gold once more; Kafka has their work before the next ones are looked at."""
MAX_MARKER_BYTES = 32 * 1024 * 1024
"""A marker of 1,000 files with the longest keys has about 8 MB."""
SLOWEST_RETRY_SECONDS = 5.0

T = TypeVar("T")

log = structlog.get_logger(__name__)

EVENTS = Counter("sluice_router_events", "Bucket events by what became of them", ["topic", "decision"])
WORK = Counter("sluice_router_work_files", "Files handed on to a stage", ["layer"])
DEAD = Counter("sluice_router_dead_letters", "Messages that could not be routed", ["reason"])
LOOP = Histogram("sluice_router_loop_seconds", "From messages read to offsets committed")
LAST_LOOP = Gauge("sluice_router_last_loop_timestamp_seconds", "When the loop last came around without an error")


@dataclass(slots=True)
class Outbox:
    """What a poll of messages hands on."""

    work: list[WorkMessage] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    sets: dict[Place, Completeness] = field(default_factory=dict)
    """Of which a file or the manifest came; what that completes is handed on too."""


class Router:
    """Reads bucket events and hands them on; any number of them share the work as one Kafka group."""

    def __init__(
        self,
        connect: Callable[[], Consumer],
        producer: Producer,
        ledger: Ledger,
        store: Store,
        contracts: WatchedContracts,
        stopping: threading.Event,
    ) -> None:
        self._connect = connect
        self._producer = producer
        self._ledger = ledger
        self._store = store
        self._contracts = contracts
        self._stopping = stopping
        # MinIO sends each event twice: at once, and from its queue on disk up to 3 s later.
        self._recent = RecentEvents()

    def run(self) -> None:
        """Route until `stopping` is set; what is under way is finished first.

        A server that is down is waited for. What was not committed by then is read again.
        """
        while not self._stopping.is_set():
            try:
                self._until_broken()
            except Retryable as error:
                log.warning("reconnecting", detail=error.message)
                self._stopping.wait(1.0)

    def step(self, consumer: Consumer) -> int:
        """Route one poll of messages.

        Returns:
            How many there were.

        Raises:
            Retryable: Kafka failed, or another server did and the router is being stopped; nothing was committed.
        """
        # 1. Read. Nothing new is durable, so a crash from here on reads the same messages again.
        records = consumer.poll(POLL_MS, MAX_RECORDS)
        if records:
            reach(Step.ROUTER_READ)
            with LOOP.time():
                # 2. to 4. Ledger, then Kafka; each may be repeated as a whole.
                events = self._patiently(lambda: self.hand_on(records))
                # 5. Move the offsets: ledger, work and dead letters are durable by now (I6).
                consumer.commit({(r.topic, r.partition): r.offset + 1 for r in records})
                reach(Step.ROUTER_COMMITTED)
                # Only now: what is not wholly handed on has to be looked at again.
                self._recent.add(events)
        LAST_LOOP.set(time.time())
        return len(records)

    def hand_on(self, records: Sequence[Record]) -> list[BucketEvent]:
        """Make everything durable that some messages stand for.

        Returns:
            The events among them that were new.

        Raises:
            Retryable: a server did not answer; a repeat is safe.
        """
        now = datetime.now(UTC)
        outbox = Outbox()
        arrivals = self._parse(records, outbox, now)
        # 2. One ledger transaction: afterwards every file's state and reason is durable.
        decided = self._decide(arrivals, outbox, now)
        reach(Step.ROUTER_DECIDED)
        # 3. A ledger transaction per commit marker or manifest: afterwards its row counts are durable.
        works = []
        _tell(decided)
        for record, arrival, decision in decided:
            chosen = decision.again if isinstance(decision, Repeat) else decision
            if isinstance(chosen, Work):
                works.append(chosen)
            elif isinstance(chosen, End) and chosen.dead_letter:
                outbox.dead.append(dead_letter(record, chosen.reason, now, f"{chosen.detail} {chosen.reason.advice}"))
            elif isinstance(chosen, FetchMarker):
                self._take_marker(record, arrival, chosen.layer, outbox, now)
            elif isinstance(chosen, FetchManifest):
                self._take_manifest(record, arrival, chosen.dataset, outbox, now)
            elif isinstance(chosen, UnknownBucket):
                why = BadEvent(f"The event is of bucket {arrival.event.bucket!r}, which is no layer of this stack.")
                outbox.dead.append(dead_letter(record, why, now))
        outbox.work += silver_work(works, now)
        # Begun after those have ended, so that of two routers the later one sees all.
        for place, rules in sorted(outbox.sets.items()):
            self._weigh(place, rules, outbox, now)
        # 4. Kafka holds the work and the dead letters once the flush returns.
        self._send(outbox)
        reach(Step.ROUTER_SENT)
        return [arrival.event for _, arrival in arrivals]

    def _until_broken(self) -> None:
        consumer = self._connect()
        try:
            while not self._stopping.is_set():
                self.step(consumer)
        finally:
            consumer.close()

    def _patiently(self, work: Callable[[], T]) -> T:
        return Retrying(
            retry=retry_if_exception_type(Retryable),
            wait=wait_random_exponential(multiplier=0.2, max=SLOWEST_RETRY_SECONDS),
            stop=stop_when_event_set(self._stopping),
            sleep=sleep_using_event(self._stopping),
            before_sleep=_log_retry,
            reraise=True,
        )(work)

    def _parse(self, records: Sequence[Record], outbox: Outbox, now: datetime) -> list[tuple[Record, Arrival]]:
        arrivals = []
        seen = RecentEvents()
        for record in records:
            try:
                events = parse_events(record.value)
            except BadEvent as error:
                EVENTS.labels(record.topic, "BadEvent").inc()
                outbox.dead.append(dead_letter(record, error, now))
                continue
            # What somebody sent again on purpose is news, however lately it came. So may a removal be: its first
            # delivery may have come before the put that it is about.
            redriven = origin(record.headers)[0] is not None
            fresh = [e for e in events if redriven or e.removed or (e not in seen and e not in self._recent)]
            if len(fresh) < len(events):
                EVENTS.labels(record.topic, "SecondDelivery").inc(len(events) - len(fresh))
            arrivals += [(record, Arrival(event, record.at, redriven)) for event in fresh]
            seen.add(fresh)
        return arrivals

    def _decide(
        self, arrivals: Sequence[tuple[Record, Arrival]], outbox: Outbox, now: datetime
    ) -> list[tuple[Record, Arrival, Decision]]:
        if not arrivals:
            return []
        try:
            decisions = self._record([arrival for _, arrival in arrivals], now)
            return [(*pair, decision) for pair, decision in zip(arrivals, decisions, strict=True)]
        except Permanent as error:
            # The ledger refuses one of them; alone it is told from the others, which go on.
            if len(arrivals) == 1:
                outbox.dead.append(dead_letter(arrivals[0][0], error, now))
                return []
            return [decided for pair in arrivals for decided in self._decide([pair], outbox, now)]

    def _record(self, arrivals: Sequence[Arrival], now: datetime) -> list[Decision]:
        contracts = self._contracts.current()
        names = {(a.event.bucket, a.event.key, a.event.etag) for a in arrivals}
        return self._ledger.apply(names, lambda known: plan(arrivals, contracts, known, now))

    def _take_marker(self, record: Record, arrival: Arrival, layer: Layer, outbox: Outbox, now: datetime) -> None:
        try:
            marker = self._marker(arrival.event.bucket, arrival.event.key, layer)
            self._ledger.record_marker(marker)
            reach(Step.ROUTER_RECORDED)
            if layer == Layer.SILVER and self._contracts.current()[marker.dataset].gold is None:
                self._refresh(marker, now)
        except Permanent as error:
            log.error("marker_refused", place=record.place, key=arrival.event.key, detail=error.message)
            outbox.dead.append(dead_letter(record, error, now))
            return
        if layer == Layer.SILVER:
            rules = self._rules(marker.dataset)
            outbox.work += gold_work(marker, now, in_sets=rules is not None)
            if rules is not None:
                outbox.sets |= {place_of(source.bucket, source.key): rules for source in marker.sources}

    def _refresh(self, marker: CommitMarker, now: datetime) -> None:
        """Hand on to gold what was made with a reference as it was before; what it had read anew is left alone.

        Costs one question of the ledger where the content is the same, else a transaction per `REFRESHED_AT_ONCE` files
        and a message per 100.
        """
        if not content_changed(marker.sources, self._ledger.content_before(marker)):
            return
        version = refresh_version(marker)
        for dataset in readers(self._contracts.current(), marker.dataset):
            after: str | None = ""
            while after is not None:
                plan = partial(plan_refresh, dataset=dataset, version=version)
                refresh = self._ledger.refresh(marker, dataset, version, plan, after, REFRESHED_AT_ONCE)
                works = sorted([*refresh.start, *refresh.again], key=lambda work: work.item.key)
                # Durable before the next piece, and all before the offset moves: after a crash in between the event is
                # read again, and what no batch holds by then is handed on again.
                self._send(Outbox(work=work_messages(Layer.GOLD, works, now)))
                after = works[-1].item.key if len(works) == REFRESHED_AT_ONCE else None

    def _take_manifest(self, record: Record, arrival: Arrival, dataset: str, outbox: Outbox, now: datetime) -> None:
        event = arrival.event
        name, place, rules = (event.bucket, event.key, event.etag), place_of(event.bucket, event.key), None
        try:
            try:
                value = self._store.get_bytes(event.bucket, event.key, MAX_MANIFEST_BYTES, etag=event.etag)
                self._ledger.record_manifest(place, name, parse_manifest(value, place.folder))
                rules = self._rules(dataset)
            except (BadManifest, ObjectTooLarge) as error:
                self._ledger.end(name, Reason.BAD_MANIFEST, error.message)
            except ObjectGone as error:
                self._ledger.end(name, Reason.OBJECT_GONE, error.message)
            except ObjectChanged as error:
                # The event of the newer content brings that.
                self._ledger.end(name, Reason.SUPERSEDED, error.message)
        except Permanent as error:
            log.error("manifest_refused", place=record.place, key=event.key, detail=error.message)
            outbox.dead.append(dead_letter(record, error, now))
        if rules is not None:
            outbox.sets[place] = rules

    def _weigh(self, place: Place, rules: Completeness, outbox: Outbox, now: datetime) -> None:
        try:
            outcome = self._ledger.weigh(place, place.folder + rules.manifest, lambda known: weigh(place, rules, known))
        except Permanent as error:
            # Reconcile looks at it again.
            log.error("set_not_weighed", bucket=place.bucket, folder=place.folder, detail=error.message)
            return
        outbox.work += work_messages(Layer.GOLD, [*outcome.released, *outcome.again], now)

    def _rules(self, dataset: str) -> Completeness | None:
        contract = self._contracts.current().get(dataset)
        return contract.completeness if contract is not None else None

    def _marker(self, bucket: str, key: str, layer: Layer) -> CommitMarker:
        marker = parse_marker(self._store.get_bytes(bucket, key, MAX_MARKER_BYTES))
        if marker.layer != layer or marker.key != key:
            raise BadWork(f"{bucket}/{key!r} holds a marker of {marker.layer}, whose place would be {marker.key!r}.")
        contract = self._contracts.current().get(marker.dataset)
        if contract is None:
            raise BadWork(f"The marker {bucket}/{key!r} is of the dataset {marker.dataset!r}, which has no contract.")
        # Whoever may write here may write anything: no marker makes work of another dataset's files.
        expected = contract.table_of(layer)
        if expected is None or marker.table != expected.name:
            told = expected.name if expected is not None else "nothing"
            raise BadWork(f"{bucket}/{key!r} tells of {marker.table}, but {layer} of {marker.dataset} is {told}.")
        refuse_foreign(contract, marker.sources, f"The marker {bucket}/{key!r}")
        return marker

    def _send(self, outbox: Outbox) -> None:
        for message in outbox.work:
            value = message.model_dump_json().encode()
            self._producer.send(WORK_TOPICS[message.layer], message.dataset, value)
        for letter in outbox.dead:
            self._producer.send(DEAD_LETTERS, letter.place, letter.model_dump_json().encode(), letter.headers)
        self._producer.flush()
        for message in outbox.work:
            WORK.labels(message.layer).inc(len(message.items))
        for letter in outbox.dead:
            DEAD.labels(letter.reason).inc()
            log.warning("dead_letter", place=letter.place, reason=letter.reason, detail=letter.detail)


def _tell(decided: Sequence[tuple[Record, Arrival, Decision]]) -> None:
    kinds: dict[tuple[str, int], Tally[str]] = {}
    for record, _, decision in decided:
        kinds.setdefault((record.topic, record.partition), Tally())[type(decision).__name__] += 1
    for (topic, _), counts in kinds.items():
        for kind, count in counts.items():
            EVENTS.labels(topic, kind).inc(count)
    if len(decided) <= TOLD_ONE_BY_ONE:
        for record, arrival, decision in decided:
            _tell_one(record, arrival, decision)
        return
    for (topic, partition), counts in kinds.items():
        offsets = [record.offset for record, _, _ in decided if (record.topic, record.partition) == (topic, partition)]
        first, last = min(offsets), max(offsets)
        log.info("events", topic=topic, partition=partition, first_offset=first, last_offset=last, decisions=counts)


def _tell_one(record: Record, arrival: Arrival, decision: Decision) -> None:
    log.info(
        "event",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        name=arrival.event.name,
        bucket=arrival.event.bucket,
        key=arrival.event.key,
        decision=type(decision).__name__,
        reason=decision.reason if isinstance(decision, End) else None,
    )


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("retrying", attempt=state.attempt_number, detail=str(error))


def main() -> int:
    """Run the router until a signal ends it. Returns the exit code."""
    configure_logs()
    settings = load_settings()
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        _serve(settings, stopping)
    except SluiceError as error:
        log.error("router_failed", error=type(error).__name__, detail=error.message)
        return 1
    log.info("router_stopped")
    return 0


def _serve(settings: Settings, stopping: threading.Event) -> None:
    contracts = WatchedContracts(settings.contracts_dir)
    login = settings.kafka_login("router")
    producer = Producer(login)
    server, thread = start_http_server(settings.ports.router_metrics, addr=settings.listen)
    try:
        with open_ledger(settings) as ledger:
            router = Router(
                connect=lambda: Consumer(login, ROUTER_GROUP, EVENT_TOPICS),
                producer=producer,
                ledger=ledger,
                store=store_for(settings, "consumers"),
                contracts=contracts,
                stopping=stopping,
            )
            # What was imported stays; looking through it for garbage, every few polls, takes a tenth of a second.
            gc.freeze()
            log.info("router_started", bootstrap=settings.kafka_bootstrap, datasets=sorted(contracts.current()))
            router.run()
    finally:
        producer.close()
        server.shutdown()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
