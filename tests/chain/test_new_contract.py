"""A running stack takes a new contract up: nothing is restarted."""

from __future__ import annotations

import pytest

from contracts.states import FileState, Reason
from tests.chain.conftest import Drop, MakeMonth, Query
from tests.conftest import Stack, write_variant

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def test_dataset_whose_contract_was_added_to_a_running_stack_reaches_gold_and_its_limit_on_rejected_rows_holds(
    stack: Stack, put: Drop, month: MakeMonth, query: Query, unique: str
) -> None:
    dataset = f"trips_{unique}"
    pids = {name: service["pid"] for name, service in _services(stack).items()}
    write_variant(stack.settings.contracts_dir, dataset, "limits", {"maxRejectedShare": 0.5})
    story = put(f"{dataset}/a_2025-01.parquet", month(rows=80))
    assert story.state is FileState.DONE, story
    assert query(f"select count(*) from gold.{dataset}_features") == [(story.layers[1].rows_accepted,)]
    # The same rows in a file that is named for another month: each of them lies outside of it.
    story = put(f"{dataset}/b_2019-06.parquet", month(rows=90))
    assert (story.state, story.reason) == (FileState.QUARANTINED, Reason.TOO_MANY_REJECTED)
    assert "90 of 90 rows fail" in str(story.detail)
    assert query(f"select count(*) from silver.{dataset} where _source_key like '%/b_%'") == [(0,)]
    assert {name: service["pid"] for name, service in _services(stack).items()} == pids


def _services(stack: Stack) -> dict[str, dict[str, object]]:
    return {service["name"]: service for service in stack.json("status")["services"]}
