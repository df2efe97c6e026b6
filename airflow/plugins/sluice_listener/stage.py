"""What a stage DAG's task calls: load the batch, run the layer's Spark job, note the outcome on the run."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from contracts.dataset import DatasetContract
from contracts.errors import BadWork, Permanent, ServiceUnavailable, SluiceError
from contracts.fail_points import Step, reach
from contracts.loading import get_contract, load_contracts
from contracts.markers import CommitMarker
from contracts.settings import PROJECT, Settings, load_settings
from contracts.states import Layer
from contracts.work import Batch

if TYPE_CHECKING:
    from consumers.ledger import Ledger

log = logging.getLogger(__name__)

RETRIES = 9
"""Of a task. With Airflow's doubling delay of 2 to 30 s a server may be away for three minutes."""
TRIES = 4
"""After so many a job is given up that fails while every server answers."""


def run_stage(layer: Layer, dag_id: str, run_id: str, attempt: int, conf: Mapping[str, Any]) -> dict[str, int]:
    """Run the Spark job of a layer for the batch that the run's conf names.

    Returns:
        `files`, `refused`, `rows_in`, `rows_accepted`, `rows_rejected`, for the task's XCom.

    Raises:
        AirflowFailException: an error that trying again cannot mend, or that came `TRIES` times; its cause is ours.
        ServiceUnavailable: a server does not answer; the task may be tried again.
        JobFailed, AirflowException: the job failed; the task may be tried again.
    """
    try:
        return totals(_run_job(layer, dag_id, run_id, attempt, conf))
    except ServiceUnavailable:
        raise
    except (SluiceError, AirflowException) as error:
        if isinstance(error, Permanent) or attempt >= TRIES:
            raise AirflowFailException(str(error)) from error
        raise


def _run_job(layer: Layer, dag_id: str, run_id: str, attempt: int, conf: Mapping[str, Any]) -> CommitMarker:
    from consumers.ledger import open_ledger

    settings = load_settings()
    with open_ledger(settings) as ledger:
        batch = _batch(ledger, conf, dag_id)
        ledger.started(batch, dag_id, run_id, attempt)
        reach(Step.TASK_STARTED)
    contract = get_contract(load_contracts(settings.contracts_dir), batch.dataset)
    launch = _submit if contract.launch == "submit" else _connect
    marker = launch(settings, contract, batch, dag_id, run_id)
    # The rows are committed by now, so a note that cannot be set is logged and left.
    set_note(settings, dag_id, run_id, outcome(marker))
    return marker


def _connect(settings: Settings, contract: DatasetContract, batch: Batch, dag_id: str, run_id: str) -> CommitMarker:
    """The job on the warm Spark Connect server, driven from this process."""
    from ingest.store import store_for
    from spark_jobs import data_preprocessing_job, feature_engineering_job
    from spark_jobs.lake import open_lake
    from spark_jobs.session import connect_session

    job = data_preprocessing_job if batch.layer is Layer.SILVER else feature_engineering_job
    store = store_for(settings, "spark")
    lake = open_lake(settings, store)
    spark = connect_session(settings)
    try:
        return job.run(spark, lake, store, contract, batch, dag_id, run_id)
    finally:
        # Rows that the executors held for an attempt that failed would else be given back one by one at the process's
        # end, and with the server gone each such call is tried for half a minute.
        spark.stop()


def _submit(settings: Settings, contract: DatasetContract, batch: Batch, dag_id: str, run_id: str) -> CommitMarker:
    """The job as a Spark application of its own, where the Airflow connection `spark_default` says."""
    from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook

    from spark_jobs.by_hand import Outcome

    name = "data_preprocessing_job.py" if batch.layer is Layer.SILVER else "feature_engineering_job.py"
    with TemporaryDirectory(prefix="sluice-") as folder:
        order, answer = Path(folder) / "batch.json", Path(folder) / "outcome.json"
        order.write_text(batch.model_dump_json(), "utf-8")
        arguments = ["--batch", str(order), "--outcome", str(answer), "--dag-id", dag_id, "--run-id", run_id]
        # `spark-submit` is beside this Python, and takes the Python that it finds first for the driver.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        hook = SparkSubmitHook(application_args=arguments, name=f"sluice-{batch.run_id}", env_vars={"PATH": path})
        try:
            hook.submit(str(PROJECT / "spark_jobs" / name))
        except AirflowException as error:
            if not answer.is_file():
                raise
            outcome = Outcome.model_validate_json(answer.read_bytes())
            raise (AirflowFailException if outcome.permanent else AirflowException)(outcome.error) from error
        finally:
            hook.on_kill()
        marker = Outcome.model_validate_json(answer.read_bytes()).marker
    if marker is None:
        raise AirflowException(f"{name} ended without a commit marker; the task's log has what it printed.")
    return marker


def give_up(dag_id: str, run_id: str, conf: Mapping[str, Any], error: BaseException | str | None) -> None:
    """Tell the ledger that a run failed for good, so that each file of it has a reason."""
    from consumers.ledger import open_ledger

    with open_ledger(load_settings()) as ledger:
        batch = _batch(ledger, conf, dag_id)
        told = isinstance(error, SluiceError | AirflowException)
        detail = str(error) if told else f"{type(error).__name__}: {error}"
        ledger.failed(batch, run_id, detail[:1000])


def totals(marker: CommitMarker) -> dict[str, int]:
    """Counts over a marker's files."""
    taken = [source for source in marker.sources if source.refused is None]
    return {
        "files": len(taken),
        "refused": len(marker.sources) - len(taken),
        "rows_in": sum(source.rows_in for source in taken),
        "rows_accepted": sum(source.rows_accepted for source in taken),
        "rows_rejected": sum(source.rows_rejected for source in taken),
    }


def outcome(marker: CommitMarker) -> str:
    """One line for the run's note: file or number of files, and rows."""
    counts = totals(marker)
    sources = marker.sources
    what = sources[0].key if len(sources) == 1 else f"{len(sources)} files of {marker.dataset}"
    rows = f"{counts['rows_in']:,} rows in, {counts['rows_accepted']:,} accepted, {counts['rows_rejected']:,} rejected"
    refused = [f"{source.key}: {source.refused}" for source in sources if source.refused is not None]
    told = f"; refused {', '.join(refused[:5])}" + (f" and {len(refused) - 5} more" if len(refused) > 5 else "")
    return f"{what} → {marker.table}: {rows}{told if refused else ''} (batch {marker.batch_id})"


def set_note(settings: Settings, dag_id: str, run_id: str, note: str) -> None:
    """Set a run's note, or log why it could not be set."""
    from consumers.airflow_api import service_api

    async def write() -> None:
        async with service_api(settings) as api:
            await api.set_note(dag_id, run_id, note)

    try:
        asyncio.run(write())
    except SluiceError as error:
        log.warning("The run keeps its old note. %s", error.message)


def _batch(ledger: Ledger, conf: Mapping[str, Any], dag_id: str) -> Batch:
    """The batch that a run's conf names; anybody who may trigger the DAG can write that."""
    batch_id = conf.get("batch_id")
    if not isinstance(batch_id, str):
        raise BadWork(
            f"A run of {dag_id} needs a conf with 'batch_id'. Drop a file instead: the listener makes the run."
        )
    batch = ledger.load_batch(batch_id)
    if batch.dag_id != dag_id:
        raise BadWork(f"The batch {batch_id!r} is one of {batch.dag_id}, not of {dag_id}. The listener makes its run.")
    return batch
