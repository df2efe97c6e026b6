"""What a replay runs again."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from consumers.replay import plan_replay
from consumers.routing import silver_work
from consumers.rows import FileRow
from contracts.dataset import Completeness
from contracts.states import FileState, Layer, Reason
from tests.consumers.samples import CONTRACT, CONTRACTS, KEY, NOON


def file(key: str = KEY, state: FileState = FileState.DONE, reason: Reason | None = None) -> FileRow:
    return FileRow("bronze", key, "a1", "10", state, reason, size=7, dataset="nyc_yellow", version="10")


def test_manifest_is_passed_over_since_it_holds_no_rows() -> None:
    rules = Completeness(manifest="list.json", time_limit=timedelta(hours=1), on_time_limit="release")
    contracts = {"nyc_yellow": CONTRACT.model_copy(update={"completeness": rules})}
    plan = plan_replay([file("nyc_yellow/2025/list.json")], contracts, Layer.GOLD, "replay-1")
    assert (plan.work, [passed.why for passed in plan.passed]) == ((), ["It is a manifest, which holds no rows."])


def test_every_file_is_work_of_one_new_version_whatever_became_of_it() -> None:
    files = [
        file("nyc_yellow/done.parquet"),
        file("nyc_yellow/bad.parquet", FileState.QUARANTINED, Reason.RUN_FAILED),
        dataclasses.replace(file("nyc_yellow/waits.parquet", FileState.RECEIVED), depth=Layer.SILVER),
    ]
    plan = plan_replay(files, CONTRACTS, Layer.SILVER, "replay-1")
    assert [work.item.key for work in plan.work] == [row.key for row in files]
    asked = {(work.item.version, work.item.cause, work.item.depth) for work in plan.work}
    assert asked == {("replay-1", "replay-1", "silver")}
    assert (plan.passed, plan.batches, plan.size) == ((), 1, 21)


@pytest.mark.parametrize("state", [FileState.RECEIVED, FileState.RUNNING])
def test_replay_to_silver_does_not_end_the_way_of_a_file_that_is_under_way_to_gold(state: FileState) -> None:
    plan = plan_replay([file(state=state)], CONTRACTS, Layer.SILVER, "replay-1")
    assert [work.item.depth for work in plan.work] == [Layer.GOLD]


def test_deleted_objects_and_keys_that_no_contract_wants_are_passed_with_the_reason() -> None:
    gone = dataclasses.replace(file("nyc_yellow/gone.parquet"), removed_at=NOON)
    lost = file("oders/a.parquet", FileState.QUARANTINED, Reason.UNKNOWN_DATASET)
    plan = plan_replay([gone, lost], CONTRACTS, Layer.GOLD, "replay-1")
    assert plan.work == ()
    assert [passed.uri for passed in plan.passed] == ["bronze/nyc_yellow/gone.parquet", "bronze/oders/a.parquet"]
    assert "unknown_dataset" in plan.passed[1].why


@pytest.mark.parametrize(
    ("days", "why"),
    [
        (30, "The object is gone: its contract keeps files in bronze for 30 days. Drop it again to run it."),
        (31, "The object was deleted."),
        (None, "The object was deleted."),
    ],
)
def test_replay_of_an_expired_file_says_how_long_it_was_kept(days: int | None, why: str) -> None:
    contracts = {"nyc_yellow": CONTRACT.model_copy(update={"keep_bronze": days})}
    gone = dataclasses.replace(file(), put_at=NOON - timedelta(days=30), removed_at=NOON)
    assert [passed.why for passed in plan_replay([gone], contracts, Layer.GOLD, "replay-1").passed] == [why]


def test_file_of_a_dataset_whose_contract_was_added_since_is_run() -> None:
    late = dataclasses.replace(file(KEY, FileState.QUARANTINED, Reason.UNKNOWN_DATASET), dataset=None)
    assert plan_replay([late], CONTRACTS, Layer.GOLD, "replay-1").work[0].dataset == "nyc_yellow"


def test_thousand_files_are_one_batch_and_ten_messages() -> None:
    files = [file(f"nyc_yellow/{number}.parquet") for number in range(1000)]
    plan = plan_replay(files, CONTRACTS, Layer.GOLD, "replay-1")
    assert plan.batches == 1
    messages = silver_work(plan.work, NOON)
    assert len(messages) == 10
    assert sum(len(message.items) for message in messages) == 1000
