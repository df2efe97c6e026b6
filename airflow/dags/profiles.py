"""The DAG that makes the profiles of files, once they are in silver."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, AssetAny, task
from sluice_listener.assets import silver_asset

from contracts.loading import load_contracts
from contracts.settings import load_settings

DOC = """
Makes a profile of each file that came into silver: rows, nulls, bounds, quantiles, rejects by reason. `sluice profile`
shows them. Silver's stages wake it, and nothing waits for it: what came while it runs is its next run's.
"""

_contracts = load_contracts(load_settings().contracts_dir)
if _contracts:
    with DAG(
        dag_id="profiles",
        schedule=AssetAny(*(silver_asset(dataset) for dataset in sorted(_contracts))),
        max_active_runs=1,
        tags=["sluice", "upkeep"],
        description="Make the profiles of files that came into silver",
        doc_md=DOC,
    ):

        @task(
            retries=3,
            retry_delay=timedelta(seconds=20),
            weight_rule="absolute",
            priority_weight=0,
            multiple_outputs=False,
        )
        def make_profiles(triggering_asset_events: Any = None) -> dict[str, int]:
            """Return the number of profiles by dataset, for the task's XCom."""
            from sluice_listener.upkeep import make_profiles as make

            events = [event for found in triggering_asset_events.values() for event in found]
            return make([(event.asset.name.partition(".")[2], (event.extra or {}).get("batch_id")) for event in events])

        make_profiles()
