"""What tasks and parses need is loaded once, before Airflow forks the processes that run them."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from runpy import run_path

from airflow.sdk.listener import get_listener_manager

from contracts.errors import ContractError
from contracts.settings import PROJECT

FOR_TASKS = (
    "pyspark.sql.connect.session",
    "pyarrow.dataset",
    "anyio._backends._asyncio",
    "consumers.ledger",
    "ingest.store",
    "spark_jobs.data_preprocessing_job",
    "spark_jobs.feature_engineering_job",
    "spark_jobs.profile_job",
    "spark_jobs.session",
)
"""Modules that the jobs import when they run; 2 s in a fresh process."""

_loaded: set[str] = set()


def preload(part: str) -> None:
    """Load what the processes need that a part of Airflow forks, `scheduler` or `dag-processor`; others fork none.

    Once a process: each task loads Airflow's plugins anew, and finds here that all is there.
    """
    if part not in ("scheduler", "dag-processor") or _loaded:
        return
    _loaded.add(part)
    if part == "scheduler":
        for name in FOR_TASKS:
            import_module(name)
        from consumers.airflow_api import trusted

        trusted()
    # Modules, contracts and settings of the DAGs, and the decorators for which all providers are looked through. A
    # contract that cannot be read is told of where it is needed.
    for path in sorted((PROJECT / "airflow" / "dags").glob("*.py")):
        with suppress(ContractError):
            run_path(str(path))
    # It loads the plugins once more, for tasks: a tenth of a second in each otherwise.
    get_listener_manager()
