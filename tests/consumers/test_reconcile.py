"""What reconcile finds, and what mends it."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

import pytest

from consumers.reconcile import (
    IN_FLIGHT,
    Finding,
    Page,
    judge_run,
    lost_puts,
    lost_removal,
    maybe_gone,
    settled,
    waiting_for,
)
from consumers.routing import Removed, Repeat, Work, route
from consumers.rows import FileRow, KnownFiles
from contracts.events import BucketEvent, later, notification, parse_events
from contracts.states import FileState, Reason
from ingest.store import ObjectInfo
from tests.consumers.samples import CONTRACTS, KEY, NOON, put, removal

OLD = NOON - timedelta(hours=1)


def found(etag: str = "a1", at: datetime = OLD, key: str = KEY) -> ObjectInfo:
    return ObjectInfo("bronze", key, etag, 7, at)


def row(etag: str = "a1", put_at: datetime | None = OLD, removed_at: datetime | None = None) -> FileRow:
    return FileRow(
        "bronze", KEY, etag, "1A" + "0" * 14, FileState.DONE, dataset="nyc_yellow", put_at=put_at, removed_at=removed_at
    )


def page(*objects: ObjectInfo) -> Page:
    return Page(objects, "", None, settled(NOON, None))


def test_object_that_no_event_told_of_gets_the_event_that_it_lacks() -> None:
    (event,) = lost_puts(page(found()), {})
    assert (event.key, event.etag, event.size, event.created) == (KEY, "a1", 7, True)
    assert isinstance(route(event, CONTRACTS, KnownFiles()), Work)


def test_content_that_replaced_known_content_without_an_event_counts_as_the_later() -> None:
    known = row("b2", put_at=OLD - timedelta(minutes=5))
    (event,) = lost_puts(page(found("a1")), {KEY: known})
    assert later(event.sequencer, known.sequencer)
    assert isinstance(route(event, CONTRACTS, KnownFiles([known])), Work)


@pytest.mark.parametrize(
    ("known", "at"),
    [
        pytest.param(row(), OLD, id="known"),
        pytest.param(None, NOON - IN_FLIGHT + timedelta(seconds=1), id="event-may-be-on-its-way"),
        pytest.param(row("b2", put_at=NOON), OLD, id="ledger-is-ahead-of-the-listing"),
        pytest.param(row(removed_at=NOON), OLD, id="removed-after-the-listing"),
    ],
)
def test_object_that_needs_no_event_gets_none(known: FileRow | None, at: datetime) -> None:
    assert lost_puts(page(found(at=at)), {KEY: known} if known else {}) == []


@pytest.mark.parametrize("removed", [False, True], ids=["corrected", "put-again-after-its-removal"])
def test_object_whose_event_was_ignored_after_a_clock_had_been_ahead_is_found_once_that_time_is_past(
    removed: bool,
) -> None:
    ahead = OLD + timedelta(minutes=5)
    taken_back = dataclasses.replace(row(removed_at=ahead), state=FileState.IGNORED, reason=Reason.RETRACTED)
    known = taken_back if removed else row("b2", put_at=ahead)
    assert ahead < settled(NOON, None)
    (event,) = lost_puts(page(found("a1")), {KEY: known})
    assert isinstance(route(event, CONTRACTS, KnownFiles([known])), Work)


def test_object_put_again_after_its_removal_without_an_event_is_found() -> None:
    assert len(lost_puts(page(found(at=OLD)), {KEY: row(removed_at=OLD - timedelta(minutes=1))})) == 1


@pytest.mark.parametrize("reason", [Reason.SUPERSEDED, Reason.OBJECT_GONE])
def test_content_put_back_after_a_run_found_other_content_is_found(reason: Reason) -> None:
    known = dataclasses.replace(row(put_at=OLD - timedelta(minutes=5)), state=FileState.IGNORED, reason=reason)
    (event,) = lost_puts(page(found()), {KEY: known})
    assert isinstance(route(event, CONTRACTS, KnownFiles([known])), Work)
    assert lost_puts(page(found(at=OLD - timedelta(minutes=5))), {KEY: known}) == []


def test_event_that_comes_after_all_is_a_repetition() -> None:
    (made,) = lost_puts(page(found()), {})
    known = dataclasses.replace(row(), sequencer=made.sequencer, state=FileState.RUNNING)
    late = put().model_copy(update={"sequencer": f"{int(made.sequencer, 16) + 500:X}"})
    assert route(late, CONTRACTS, KnownFiles([known])) == Repeat(dropped=True)


def test_version_whose_object_is_missing_is_a_candidate_unless_it_is_new_or_known_to_be_gone() -> None:
    assert maybe_gone(page(), [row()], (), {}) == [row()]
    assert maybe_gone(page(found()), [row()], (), {}) == []
    assert maybe_gone(page(), [row(put_at=NOON), row(removed_at=OLD)], (), {}) == []


def test_removal_that_found_the_object_put_again_is_a_candidate_once_that_is_gone_too() -> None:
    passed_over = dataclasses.replace(row(removed_at=OLD), state=FileState.IGNORED, reason=Reason.SUPERSEDED)
    retracting = (passed_over.dataset or "",)
    assert maybe_gone(page(), [passed_over], retracting, {}) == [passed_over]
    assert maybe_gone(page(), [passed_over], (), {}) == []
    just_now = dataclasses.replace(passed_over, removed_at=NOON)
    assert maybe_gone(page(), [row(removed_at=OLD), just_now], retracting, {}) == []


def test_removal_that_was_lost_comes_right_after_what_is_known_and_before_what_may_come() -> None:
    event = lost_removal(row(), NOON, {})
    assert (event.removed, event.expired) == (True, False)
    assert later(event.sequencer, row().sequencer)
    assert int(event.sequencer, 16) == int(row().sequencer, 16) + 1


DAY = timedelta(days=1)


def written(at: datetime) -> str:
    """The sequencer of a write, as MinIO makes it."""
    return f"{int(at.timestamp()) * 10**9:X}"


@pytest.mark.parametrize(
    ("put_at", "again", "kept", "expired"),
    [
        pytest.param(NOON - 30 * DAY, NOON - 30 * DAY, {"nyc_yellow": 30}, True, id="its-time-is-over"),
        pytest.param(NOON - 29 * DAY, NOON - 29 * DAY, {"nyc_yellow": 30}, False, id="deleted-before-its-time"),
        pytest.param(NOON - 30 * DAY, NOON - 9 * DAY, {"nyc_yellow": 30}, False, id="same-content-was-put-again-since"),
        pytest.param(NOON - 900 * DAY, NOON - 900 * DAY, {"nyc_green": 30}, False, id="kept-for-ever"),
    ],
)
def test_object_that_nobody_told_to_be_gone_expired_if_its_time_was_over(
    put_at: datetime, again: datetime, kept: dict[str, int], expired: bool
) -> None:
    gone = dataclasses.replace(row(put_at=put_at), sequencer=written(again))
    event = lost_removal(gone, NOON, kept)
    assert (event.removed, event.expired) == (True, expired)
    assert parse_events(notification(event)) == [event]
    retracting = {"nyc_yellow": CONTRACTS["nyc_yellow"].model_copy(update={"on_delete": "retract"})}
    decision = route(event, retracting, KnownFiles([gone]))
    assert isinstance(decision, Removed if expired else Work)


def test_removal_of_an_object_that_expired_is_not_looked_for_again_and_again() -> None:
    long_ago = NOON - 40 * DAY
    expired = dataclasses.replace(row(put_at=long_ago, removed_at=OLD), reason=Reason.SUPERSEDED)
    assert maybe_gone(page(), [expired], ("nyc_yellow",), {"nyc_yellow": 30}) == []
    assert maybe_gone(page(), [expired], ("nyc_yellow",), {"nyc_yellow": 90}) == [expired]


@pytest.mark.parametrize(
    ("state", "second", "committed", "finding"),
    [
        ("running", None, False, None),
        ("queued", None, True, None),
        (None, None, False, Finding.RUN_MISSING),
        (None, None, True, Finding.RUN_MISSING),
        ("failed", None, False, Finding.RUN_FAILED),
        ("failed", None, True, Finding.SNAPSHOT_WITHOUT_MARKER),
        ("success", None, False, Finding.NO_RESULT),
        ("success", None, True, Finding.SNAPSHOT_WITHOUT_MARKER),
        ("success", "running", True, None),
        ("success", "failed", False, Finding.RUN_FAILED),
        ("success", "failed", True, Finding.NO_RESULT_TWICE),
        ("success", "success", False, Finding.NO_RESULT_TWICE),
    ],
)
def test_state_of_the_runs_and_the_table_decide_on_a_batch_without_marker(
    state: str | None, second: str | None, committed: bool, finding: Finding | None
) -> None:
    assert judge_run(state, second, committed) is finding


def test_what_the_reader_of_a_topic_still_has_before_it_is_not_settled() -> None:
    assert settled(NOON, None) == NOON - IN_FLIGHT
    assert settled(NOON, OLD) == OLD - IN_FLIGHT


def test_only_paused_stages_with_files_waiting_are_told() -> None:
    assert waiting_for(["a", "b"], {"a": 3, "c": 4}) == {"a": 3}


@pytest.mark.parametrize(
    "event",
    [put(key="nyc_yellow/a b+c%20é東'.parquet"), removal(), put(sequencer="FFFF")],
    ids=["hostile-key", "removal", "put"],
)
def test_event_that_is_made_reads_back_as_it_was(event: BucketEvent) -> None:
    assert parse_events(notification(event)) == [event]
