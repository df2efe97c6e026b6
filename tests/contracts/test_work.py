"""Work messages, batches and commit markers."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.errors import BadWork
from contracts.loading import load_contract
from contracts.markers import CommitMarker, SourceResult, parse_marker
from contracts.settings import PROJECT
from contracts.states import FileState, Layer, Reason
from contracts.work import RUN_TYPES, Batch, WorkItem, WorkMessage, make_batch, parse_work, refuse_other, stage_dag_id

NOW = datetime(2025, 1, 2, tzinfo=UTC)
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=100)
ITEMS = st.builds(
    WorkItem,
    bucket=st.just("bronze"),
    key=KEYS,
    etag=st.sampled_from(["e1", "e2"]),
    size=st.integers(0, 2**40),
    version=st.sampled_from(["1", "2"]),
    rows=st.none() | st.integers(0, 10),
)


def items(*names: str) -> list[WorkItem]:
    return [WorkItem(bucket="bronze", key=name, etag="e", version="1") for name in names]


TAXI = load_contract(PROJECT / "contracts" / "datasets" / "nyc_yellow.yaml")


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        pytest.param(make_batch(Layer.SILVER, "nyc_green", items("nyc_green/a")), "nyc_green_to_silver", id="dataset"),
        pytest.param(make_batch(Layer.GOLD, "nyc_yellow", items("nyc_yellow/a")), "nyc_yellow_to_gold", id="layer"),
        pytest.param(
            make_batch(Layer.SILVER, "nyc_yellow", items("nyc_yellow/a", "nyc_green/a")), "nyc_green/a", id="file"
        ),
    ],
)
def test_batch_of_another_stage_or_with_another_dataset_s_file_is_refused(batch: Batch, said: str) -> None:
    with pytest.raises(BadWork, match=said):
        refuse_other(TAXI, Layer.SILVER, batch)


def test_batch_of_the_dataset_s_own_files_is_not_refused() -> None:
    refuse_other(TAXI, Layer.SILVER, make_batch(Layer.SILVER, "nyc_yellow", items("nyc_yellow/a", "nyc_yellow/b/c")))


@given(st.lists(ITEMS, min_size=1, max_size=4))
def test_work_message_comes_back_as_it_was_sent(sent: list[WorkItem]) -> None:
    message = WorkMessage(layer=Layer.GOLD, dataset="d", items=tuple(sent), at=NOW)
    assert parse_work(message.model_dump_json().encode()) == message


@given(st.binary(max_size=100))
def test_no_bytes_raise_anything_but_bad_work(value: bytes) -> None:
    with pytest.raises(BadWork):
        parse_work(value)
    with pytest.raises(BadWork):
        parse_marker(value)


def test_message_of_a_newer_schema_is_bad_work() -> None:
    message = WorkMessage(schema_version=2, layer=Layer.GOLD, dataset="d", items=tuple(items("a")), at=NOW)
    with pytest.raises(BadWork, match="schema version 2"):
        parse_work(message.model_dump_json().encode())


@given(st.lists(ITEMS, min_size=1, max_size=5, unique_by=lambda item: item.key), st.randoms())
def test_same_files_in_any_order_make_the_same_batch(some: list[WorkItem], random: object) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert make_batch(Layer.SILVER, "d", shuffled) == make_batch(Layer.SILVER, "d", some)


@pytest.mark.parametrize(
    "change",
    [{"key": "b"}, {"etag": "f"}, {"version": "2"}, {"bucket": "other"}],
    ids=lambda change: next(iter(change)),
)
def test_other_content_makes_another_batch(change: dict[str, str]) -> None:
    (item,) = items("a")
    other = item.model_copy(update=change)
    assert make_batch(Layer.SILVER, "d", [item]).batch_id != make_batch(Layer.SILVER, "d", [other]).batch_id


def test_layer_and_dataset_are_part_of_the_batch_id() -> None:
    made = {make_batch(layer, name, items("a")).batch_id for layer in Layer for name in ("d", "e")}
    assert len(made) == 4


def test_later_version_of_an_object_replaces_the_earlier_one() -> None:
    (item,) = items("a")
    newer = item.model_copy(update={"etag": "f", "version": "2"})
    assert make_batch(Layer.SILVER, "d", [item, newer]).items == (newer,)


@given(st.lists(ITEMS, min_size=1, max_size=3))
def test_run_id_is_one_that_airflow_accepts_whatever_the_key(some: list[WorkItem]) -> None:
    run_id = make_batch(Layer.SILVER, "d", some).run_id
    assert re.fullmatch(r"[A-Za-z0-9_.~:+-]{1,250}", run_id)
    assert ".." not in run_id
    assert not run_id.startswith(RUN_TYPES)


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("report..parquet", "report.parquet__"),
        ("a/...", ".__"),
        ("scheduled__2025.parquet", "file-scheduled__2025.parquet__"),
        ("backfill", "file-backfill__"),
        ("schedule.parquet", "schedule.parquet__"),
    ],
)
def test_run_id_of_a_name_that_airflow_would_refuse_still_names_the_file(name: str, begins: str) -> None:
    assert make_batch(Layer.SILVER, "d", items(name)).run_id.startswith(begins)


@pytest.mark.parametrize("changed", [{"etag": "\0"}, {"key": "a\0"}, {"size": 2**63}, {"rows": 10**30}], ids=str)
def test_work_that_the_ledger_cannot_hold_is_no_work(changed: dict[str, Any]) -> None:
    (item,) = items("a")
    value = {"layer": "silver", "dataset": "d", "items": [item.model_dump() | changed], "at": "2025-01-01T00:00:00Z"}
    with pytest.raises(BadWork):
        parse_work(json.dumps(value).encode())


def test_run_id_names_the_file_or_their_number() -> None:
    assert make_batch(Layer.SILVER, "d", items("d/may 1.parquet")).run_id.startswith("may_1.parquet__")
    assert make_batch(Layer.SILVER, "d", items("a", "b")).run_id.startswith("2_files__")


def test_stage_is_named_after_dataset_and_layer() -> None:
    assert stage_dag_id("nyc_yellow", Layer.SILVER) == "nyc_yellow_to_silver"


def source(**changes: object) -> SourceResult:
    values = {"bucket": "bronze", "key": "k", "etag": "e", "rows_in": 3, "rows_accepted": 2, "rows_rejected": 1}
    return SourceResult.model_validate(values | changes)


@given(KEYS, st.none() | st.integers(1, 2**62))
def test_marker_comes_back_as_it_was_written(key: str, snapshot: int | None) -> None:
    marker = CommitMarker(
        layer=Layer.SILVER,
        dataset="d",
        table="silver.d",
        snapshot_id=snapshot,
        batch_id="b",
        started_at=NOW,
        committed_at=NOW,
        sources=(source(key=key), source(rows_in=0, refused=Reason.NOT_PARQUET)),
    )
    assert parse_marker(marker.model_dump_json().encode()) == marker
    assert marker.key == f"_commits/d/{snapshot or 'none'}-b.json"


def test_rows_that_do_not_add_up_make_no_marker() -> None:
    with pytest.raises(ValidationError, match="3 rows in, but 1 accepted"):
        source(rows_accepted=1)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_advises_and_ends_the_file(reason: Reason) -> None:
    assert reason.advice.endswith(".")
    assert reason.state in (FileState.QUARANTINED, FileState.IGNORED)
    assert reason.state.final
