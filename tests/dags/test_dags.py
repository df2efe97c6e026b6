"""Every DAG loads, and holds what the other parts count on."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.types import DagRunType
from sluice_listener.stage import RETRIES, TRIES

from contracts.loading import load_contracts
from contracts.settings import load_settings
from contracts.states import Layer
from contracts.work import RUN_TYPES, WorkItem, make_batch, stage_dag_id

REPO = Path(__file__).resolve().parents[2]
DAGS = REPO / "airflow" / "dags"
PLUGINS = REPO / "airflow" / "plugins"
CONTRACTS = load_contracts(load_settings().contracts_dir)


@pytest.fixture(scope="module")
def bag() -> Any:
    return DagBag(dag_folder=DAGS)


def test_every_dag_file_loads(bag: Any) -> None:
    assert bag.import_errors == {}


def test_each_contract_has_a_stage_dag_per_layer_with_one_active_run(bag: Any) -> None:
    tasks = {Layer.SILVER: "data_preprocessing", Layer.GOLD: "feature_engineering"}
    for dataset, contract in CONTRACTS.items():
        # A reference has silver alone.
        assert (stage_dag_id(dataset, Layer.GOLD) in bag.dags) == (contract.gold is not None)
        for layer, task in tasks.items() if contract.gold else [(Layer.SILVER, tasks[Layer.SILVER])]:
            dag = bag.dags[stage_dag_id(dataset, layer)]
            assert dag.max_active_runs == 1
            assert dag.task_ids == [task]
            assert dag.get_task(task).retries == RETRIES >= TRIES


@pytest.mark.parametrize(("dag_id", "layer"), [("listen_bronze", "silver"), ("listen_silver", "gold")])
def test_listener_starts_in_the_triggerer_and_runs_all_the_time(bag: Any, dag_id: str, layer: str) -> None:
    dag = bag.dags[dag_id]
    (sensor,) = dag.tasks
    assert dag.timetable.active_runs_limit == dag.max_active_runs == 1
    assert sensor.start_from_trigger
    assert sensor.start_trigger_args.trigger_cls == "sluice_listener.trigger.WorkTrigger"
    assert sensor.start_trigger_args.trigger_kwargs["layer"] == layer


def test_listeners_have_different_consumer_groups(bag: Any) -> None:
    groups = [
        bag.dags[dag_id].tasks[0].start_trigger_args.trigger_kwargs["group"]
        for dag_id in ("listen_bronze", "listen_silver")
    ]
    assert len(set(groups)) == 2


def test_each_published_source_has_its_download_dag(bag: Any) -> None:
    for contract in CONTRACTS.values():
        if contract.download is not None:
            dag = bag.dags[contract.download.dag]
            assert set(dag.params) == {"year", "month", "dataset"}
            assert contract.dataset in dag.params.get_param("dataset").schema["enum"]
            assert dag.task_ids == ["download_to_bronze", "wait_for_gold", "arrival"]


def test_dag_files_import_neither_spark_nor_kafka_clients_nor_the_ledger() -> None:
    heavy = ("pyspark", "consumers.ledger", "psycopg", "ingest.store", "kafka")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from sluice_listener.preload import preload; preload('dag-processor')  # runs all of them\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(PLUGINS)],
        capture_output=True, text=True, check=True, timeout=120, cwd=REPO,
    )  # fmt: skip
    assert result.stdout.strip().splitlines()[-1] == "[]"


def test_task_that_the_scheduler_forks_finds_all_loaded_to_parse_its_dag() -> None:
    code = (
        "import runpy, sys; sys.path.insert(0, sys.argv.pop(2))\n"
        "from airflow.plugins_manager import ensure_plugins_loaded\n"
        "ensure_plugins_loaded()\n"
        "before = set(sys.modules)\n"
        "from airflow.sdk.listener import get_listener_manager\n"
        "get_listener_manager()\n"
        "for path in sys.argv[2:]: runpy.run_path(path)\n"
        "print(sorted(set(sys.modules) - before))\n"
        "print(sorted({'pyspark', 'consumers.ledger'} - before))"
    )
    files = [str(path) for path in sorted(DAGS.glob("*.py"))]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, "scheduler", str(PLUGINS), *files],
        capture_output=True, text=True, check=True, timeout=120, cwd=REPO,
    )  # fmt: skip
    assert result.stdout.strip().splitlines()[-2:] == ["[]", "[]"]


def test_reconcile_runs_by_itself_one_pass_at_a_time(bag: Any) -> None:
    dag = bag.dags["reconcile"]
    assert dag.schedule == timedelta(minutes=5)
    assert (dag.max_active_runs, dag.catchup) == (1, False)


def test_upkeep_looks_after_each_dataset_one_after_the_other_at_night(bag: Any) -> None:
    dag = bag.dags["upkeep"]
    assert (dag.max_active_runs, dag.catchup) == (1, False)
    assert set(dag.task_ids) == {"choose", "look_after", "clean_airflow"}
    look_after = dag.get_task("look_after")
    # Or a run in which tables were not looked after would count as a success.
    assert look_after.downstream_task_ids == dag.get_task("clean_airflow").downstream_task_ids == set()
    assert look_after.max_active_tis_per_dag == 1
    assert look_after.upstream_task_ids == {"choose"}
    choose = dag.get_task("choose").python_callable
    assert choose({"datasets": dag.params["datasets"]}) == sorted(CONTRACTS)
    assert choose({"datasets": ["nyc_yellow", "nyc_green", "nyc_yellow"]}) == ["nyc_green", "nyc_yellow"]


def test_profiles_are_woken_by_silver_of_any_dataset_and_silver_alone_wakes_them(bag: Any) -> None:
    watched = {asset.name for asset in bag.dags["profiles"].timetable.asset_condition.objects}
    assert watched == {f"silver.{dataset}" for dataset in CONTRACTS}
    told = {(dag_id, outlet.name) for dag_id, dag in bag.dags.items() for task in dag.tasks for outlet in task.outlets}
    assert told == {(f"{dataset}_to_silver", f"silver.{dataset}") for dataset in CONTRACTS}


@pytest.mark.parametrize("name", ["report..parquet", "scheduled__2025.parquet", "backfill", "asset_triggered__x"])
def test_airflow_takes_the_id_of_a_run_whatever_its_only_file_is_called(name: str) -> None:
    item = WorkItem(bucket="bronze", key=f"nyc_yellow/{name}", etag="e", version="1")
    run_id = make_batch(Layer.SILVER, "nyc_yellow", [item]).run_id
    assert ".." not in run_id
    assert DagRunType.from_run_id(run_id) == DagRunType.MANUAL
    assert set(RUN_TYPES) == {f"{kind.value}__" for kind in DagRunType if kind != DagRunType.MANUAL}
