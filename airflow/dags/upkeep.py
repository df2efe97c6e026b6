"""The DAG that looks after the tables, and after Airflow's own records, once a day."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from contracts.loading import load_contracts
from contracts.settings import load_settings

DOC = """
Looks after the tables of each dataset, within the limits of `upkeep` in its contract: puts the rows of small files
together, so that readers open few data files instead of many; expires snapshots; removes files that no snapshot knows
of. Rows stay what they are, and files can be corrected as before. Trigger it by hand whenever you like, for some
datasets or for all: beside running stages it does no harm, and a task whose commit a stage overtook tries again.

A task of its own, `clean_airflow`, removes runs that are older than `SLUICE_AIRFLOW_RETENTION_DAYS`, and logs of tasks.
"""

_datasets = sorted(load_contracts(load_settings().contracts_dir))
with DAG(
    dag_id="upkeep",
    # At night, UTC.
    schedule="0 3 * * *",
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["sluice", "upkeep"],
    description="Put small files together, expire snapshots, remove orphaned files and old runs",
    doc_md=DOC,
    params={
        "datasets": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "enum": _datasets},
            description="Those to look after; all where none is named, as at night.",
        )
    },
):

    @task(retries=3, retry_delay=timedelta(minutes=2), weight_rule="absolute", priority_weight=0)
    def choose(params: Any = None) -> list[str]:
        """Return the datasets, each once and in order."""
        return sorted(set(params["datasets"] or _datasets))

    @task(
        retries=3,
        retry_delay=timedelta(minutes=2),
        # One after the other, after whatever brings files to gold.
        max_active_tis_per_dag=1,
        weight_rule="absolute",
        priority_weight=0,
        map_index_template="{{ task.op_kwargs['dataset'] }}",
    )
    def look_after(dataset: str) -> list[dict[str, Any]]:
        """Return what was done to each table, for the task's XCom."""
        from sluice_listener.upkeep import look_after as look_after_tables

        return look_after_tables(dataset)

    @task(retries=3, retry_delay=timedelta(minutes=2), weight_rule="absolute", priority_weight=0)
    def clean_airflow() -> dict[str, Any]:
        """Return what was removed, for the task's XCom."""
        from sluice_listener.retention import clean

        return clean()

    # Neither waits for the other: a run whose last task passed is a success, whatever became of the tables before it.
    clean_airflow()
    look_after.expand(dataset=choose())
