"""The DAGs that a person triggers with year and month: download to bronze, then watch the file arrive in gold."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, task

from contracts.loading import load_contracts
from contracts.settings import load_settings

DOC = """
Downloads one published month into **bronze** and shows where the file got to.

Trigger it with a year and a month. The download can be resumed and is checked before it reaches bronze in one piece.
From there on nothing is special: the file's arrival starts the stages, as it does for any other file. The last task
holds the file's story, with the rows of each layer, and the run's note sums it up.
"""


def make_production(dag_id: str, datasets: list[str]) -> DAG:
    """The download DAG for those datasets."""
    this_year = datetime.now(UTC).year
    with DAG(
        dag_id=dag_id,
        schedule=None,
        max_active_runs=4,
        tags=["sluice", "download", *datasets],
        description="Download a published month into bronze and follow it to gold",
        doc_md=DOC,
        params={
            "year": Param(this_year - 1, type="integer", minimum=2009, maximum=this_year),
            "month": Param(1, type="integer", minimum=1, maximum=12),
            "dataset": Param(datasets[0], type="string", enum=datasets),
        },
    ) as dag:

        @task(retries=2, retry_delay=timedelta(seconds=10))
        def download_to_bronze(params: Any = None) -> dict[str, str]:
            from sluice_listener.arrival import fetch_month

            return fetch_month(params["dataset"], params["year"], params["month"])

        @task.sensor(poke_interval=2, timeout=3600, mode="reschedule", retries=2, retry_delay=timedelta(seconds=5))
        def wait_for_gold(place: dict[str, str]) -> bool:
            from sluice_listener.arrival import arrived

            return arrived(place)

        @task(retries=2, retry_delay=timedelta(seconds=5))
        def arrival(place: dict[str, str], dag_run: Any = None) -> dict[str, Any]:
            from sluice_listener.arrival import report

            return report(place, dag_run.dag_id, dag_run.run_id)

        place = download_to_bronze()
        wait_for_gold(place) >> arrival(place)
    return dag


_by_dag: defaultdict[str, list[str]] = defaultdict(list)
for _contract in load_contracts(load_settings().contracts_dir).values():
    if _contract.download is not None:
        _by_dag[_contract.download.dag].append(_contract.dataset)
for _dag_id, _datasets in _by_dag.items():
    globals()[_dag_id] = make_production(_dag_id, _datasets)
