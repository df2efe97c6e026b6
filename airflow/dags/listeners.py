"""The two listener DAGs: each holds one sensor that hands the work of a layer over to the stage DAGs."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG
from sluice_listener.sensor import WorkSensor

from contracts.states import Layer

DOC = """
Waits for **{source}** files and starts `<dataset>_to_{layer}` for them, one run per dataset and batch.

The sensor runs in the triggerer and ends by itself after six hours; the next run then begins at once, so one
run is always under way. Its log says which message became which run. Pausing this DAG does not stop the run that
is under way; pause a stage DAG to hold back a dataset.
"""

for source, layer in (("bronze", Layer.SILVER), ("silver", Layer.GOLD)):
    with DAG(
        dag_id=f"listen_{source}",
        schedule="@continuous",
        start_date=datetime(2024, 1, 1),
        catchup=False,
        max_active_runs=1,
        tags=["sluice", "listener", str(layer)],
        description=f"Starts the {layer} stages when {source} has work for them",
        doc_md=DOC.format(source=source, layer=layer),
    ):
        WorkSensor(
            task_id="hand_over_work",
            layer=layer,
            lifetime=timedelta(hours=6).total_seconds(),
            timeout=timedelta(hours=12).total_seconds(),
            # It fails only when Kafka's client gave up or the ledger is away at its start: soon again, but not at once.
            retries=1000,
            retry_delay=timedelta(seconds=5),
        )
