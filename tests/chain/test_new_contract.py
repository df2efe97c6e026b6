"""A running stack takes a new contract up: nothing is restarted."""

from __future__ import annotations

import pytest

from contracts.states import FileState
from tests.chain.conftest import Drop, MakeMonth, Query
from tests.conftest import Stack, write_variant

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def test_file_of_a_dataset_whose_contract_was_added_to_a_running_stack_reaches_gold(
    stack: Stack, put: Drop, month: MakeMonth, query: Query, unique: str
) -> None:
    dataset = f"trips_{unique}"
    pids = {name: service["pid"] for name, service in _services(stack).items()}
    write_variant(stack.settings.contracts_dir, dataset, "onDelete", "keep")
    story = put(f"{dataset}/a_2025-01.parquet", month(rows=80))
    assert story.state is FileState.DONE, story
    assert query(f"select count(*) from gold.{dataset}_features") == [(story.layers[1].rows_accepted,)]
    assert {name: service["pid"] for name, service in _services(stack).items()} == pids


def _services(stack: Stack) -> dict[str, dict[str, object]]:
    return {service["name"]: service for service in stack.json("status")["services"]}
