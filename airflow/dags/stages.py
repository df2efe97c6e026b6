"""One DAG per dataset and layer, made from the contracts. The listeners make their runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, get_parsing_context, task
from sluice_listener.assets import silver_asset
from sluice_listener.stage import RETRIES

from contracts.dataset import DatasetContract
from contracts.loading import load_contracts
from contracts.settings import load_settings
from contracts.states import Layer
from contracts.work import stage_dag_id

TASKS = {Layer.SILVER: "data_preprocessing", Layer.GOLD: "feature_engineering"}
DOC = """
Brings **{title}** to {layer}: reads {reads}, writes `{writes}`.

A run works on one batch of files; its id names the file or the number of files, and its note says what became of the
rows. The listener makes the runs when files arrive, so there is nothing to trigger by hand: `sluice replay` runs files
again.
"""


def _give_up(context: Any) -> None:
    from sluice_listener.stage import give_up

    run = context["dag_run"]
    give_up(run.dag_id, run.run_id, run.conf or {}, context.get("exception"))


def make_stage(contract: DatasetContract, layer: Layer) -> DAG:
    """The stage DAG of a dataset and layer."""
    asset = silver_asset(contract.dataset)
    writes = contract.silver.name if layer is Layer.SILVER else f"{contract.features.name}`, `{contract.aggregate.name}"
    with DAG(
        dag_id=stage_dag_id(contract.dataset, layer),
        schedule=None,
        max_active_runs=1,
        tags=["sluice", "stage", contract.dataset, str(layer)],
        description=f"{contract.title or contract.dataset}: to {layer}",
        doc_md=DOC.format(
            title=contract.title or contract.dataset,
            layer=layer,
            reads="new files in bronze" if layer is Layer.SILVER else f"`{contract.silver.name}`",
            writes=writes,
        ),
    ) as dag:

        @task(
            task_id=TASKS[layer],
            retries=RETRIES,
            retry_delay=timedelta(seconds=2),
            retry_exponential_backoff=True,
            max_retry_delay=timedelta(seconds=30),
            on_failure_callback=_give_up,
            outlets=[asset] if layer is Layer.SILVER else [],
            # One XCom with all counts: each is a request, and the next batch waits for the task's end.
            multiple_outputs=False,
        )
        def stage(dag_run: Any = None, ti: Any = None, outlet_events: Any = None) -> dict[str, int]:
            from sluice_listener.stage import run_stage

            conf = dag_run.conf or {}
            if layer is Layer.SILVER:
                outlet_events[asset].extra = {"batch_id": conf.get("batch_id")}
            return run_stage(layer, dag_run.dag_id, dag_run.run_id, ti.try_number, conf)

        stage()
    return dag


# A task that starts parses this file for its own DAG alone.
_wanted = get_parsing_context().dag_id
for _contract in load_contracts(load_settings().contracts_dir).values():
    # A reference has silver alone.
    for _layer in TASKS if _contract.gold else (Layer.SILVER,):
        _dag_id = stage_dag_id(_contract.dataset, _layer)
        if _wanted in (None, _dag_id):
            globals()[_dag_id] = make_stage(_contract, _layer)
