"""Running files again: choose them, plan, and hand the work on."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from consumers.broker import Producer
from consumers.ledger import Ledger, open_ledger
from consumers.replay import ReplayPlan, plan_replay
from consumers.routing import silver_work
from consumers.rows import FileRow
from consumers.topics import WORK_TOPICS
from contracts.errors import UsageError
from contracts.loading import get_contract, load_contracts
from contracts.settings import Settings
from contracts.states import Layer
from sluice.files import parse_uri, utc


def plan(
    settings: Settings,
    keys: Sequence[str],
    dataset: str | None,
    since: datetime | None,
    until: datetime | None,
    batch: str | None,
    depth: str,
) -> ReplayPlan:
    """What a replay of the files chosen by keys, by dataset and time of their PUT, or by batch would do.

    Raises:
        UsageError: not exactly one way of choosing, no such depth, or nothing is known of a file.
        UnknownDataset: no contract has that name.
    """
    if sum((bool(keys), dataset is not None, batch is not None)) != 1:
        raise UsageError("Say which files: keys as bronze/<key>, --dataset, or --batch; one of the three.")
    if dataset is None and (since or until):
        raise UsageError("--since and --until go with --dataset.")
    if depth not in set(Layer):
        raise UsageError(f"No depth is called {depth!r}. Depths: {', '.join(Layer)}.")
    contracts = load_contracts(settings.contracts_dir)
    with open_ledger(settings) as ledger:
        if dataset is not None:
            get_contract(contracts, dataset)
            rows = ledger.newest_of_dataset(dataset, utc(since), utc(until))
        elif batch is not None:
            rows = ledger.newest_of_batch(batch)
        else:
            rows = _of_keys(ledger, keys)
    if not rows:
        raise UsageError("The ledger knows no such file. See what it knows: sluice why --list")
    version = f"replay-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    return plan_replay(rows, contracts, Layer(depth), version)


def carry_out(settings: Settings, plan: ReplayPlan) -> int:
    """Start the files' way anew. Should it break off, run it again: what was started already is started once more.

    Returns:
        How many files were started; one that was put again or deleted since the plan was made is left out.

    Raises:
        ServiceUnavailable: Kafka or Postgres does not answer.
    """
    producer = Producer(settings.kafka_login("operator"))
    try:
        with open_ledger(settings) as ledger:
            # 1. The ledger holds that the files were asked for again.
            started = ledger.replay(plan.work)
        for message in silver_work(started, datetime.now(UTC)):
            producer.send(WORK_TOPICS[message.layer], message.dataset, message.model_dump_json().encode())
        # 2. Kafka holds the work once the flush returns.
        producer.flush()
    finally:
        producer.close()
    return len(started)


def _of_keys(ledger: Ledger, keys: Sequence[str]) -> list[FileRow]:
    places = [parse_uri(key) for key in keys]
    rows = ledger.newest_of_keys(places)
    missing = sorted(set(places) - {(row.bucket, row.key) for row in rows})
    if missing:
        raise UsageError(f"The ledger knows no {'/'.join(missing[0])}. See what it knows: sluice why --list")
    return rows
