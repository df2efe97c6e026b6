"""Airflow's assets: what the DAGs that nothing waits for are woken by."""

from __future__ import annotations

from airflow.sdk import Asset


def silver_asset(dataset: str) -> Asset:
    """The silver table of a dataset. Each event of it carries the `batch_id` of a run that may have changed it."""
    return Asset(name=f"silver.{dataset}", uri=f"sluice://silver/{dataset}", group="sluice")
