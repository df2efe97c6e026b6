"""The DAG that looks for what no event told of, and for work that stands still."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

DOC = """
Compares **bronze**, the ledger and the runs, and sets going again what was left: objects whose event was lost, objects
that were deleted without an event, work that nobody took, batches whose run is missing or ended without a result. It
ends the wait for sets of files whose time limit is over, and reports paused stages for which files wait. Each run lists
the next piece of the bucket; trigger it with `full` for all of it, or run `sluice reconcile --full`.
"""

with DAG(
    dag_id="reconcile",
    schedule=timedelta(minutes=5),
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["sluice", "upkeep"],
    description="Find what no event told of, and set it going again",
    doc_md=DOC,
    params={"full": Param(False, type="boolean")},
):

    @task(retries=2, retry_delay=timedelta(seconds=30))
    def reconcile(params: Any = None) -> dict[str, Any]:
        """Return the report, for the task's XCom."""
        from sluice_listener.upkeep import reconcile_now

        return reconcile_now(bool(params["full"]))

    reconcile()
