"""What the upkeep DAGs call."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from contracts.settings import load_settings

log = logging.getLogger(__name__)


def reconcile_now(full: bool) -> dict[str, Any]:
    """One pass of reconcile; its report as JSON values, also logged.

    Raises:
        ServiceUnavailable: a server does not answer; the next pass goes on.
    """
    from consumers.reconciler import reconcile
    from ingest.store import store_for
    from spark_jobs.lake import open_lake

    settings = load_settings()
    lake = open_lake(settings, store_for(settings, "spark"))
    report: dict[str, Any] = reconcile(settings, lake.batches_since, full).model_dump(mode="json")
    log.info("%s", json.dumps(report, indent=2))
    return report


def look_after(dataset: str) -> list[dict[str, Any]]:
    """Upkeep of a dataset's tables; what was done to each, as JSON values.

    Raises:
        UnknownDataset: it has no contract any more.
        JobFailed, ServiceUnavailable: a server does not answer, or a job changed the same rows; the next try goes on.
        AccountingMismatch: a commit has other rows than it took away.
    """
    from consumers.ledger import open_ledger
    from contracts.loading import get_contract, load_contracts
    from ingest.store import store_for
    from spark_jobs.lake import open_lake
    from spark_jobs.session import connect_session
    from spark_jobs.upkeep_job import run

    settings = load_settings()
    contract = get_contract(load_contracts(settings.contracts_dir), dataset)
    with open_ledger(settings) as ledger:
        busy_since = ledger.unfinished_since()
    spark = connect_session(settings)
    try:
        lake = open_lake(settings, store_for(settings, "spark"))
        done = run(spark, lake, contract, datetime.now(UTC), busy_since)
    finally:
        spark.stop()
    return [table.model_dump(mode="json") for table in done]


def make_profiles(batches: Iterable[tuple[str, str | None]]) -> dict[str, int]:
    """The profiles of some batches' files; how many of each dataset.

    Args:
        batches: dataset and batch id; None of a run that had none, which made nothing.

    Raises:
        ServiceUnavailable, ObjectGone: the next try makes all of them again.
    """
    from contracts.loading import load_contracts
    from ingest.store import store_for
    from spark_jobs.lake import open_lake
    from spark_jobs.profile_job import run

    # The stages' work goes first.
    os.nice(19)
    settings = load_settings()
    contracts, store = load_contracts(settings.contracts_dir), store_for(settings, "spark")
    lake, made = open_lake(settings, store), Counter[str]()
    for dataset, batch_id in dict.fromkeys(batches):
        if batch_id is not None and dataset in contracts:
            made[dataset] += len(run(settings, lake, store, contracts[dataset], batch_id))
    return dict(made)
