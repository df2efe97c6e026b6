"""What the upkeep DAGs call."""

from __future__ import annotations

import json
import logging
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
