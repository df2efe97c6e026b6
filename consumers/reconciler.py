"""Carries reconcile out: looks at bucket, ledger and Airflow, and hands on what `consumers.reconcile` decides.

What a pass costs grows with what is new: files that stand still come by an index of the ledger, snapshots are those of
the last `LOOK_BACK`, and of the bucket only the next piece is listed, from where the last pass ended, at most `PIECE`
keys. A full pass lists all of it, and looks at every snapshot.

What the router or a listener still has before it is not lost: only what is older than the oldest message that it has
not committed is looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from itertools import islice

from pydantic import BaseModel, ConfigDict

from consumers.airflow_api import AirflowApi, service_api
from consumers.batching import run_conf, run_note
from consumers.broker import Producer, oldest_unread
from consumers.completeness import KnownSet, Outcome, Place, weigh
from consumers.ledger import Ledger, open_ledger
from consumers.reconcile import (
    STANDS_STILL,
    Finding,
    Page,
    counts,
    judge_run,
    lost_puts,
    lost_removal,
    maybe_gone,
    settled,
    waiting_for,
)
from consumers.routing import Work, work_messages
from consumers.rows import FileRow
from consumers.topics import BRONZE_EVENTS, LISTENER_GROUPS, ROUTER_GROUP, WORK_TOPICS
from contracts.dataset import BRONZE, Completeness, DatasetContract
from contracts.errors import Permanent, ServiceUnavailable
from contracts.events import BucketEvent, notification
from contracts.loading import load_contracts
from contracts.settings import Settings
from contracts.states import Layer
from contracts.work import Batch, second_run_id, stage_dag_id
from ingest.store import Store, store_for

log = logging.getLogger(__name__)

PIECE = 20_000
"""Keys that a pass lists; some seconds of MinIO's time."""
MOST_REPAIRS = 10_000
"""Files of one kind that a pass takes up; the next pass takes the next."""
LOOK_BACK = timedelta(days=1)
"""Snapshots that are older were looked at by many passes."""
SEND_AT_ONCE = 1_000
MOST_UNAVAILABLE = 3
"""Batches that Airflow gives no answer about before a pass takes it to be away."""
NAMED = 100
"""Findings that a report names."""

BatchesSince = Callable[[str, datetime], Iterable[str]]
"""Ids of the batches that committed to a table (`namespace.table`) since a moment."""


class Report(BaseModel):
    """What a pass of reconcile found and did. Field names are public: others script against them."""

    model_config = ConfigDict(frozen=True)

    full: bool
    repaired: bool
    """False when it was asked only to look."""
    objects: int
    """Objects that were listed."""
    found: dict[Finding, int]
    named: tuple[tuple[Finding, str], ...]
    """The first findings, each with its file, batch or DAG."""
    waiting: dict[str, int]
    """Paused DAG -> files that wait for it."""


@dataclass
class _Pass:
    settings: Settings
    contracts: tuple[DatasetContract, ...]
    ledger: Ledger
    store: Store
    producer: Producer
    oldest_unread: Callable[[str, str], datetime | None]
    """By consumer group and topic."""
    batches_since: BatchesSince
    full: bool
    repair: bool
    now: datetime
    objects: int = 0
    findings: list[tuple[Finding, str]] = field(default_factory=list)

    @cached_property
    def stages(self) -> frozenset[str]:
        """The stage DAGs that there are by the contracts."""
        return frozenset(
            stage_dag_id(contract.dataset, layer)
            for contract in self.contracts
            for layer in Layer
            if layer == Layer.SILVER or contract.gold
        )


def reconcile(settings: Settings, batches_since: BatchesSince, full: bool = False, repair: bool = True) -> Report:
    """Find what no event told of and what stands still, and set it going again.

    Args:
        batches_since: asks the tables, which another package reads.
        full: look at the whole bucket and at all snapshots.
        repair: False: only look.

    Raises:
        ServiceUnavailable: a server does not answer; what was repaired stays so, and the next pass goes on.
    """
    login = settings.kafka_login("reconcile")
    producer = Producer(login)
    try:
        with open_ledger(settings) as ledger:
            contracts = tuple(load_contracts(settings.contracts_dir).values())
            one = _Pass(
                settings,
                contracts,
                ledger,
                store_for(settings, "consumers"),
                producer,
                partial(oldest_unread, login),
                batches_since,
                full,
                repair,
                datetime.now(UTC),
            )
            sets = {each.dataset: each.completeness for each in contracts if each.completeness is not None}
            _bucket(one)
            _standing(one, in_sets=sets)
            _sets(one, sets)
            waiting = asyncio.run(_airflow(one))
    finally:
        producer.close()
    found = counts(one.findings)
    return Report(
        full=full, repaired=repair, objects=one.objects, found=found, named=tuple(one.findings[:NAMED]), waiting=waiting
    )


def _bucket(one: _Pass) -> None:
    """The objects of bronze against the ledger's newest versions, a piece at a time."""
    after = "" if one.full else one.ledger.reconciled_to(BRONZE)
    while True:
        # Both moments before the listing: what comes while it is read is not missing from the ledger.
        before = settled(datetime.now(UTC), one.oldest_unread(ROUTER_GROUP, BRONZE_EVENTS))
        objects = tuple(islice(one.store.list(BRONZE, after=after), PIECE))
        until = objects[-1].key if len(objects) == PIECE else None
        one.objects += len(objects)
        _compare(one, Page(objects, after, until, before))
        after = until or ""
        if not one.full:
            one.ledger.set_reconciled_to(BRONZE, after)
        if not one.full or until is None:
            return


def _compare(one: _Pass, page: Page) -> None:
    newest = {row.key: row for row in one.ledger.newest_between(BRONZE, page.after, page.until)}
    puts = lost_puts(page, newest)
    retracting = {contract.dataset for contract in one.contracts if contract.on_delete == "retract"}
    kept = {each.dataset: each.keep_bronze for each in one.contracts if each.keep_bronze is not None}
    missing = maybe_gone(page, newest.values(), retracting, kept)
    gone = [row for row in missing if _is_gone(one, row)]
    one.findings += [(Finding.OBJECT_WITHOUT_ROW, f"{event.bucket}/{event.key}") for event in puts]
    one.findings += [(Finding.ROW_WITHOUT_OBJECT, f"{row.bucket}/{row.key}") for row in gone]
    _send_events(one, [*puts, *(lost_removal(row, one.now, kept) for row in gone)])


def _is_gone(one: _Pass, row: FileRow) -> bool:
    try:
        return one.store.stat(row.bucket, row.key) is None
    except Permanent as error:
        # No object can have such a key; the pass goes on to the others.
        log.warning("%s/%r was not looked at: %s", row.bucket, row.key, error.message)
        return False


def _send_events(one: _Pass, events: list[BucketEvent]) -> None:
    if not one.repair:
        return
    for start in range(0, len(events), SEND_AT_ONCE):
        for event in events[start : start + SEND_AT_ONCE]:
            # Keyed as MinIO does it, so that an object's events stay in one partition.
            one.producer.send(BRONZE_EVENTS, f"{event.bucket}/{event.key}", notification(event))
        one.producer.flush()


def _standing(one: _Pass, in_sets: Iterable[str]) -> None:
    """Files that wait for a stage while no batch holds them: their work is sent once more."""
    for layer in Layer:
        done = settled(one.now, one.oldest_unread(LISTENER_GROUPS[layer], WORK_TOPICS[layer]))
        works: list[Work] = one.ledger.not_taken(layer, min(done, one.now - STANDS_STILL), MOST_REPAIRS, in_sets)
        one.findings += [(Finding.WORK_NOT_TAKEN, work.item.uri) for work in works]
        # Without a stage the listener would have it as a dead letter, once a pass.
        if one.repair and (wanted := [work for work in works if stage_dag_id(work.dataset, layer) in one.stages]):
            _send_work(one, layer, wanted)


def _sets(one: _Pass, rules: Mapping[str, Completeness]) -> None:
    """Files that wait for their set, though it is complete or its time is over."""
    for place in one.ledger.held_sets(rules, MOST_REPAIRS):
        own = rules[place.dataset]

        def decide(known: KnownSet, place: Place = place, own: Completeness = own) -> Outcome:
            return weigh(place, own, known, one.now)

        outcome = one.ledger.weigh(place, place.folder + own.manifest, decide, write=one.repair)
        if outcome.timed_out:
            one.findings.append((Finding.SET_INCOMPLETE, f"{place.bucket}/{place.folder}"))
        else:
            one.findings += [(Finding.WORK_NOT_TAKEN, work.item.uri) for work in outcome.released]
        if one.repair and outcome.released:
            _send_work(one, Layer.GOLD, outcome.released)


def _send_work(one: _Pass, layer: Layer, works: Sequence[Work]) -> None:
    for message in work_messages(layer, works, one.now):
        one.producer.send(WORK_TOPICS[layer], message.dataset, message.model_dump_json().encode())
    one.producer.flush()


async def _airflow(one: _Pass) -> dict[str, int]:
    since = datetime.min.replace(tzinfo=UTC) if one.full else one.now - LOOK_BACK
    tables = [contract.silver.name for contract in one.contracts]
    tables += [contract.features.name for contract in one.contracts if contract.gold]
    committed = one.ledger.without_marker(
        [batch_id for table in tables for batch_id in one.batches_since(table, since)], one.now - STANDS_STILL
    )
    standing = one.ledger.without_result(one.now - STANDS_STILL, MOST_REPAIRS)
    unavailable: list[ServiceUnavailable] = []
    async with service_api(one.settings) as api:
        for batch_id in dict.fromkeys([*committed, *standing]):
            batch = one.ledger.load_batch(batch_id)
            try:
                await _batch(one, api, batch, batch_id in committed)
            except (Permanent, ServiceUnavailable) as error:
                # One whose DAG is broken keeps no other from being mended.
                log.error("%s was not mended: %s", f"{batch.dag_id}/{batch.run_id}", error.message)
                if isinstance(error, ServiceUnavailable):
                    unavailable.append(error)
                if len(unavailable) == MOST_UNAVAILABLE:
                    raise
        if unavailable:
            raise unavailable[0]
        waiting = {stage_dag_id(dataset, layer): n for (dataset, layer), n in one.ledger.waiting().items()}
        paused = [dag for dag in sorted(one.stages & set(waiting)) if await api.paused(dag)]
    told = waiting_for(paused, waiting)
    one.findings += [(Finding.STAGE_PAUSED, dag) for dag in told]
    return told


async def _batch(one: _Pass, api: AirflowApi, batch: Batch, committed: bool) -> None:
    again = second_run_id(batch.run_id)
    states = await api.run_state(batch.dag_id, batch.run_id), await api.run_state(batch.dag_id, again)
    finding = judge_run(*states, committed)
    if finding is None:
        return
    one.findings.append((finding, f"{batch.dag_id}/{batch.run_id}"))
    if not one.repair or finding is Finding.NO_RESULT_TWICE or batch.dag_id not in one.stages:
        return
    if finding is Finding.RUN_FAILED:
        one.ledger.failed(batch, batch.run_id, "The run failed; reconcile found that its files did not know.")
    else:
        # The job finds what it committed under the batch's id, and puts the marker once more.
        run_id = batch.run_id if finding is Finding.RUN_MISSING else again
        await api.create_run(batch.dag_id, run_id, run_conf(batch), run_note(batch))
