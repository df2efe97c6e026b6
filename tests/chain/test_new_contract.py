"""A running stack takes a new contract up: nothing is restarted."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from contracts.states import FileState, Reason
from tests.chain.conftest import Drop, DropAll, MakeMonth, Query, sql_text
from tests.conftest import Stack, write_variant

pytestmark = [pytest.mark.stack, pytest.mark.beside, pytest.mark.timeout(900)]


def test_dataset_whose_contract_was_added_to_a_running_stack_reaches_gold_and_its_limits_on_bad_rows_hold(
    stack: Stack, put: Drop, put_all: DropAll, month: MakeMonth, query: Query, unique: str
) -> None:
    dataset = f"trips_{unique}"
    pids = {name: service["pid"] for name, service in _services(stack).items()}
    write_variant(stack.settings.contracts_dir, dataset, {"limits": {"maxRejectedShare": 0.5}})
    _refuse(stack.settings.contracts_dir / f"{dataset}.yaml", "outside_file_month", 0.25)
    story = put(f"{dataset}/a_2025-01.parquet", month(rows=80))
    assert story.state is FileState.DONE, story
    assert query(f"select count(*) from gold.{dataset}_features") == [(story.layers[1].rows_accepted,)]
    of_another_month, without_end = f"{dataset}/b_2019-06.parquet", f"{dataset}/c_2025-01.parquet"
    refused = put_all({of_another_month: month(rows=90), without_end: _without_end(month(rows=70))})
    for key, detail in (
        (of_another_month, "outside_file_month: 90 of 90 rows fail, a share of 0.25 is allowed."),
        (without_end, "maxRejectedShare: 70 of 70 rows fail, a share of 0.5 is allowed."),
    ):
        story = refused[key]
        assert (story.state, story.reason, story.detail) == (
            FileState.QUARANTINED, Reason.TOO_MANY_REJECTED, detail,
        )  # fmt: skip
        assert query(f"select count(*) from silver.{dataset} where _source_key = {sql_text(key)}") == [(0,)]
    assert {name: service["pid"] for name, service in _services(stack).items()} == pids


def _refuse(contract: Path, rule: str, share: float) -> None:
    """Have a rule of the silver table refuse the file where more than a share of its rows fails."""
    document = yaml.safe_load(contract.read_text("utf-8"))
    found = next(item for item in document["schema"][0]["quality"] if item["name"] == rule)
    found["severity"] = "refuse"
    found["customProperties"].append({"property": "maxShare", "value": share})
    contract.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")


def _without_end(body: bytes) -> bytes:
    """The same trips, each over when it begins."""
    trips = pq.read_table(io.BytesIO(body))
    place = trips.schema.get_field_index("tpep_dropoff_datetime")
    buffer = io.BytesIO()
    pq.write_table(trips.set_column(place, "tpep_dropoff_datetime", trips["tpep_pickup_datetime"]), buffer)
    return buffer.getvalue()


def _services(stack: Stack) -> dict[str, dict[str, object]]:
    return {service["name"]: service for service in stack.json("status")["services"]}
