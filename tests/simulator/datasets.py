"""The datasets of the simulation."""

from __future__ import annotations

from contracts.dataset import Column, DatasetContract, Gold, Limits, Table

_FILE = (Column(name="day", type="date", required=True), Column(name="amount", type="int"))
_SUMS = (Column(name="day", type="date"), Column(name="files_rows", type="int"), Column(name="total", type="int"))


def _contract(dataset: str, **fields: object) -> DatasetContract:
    return DatasetContract.model_validate(
        {
            "dataset": dataset,
            "version": "1.0.0",
            "path": r"[^/]+\.parquet",
            "transforms": "none",
            "silver": Table(name=f"silver.{dataset}", columns=_FILE),
            "gold": Gold(
                features=Table(name=f"gold.{dataset}_features", columns=_FILE),
                aggregate=Table(name=f"gold.{dataset}_sums", columns=_SUMS),
                aggregate_by="day",
            ),
            **fields,
        }
    )


KEEPS = _contract("keeps", on_delete="keep", max_batch_files=2)
TAKES = _contract("takes", on_delete="retract", limits=Limits(max_rejected_share=0.6), on_quarantine="keep")
CONTRACTS = {one.dataset: one for one in (KEEPS, TAKES)}
TABLES = [
    name
    for one in CONTRACTS.values()
    for name in (one.silver.name, one.rejects_table, one.features.name, one.aggregate.name)
]
