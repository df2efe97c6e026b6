"""Sets of files on the real servers: gold waits for what the manifest lists, up to the contract's time limit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consumers.ledger import Ledger
from consumers.reconcile import Finding
from consumers.reconciler import reconcile
from contracts.errors import UsageError
from contracts.states import FileState, Reason
from ingest.store import store_for
from sluice.files import wait_for_end
from spark_jobs.lake import open_lake
from tests.chain.accounting import assert_accounted
from tests.chain.conftest import WAIT_SECONDS, Drop, MakeMonth, Query, sql_text, wait_until
from tests.conftest import IN_SETS, Stack, write_variant

pytestmark = [pytest.mark.stack, pytest.mark.beside, pytest.mark.timeout(900)]
MONTH = 2025, 6

PutInSet = Callable[..., None]


@pytest.fixture
def folder(unique: str) -> str:
    """A set of the test's own, with the slash at its end."""
    return f"{IN_SETS}/{unique}/"


@pytest.fixture
def come(s3: Any, month: MakeMonth, folder: str) -> PutInSet:
    """Put files that are not waited for, each with the rows given: `come(a=100)`."""

    def put_all(**rows: int) -> None:
        for name, count in rows.items():
            s3.put_object(Bucket="bronze", Key=f"{folder}{name}_2025-06.parquet", Body=month(count, seed=count))

    return put_all


def listing(**rows: int) -> bytes:
    return json.dumps({"files": [{"name": f"{name}_2025-06.parquet", "rows": n} for name, n in rows.items()]}).encode()


def waits_for(ledger: Ledger, key: str, what: str) -> bool:
    story = ledger.story("bronze", key)
    return story is not None and story.state is FileState.RUNNING and story.detail == what


def in_gold(query: Query, folder: str) -> set[str]:
    found = f"from gold.{IN_SETS}_features where starts_with(_source_key, {sql_text(folder)})"
    try:
        rows = query(f"select distinct _source_key {found}")
    except UsageError:
        return set()  # No file of the dataset ever reached gold, so there is no table yet.
    return {key.removeprefix(folder) for (key,) in rows}


def test_files_reach_gold_together_once_the_last_that_is_listed_is_in_silver(
    stack: Stack, put: Drop, come: PutInSet, query: Query, ledger: Ledger, folder: str
) -> None:
    rows = {"a": 110, "b": 120, "c": 130}
    keys = {name: f"{folder}{name}_2025-06.parquet" for name in rows}
    assert put(f"{folder}manifest.json", listing(**rows)).state is FileState.DONE
    come(a=110, b=120)
    sentence = "waiting for 1 of 3 files: c_2025-06.parquet (has not arrived)"
    for name in "ab":
        wait_until(lambda key=keys[name]: waits_for(ledger, key, sentence), f"{name} waits for c")
        told = stack.json("why", f"bronze/{keys[name]}")
        assert (told["state"], told["detail"]) == ("running", sentence)
        assert "held" in [passage["hop"] for passage in told["timeline"]]
    assert sentence in " ".join(stack.run("why", f"bronze/{keys['a']}").stdout.split())
    assert in_gold(query, folder) == set()
    come(c=130)
    stories = [wait_for_end(lambda key=key: ledger.story("bronze", key), key, 0, WAIT_SECONDS) for key in keys.values()]
    assert_accounted(query, *zip(stories, rows.values(), strict=True))
    assert in_gold(query, folder) == {key.removeprefix(folder) for key in keys.values()}


@pytest.mark.parametrize("then", ["release", "quarantine"])
def test_time_limit_ends_the_wait_as_the_contract_says(
    stack: Stack,
    put: Drop,
    come: PutInSet,
    query: Query,
    ledger: Ledger,
    folder: str,
    then: str,
    tmp_path: Path,
) -> None:
    key = f"{folder}a_2025-06.parquet"
    put(f"{folder}manifest.json", listing(a=110, b=120))
    come(a=110)
    sentence = "waiting for 1 of 2 files: b_2025-06.parquet (has not arrived)"
    wait_until(lambda: waits_for(ledger, key, sentence), "a waits for b")
    write_variant(tmp_path, IN_SETS, {"completeness": {"timeLimit": "PT0.001S", "onTimeLimit": then}})
    lake = open_lake(stack.settings, store_for(stack.settings, "spark"))
    report = reconcile(stack.settings.model_copy(update={"contracts_dir": tmp_path}), lake.batches_since)
    assert (Finding.SET_INCOMPLETE, f"bronze/{folder}") in report.named
    story = wait_for_end(lambda: ledger.story("bronze", key), key, 0, WAIT_SECONDS)
    if then == "release":
        assert story.state is FileState.DONE
        assert f"after 0:00:00.001000, though {sentence}" in [passage.detail for passage in story.timeline]
        assert in_gold(query, folder) == {"a_2025-06.parquet"}
    else:
        assert (story.state, story.reason) == (FileState.QUARANTINED, Reason.SET_INCOMPLETE)
        assert sentence in (story.detail or "")
        assert in_gold(query, folder) == set()
