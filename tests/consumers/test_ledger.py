"""The ledger on a real Postgres."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from consumers.completeness import Place
from consumers.dead_letters import LetterState
from consumers.ledger import _MOVE_FIRST_OPEN, Ledger
from consumers.migrate import migrate
from consumers.routing import Arrival, Decision, End, Repeat, Work, plan
from consumers.rows import Changes, KnownFiles
from contracts.dataset import DatasetContract
from contracts.errors import AccountingMismatch, BadWork, IllegalTransition, ServiceUnavailable
from contracts.events import BucketEvent
from contracts.manifest import Manifest, ManifestFile
from contracts.markers import SourceResult
from contracts.states import FileState, Hop, Layer, Reason
from contracts.story import FileStory
from contracts.work import Batch, WorkItem, make_batch
from tests.consumers.samples import CONTRACT, CONTRACTS, KEY, NOON, accepted, arrival, marker, planned, put, removal

pytestmark = pytest.mark.services


def drop(ledger: Ledger, *events: BucketEvent) -> list[Decision]:
    return ledger.apply([(e.bucket, e.key, e.etag) for e in events], lambda known: planned(known, *events))


def told(ledger: Ledger, key: str = KEY, etag: str | None = None) -> FileStory:
    story = ledger.story("bronze", key, etag)
    assert story is not None
    return story


def batch_of(event: BucketEvent, layer: Layer = Layer.SILVER, version: str | None = None) -> Batch:
    item = WorkItem(
        bucket=event.bucket, key=event.key, etag=event.etag, size=event.size, version=version or event.sequencer
    )
    return make_batch(layer, "nyc_yellow", [item])


def test_story_of_a_file_tells_every_hop_in_order_of_time(ledger: Ledger) -> None:
    drop(ledger, put())
    silver = batch_of(put())
    assert ledger.claim(silver)
    ledger.started(silver, silver.dag_id, silver.run_id, 1)
    assert told(ledger).state == FileState.RUNNING
    ledger.record_marker(marker(accepted()))
    assert told(ledger).state == FileState.RUNNING
    ledger.record_marker(marker(accepted(rows=8, rejected=0), layer=Layer.GOLD, batch_id="b2", snapshot=6))
    story = told(ledger)
    assert story.state == FileState.DONE
    assert [passage.at for passage in story.timeline] == sorted(passage.at for passage in story.timeline)
    assert {hop: sum(p.hop == hop for p in story.timeline) for hop in Hop if hop != "repeated"} == {
        **dict.fromkeys((Hop.PUT, Hop.EVENT, Hop.ROUTED, Hop.CLAIMED, Hop.STARTED), 1),
        **dict.fromkeys((Hop.COMMITTED, Hop.RECORDED), 2),
        **dict.fromkeys((Hop.REMOVED, Hop.REPLAYED, Hop.QUARANTINED, Hop.HELD, Hop.RELEASED, Hop.FAILED), 0),
    }
    assert [(r.layer, r.rows_in, r.rows_accepted, r.rows_rejected) for r in story.layers] == [
        (Layer.SILVER, 10, 8, 2),
        (Layer.GOLD, 8, 8, 0),
    ]


def test_event_delivered_twice_changes_nothing_and_is_handed_on_again_until_claimed(ledger: Ledger) -> None:
    drop(ledger, put())
    before = told(ledger)
    (second,) = drop(ledger, put())
    assert isinstance(second, Repeat)
    assert isinstance(second.again, Work)
    assert told(ledger) == before
    ledger.claim(batch_of(put()))
    assert drop(ledger, put()) == [Repeat(dropped=False, again=None)]


def test_same_content_dropped_again_leaves_a_running_file_running(ledger: Ledger) -> None:
    drop(ledger, put())
    ledger.claim(batch_of(put()))
    assert drop(ledger, put(sequencer="11")) == [Repeat(dropped=True)]
    story = told(ledger)
    assert story.state == FileState.RUNNING
    assert story.timeline[-1].hop == Hop.CLAIMED
    assert Hop.REPEATED in [passage.hop for passage in story.timeline]


def test_correction_supersedes_a_version_that_still_waits(ledger: Ledger) -> None:
    drop(ledger, put(etag="a1", sequencer="10"))
    drop(ledger, put(etag="b2", sequencer="11"))
    assert (told(ledger, etag="a1").state, told(ledger, etag="a1").reason) == (FileState.IGNORED, Reason.SUPERSEDED)
    assert (told(ledger).etag, told(ledger).state) == ("b2", FileState.RECEIVED)


def test_version_that_waits_for_gold_is_superseded_once_gold_takes_a_newer_one(ledger: Ledger) -> None:
    first, second = put(), put(etag="e2", sequencer="1B")
    for number, event in enumerate((first, second)):
        drop(ledger, event)
        ledger.claim(batch_of(event))
        ledger.record_marker(marker(accepted(etag=event.etag), batch_id=f"b{number}", snapshot=number + 5))
    ledger.claim(batch_of(first, Layer.GOLD, "5"))
    assert told(ledger, etag=second.etag).state == FileState.RUNNING
    ledger.claim(batch_of(second, Layer.GOLD, "6"))
    old = told(ledger, etag=first.etag)
    assert (old.state, old.reason, old.timeline[-1].hop) == (FileState.IGNORED, Reason.SUPERSEDED, Hop.RECORDED)
    assert told(ledger, etag=second.etag).state == FileState.RUNNING


def test_correction_leaves_a_running_version_to_its_marker(ledger: Ledger) -> None:
    drop(ledger, put(etag="a1", sequencer="10"))
    ledger.claim(batch_of(put(etag="a1", sequencer="10")))
    drop(ledger, put(etag="b2", sequencer="11"))
    assert told(ledger, etag="a1").state == FileState.RUNNING


def test_old_content_put_back_starts_anew(ledger: Ledger) -> None:
    drop(ledger, put(etag="a1", sequencer="10"))
    ledger.record_marker(marker(accepted(), layer=Layer.GOLD))
    drop(ledger, put(etag="b2", sequencer="11"))
    (again,) = drop(ledger, put(etag="a1", sequencer="12"))
    assert isinstance(again, Work)
    assert (told(ledger).etag, told(ledger).state) == ("a1", FileState.RECEIVED)


def test_events_of_one_poll_see_each_other(ledger: Ledger) -> None:
    decisions = drop(ledger, put(etag="b2", sequencer="11"), put(etag="a1", sequencer="10"), removal())
    assert [type(decision).__name__ for decision in decisions] == ["Work", "End", "Removed"]
    assert told(ledger).etag == "b2"
    assert told(ledger, etag="a1").reason == Reason.SUPERSEDED


def test_longer_sequencer_is_the_newer_version(ledger: Ledger) -> None:
    drop(ledger, put(etag="a1", sequencer="FF"))
    drop(ledger, put(etag="b2", sequencer="100"))
    assert told(ledger).etag == "b2"


def test_refused_file_is_quarantined_and_dropping_it_again_starts_it_anew(ledger: Ledger) -> None:
    drop(ledger, put())
    refused = accepted(rows=0, rejected=0).model_copy(update={"refused": Reason.NOT_PARQUET, "detail": "text"})
    ledger.record_marker(marker(refused, snapshot=None))
    story = told(ledger)
    assert (story.state, story.reason, story.detail) == (FileState.QUARANTINED, Reason.NOT_PARQUET, "text")
    assert story.layers == ()
    drop(ledger, put(sequencer="11"))
    assert (told(ledger).state, told(ledger).reason) == (FileState.RECEIVED, None)


def test_marker_recorded_twice_changes_nothing(ledger: Ledger) -> None:
    drop(ledger, put())
    ledger.record_marker(marker(accepted()))
    before = told(ledger)
    ledger.record_marker(marker(accepted()))
    assert told(ledger) == before


def test_older_marker_does_not_replace_a_newer_result(ledger: Ledger) -> None:
    newer = marker(accepted(rows=20), batch_id="b2", snapshot=9)
    older = marker(accepted(rows=10)).model_copy(update={"committed_at": newer.started_at})
    ledger.record_marker(newer)
    ledger.record_marker(older)
    assert told(ledger).layers[0].snapshot_id == 9


def test_marker_of_a_file_that_no_event_told_of_is_recorded(ledger: Ledger) -> None:
    ledger.record_marker(marker(accepted()))
    assert (told(ledger).dataset, told(ledger).state) == ("nyc_yellow", FileState.RUNNING)


def test_silver_marker_that_comes_after_gold_leaves_the_file_done(ledger: Ledger) -> None:
    drop(ledger, put())
    ledger.record_marker(marker(accepted(), layer=Layer.GOLD, batch_id="b2"))
    ledger.record_marker(marker(accepted()))
    assert told(ledger).state == FileState.DONE


def test_failed_run_quarantines_its_files_and_a_late_marker_overrules_that(ledger: Ledger) -> None:
    drop(ledger, put())
    ledger.claim(batch_of(put()))
    ledger.failed(batch_of(put()), "run-1", "executor lost")
    assert (told(ledger).state, told(ledger).reason) == (FileState.QUARANTINED, Reason.RUN_FAILED)
    ledger.record_marker(marker(accepted()))
    assert (told(ledger).state, told(ledger).reason) == (FileState.RUNNING, None)


def test_claimed_items_stay_unclaimed_until_their_run_exists(ledger: Ledger) -> None:
    drop(ledger, put())
    batch = batch_of(put())
    assert ledger.claim(batch)
    assert not ledger.claim(batch)
    assert ledger.unclaimed(Layer.SILVER, "nyc_yellow", batch.items) == list(batch.items)
    ledger.handed_over(batch.batch_id)
    assert ledger.unclaimed(Layer.SILVER, "nyc_yellow", batch.items) == []
    later = batch.items[0].model_copy(update={"version": "99"})
    assert ledger.unclaimed(Layer.SILVER, "nyc_yellow", [*batch.items, later]) == [later]
    assert ledger.unclaimed(Layer.GOLD, "nyc_yellow", batch.items) == list(batch.items)


def test_loaded_batch_equals_the_claimed_one(ledger: Ledger) -> None:
    items = [
        WorkItem(bucket="bronze", key=f"nyc_yellow/ü +%{n}'.parquet", etag="e", size=n, version="1") for n in range(30)
    ]
    batch = make_batch(Layer.GOLD, "nyc_yellow", items)
    ledger.claim(batch)
    assert ledger.load_batch(batch.batch_id) == batch


def test_unknown_batch_is_bad_work(ledger: Ledger) -> None:
    with pytest.raises(BadWork, match="No batch 'nope'"):
        ledger.load_batch("nope")


def test_stories_are_filtered_and_newest_first(ledger: Ledger) -> None:
    drop(ledger, put(key="nyc_yellow/a.parquet"))
    drop(ledger, put(key="oders/a.parquet"))
    assert [story.key for story in ledger.stories()] == ["oders/a.parquet", "nyc_yellow/a.parquet"]
    assert [story.key for story in ledger.stories(state=FileState.QUARANTINED)] == ["oders/a.parquet"]
    assert [story.key for story in ledger.stories(dataset="nyc_yellow", limit=5)] == ["nyc_yellow/a.parquet"]
    assert len(ledger.stories(limit=1)) == 1


@pytest.mark.parametrize(
    "statement",
    ["UPDATE ledger.history SET hop = 'put'", "DELETE FROM ledger.history", "TRUNCATE ledger.history"],
    ids=["update", "delete", "truncate"],
)
def test_history_cannot_be_rewritten(ledger: Ledger, ledger_url: str, statement: str) -> None:
    drop(ledger, put())
    with psycopg.connect(ledger_url) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(statement)


def test_illegal_change_of_state_is_refused(ledger: Ledger) -> None:
    drop(ledger, put())
    ledger.record_marker(marker(accepted(), layer=Layer.GOLD))
    with pytest.raises(IllegalTransition, match="from done to running"):
        ledger._run(lambda connection: connection.execute("UPDATE ledger.files SET state = 'running'"))


def test_rows_that_do_not_add_up_are_refused(ledger: Ledger) -> None:
    wrong = accepted().model_copy(update={"rows_in": 11})
    with pytest.raises(AccountingMismatch):
        ledger.record_marker(marker().model_copy(update={"sources": (wrong,)}))
    assert ledger.story("bronze", KEY) is None


def test_value_that_postgres_cannot_hold_is_bad_work(ledger: Ledger) -> None:
    with pytest.raises(BadWork):
        ledger.story("bronze", "nul\0")
    with pytest.raises(BadWork):
        ledger.story("bronze", "half a pair \ud800")


def test_no_server_is_service_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.ledger.CONNECT_SECONDS", 0.2)
    monkeypatch.setattr("consumers.ledger.TRIES", 1)
    with Ledger("postgresql://ledger@127.0.0.1:1/lake") as ledger, pytest.raises(ServiceUnavailable):
        ledger.story("bronze", KEY)


def test_migration_can_be_repeated(ledger: Ledger, ledger_url: str) -> None:
    drop(ledger, put())
    migrate(ledger_url)
    assert told(ledger).state == FileState.RECEIVED


def replayed(event: BucketEvent, version: str = "replay-1", depth: Layer = Layer.GOLD) -> WorkItem:
    return WorkItem(bucket=event.bucket, key=event.key, etag=event.etag, version=version, cause=version, depth=depth)


def of_work(source: SourceResult, work: WorkItem, **fields: object) -> SourceResult:
    return source.model_copy(update={"cause": work.cause, "depth": work.depth, **fields})


def test_replayed_file_starts_anew_and_markers_of_its_earlier_work_do_not_end_it(ledger: Ledger) -> None:
    drop(ledger, put())
    old = accepted().model_copy(update={"cause": "10"})
    ledger.record_marker(marker(old, layer=Layer.GOLD))
    work = replayed(put())
    assert ledger.replay([Work("nyc_yellow", work)]) == [Work("nyc_yellow", work)]
    assert told(ledger).state == FileState.RECEIVED
    assert told(ledger).timeline[-1].hop == Hop.REPLAYED
    ledger.record_marker(marker(old, layer=Layer.GOLD, batch_id="late"))
    assert told(ledger).state == FileState.RECEIVED
    ledger.record_marker(marker(of_work(accepted(), work), layer=Layer.GOLD, batch_id="b9"))
    assert told(ledger).state == FileState.DONE


def test_file_replayed_to_silver_is_done_there(ledger: Ledger) -> None:
    drop(ledger, put())
    work = replayed(put(), depth=Layer.SILVER)
    ledger.replay([Work("nyc_yellow", work)])
    ledger.record_marker(marker(of_work(accepted(), work)))
    assert told(ledger).state == FileState.DONE


def test_file_put_again_or_deleted_since_the_plan_is_not_replayed(ledger: Ledger) -> None:
    drop(ledger, put(etag="a1", sequencer="10"), put(etag="b2", sequencer="11"))
    drop(ledger, put(key="nyc_yellow/gone.parquet", sequencer="10"), removal(key="nyc_yellow/gone.parquet"))
    stale = [replayed(put(etag="a1")), replayed(put(key="nyc_yellow/gone.parquet"))]
    assert ledger.replay([Work("nyc_yellow", item) for item in stale]) == []
    assert told(ledger).state == FileState.RECEIVED


def test_content_put_back_is_not_done_before_its_own_run(ledger: Ledger) -> None:
    drop(ledger, put(etag="a1", sequencer="10"))
    ledger.claim(batch_of(put(etag="a1", sequencer="10")))
    drop(ledger, put(etag="b2", sequencer="11"), put(etag="a1", sequencer="12"))
    first = accepted().model_copy(update={"cause": "10"})
    ledger.record_marker(marker(first, layer=Layer.GOLD))
    assert (told(ledger).etag, told(ledger).state) == ("a1", FileState.RECEIVED)


def retract(ledger: Ledger) -> WorkItem:
    contract = CONTRACT.model_copy(update={"on_delete": "retract"})
    event = removal(sequencer="20")
    (decision,) = ledger.apply(
        [(event.bucket, event.key, event.etag)],
        lambda known: plan([arrival(event)], {"nyc_yellow": contract}, known, NOON),
    )
    assert isinstance(decision, Work)
    return decision.item


def test_retracted_file_is_ignored_with_its_reason_once_gold_has_taken_its_rows_back(ledger: Ledger) -> None:
    drop(ledger, put())
    ledger.record_marker(marker(accepted().model_copy(update={"cause": "10"}), layer=Layer.GOLD))
    work = retract(ledger)
    assert told(ledger).state == FileState.RECEIVED
    gone = of_work(accepted(rows=0, rejected=0), work, deleted=True)
    ledger.record_marker(marker(gone, batch_id="b7", snapshot=7))
    assert told(ledger).state == FileState.RUNNING
    ledger.record_marker(marker(gone, layer=Layer.GOLD, batch_id="b8", snapshot=8))
    assert (told(ledger).state, told(ledger).reason) == (FileState.IGNORED, Reason.RETRACTED)
    drop(ledger, put(sequencer="21"))
    assert told(ledger).state == FileState.RECEIVED


def test_files_that_a_snapshot_wrote_are_told_even_after_a_later_commit_replaced_them(ledger: Ledger) -> None:
    ledger.record_marker(marker(accepted(), accepted(key="nyc_yellow/b.parquet"), snapshot=5))
    ledger.record_marker(marker(accepted(rows=3, rejected=0), batch_id="b2", snapshot=6))
    assert [(s.key, s.rows_accepted) for s in ledger.commit_sources(5)] == [
        (KEY, 8) if key == KEY else (key, 8) for key in sorted([KEY, "nyc_yellow/b.parquet"])
    ]
    assert [(s.key, s.rows_accepted) for s in ledger.commit_sources(6)] == [(KEY, 3)]
    assert ledger.commit_sources(99) == []


B = "nyc_yellow/b.parquet"


def commit(ledger: Ledger, number: int, *sources: SourceResult, layer: Layer = Layer.SILVER, **fields: object) -> None:
    """The `number`th commit to a layer's table; the snapshot's id is a hundred times that."""
    made = marker(*sources, layer=layer, batch_id=f"{layer}{number}", snapshot=number * 100)
    ledger.record_marker(made.model_copy(update={"sequence_number": number, **fields}))


def files_in(ledger: Ledger, snapshot_id: int) -> dict[str, tuple[str, int]]:
    """Key -> etag and rows of what the ledger tells of a snapshot."""
    found = ledger.files_in(snapshot_id)
    assert found is not None
    assert [item.key for item in found] == sorted(item.key for item in found)
    return {item.key: (item.etag, item.rows_accepted) for item in found}


def test_snapshot_holds_the_newest_content_of_each_file_up_to_it(ledger: Ledger) -> None:
    commit(ledger, 1, accepted(), accepted(key=B))
    commit(ledger, 2, accepted(etag="b2", rows=5, rejected=0))
    commit(ledger, 3, accepted(key="nyc_yellow/c.parquet"))
    assert files_in(ledger, 100) == {KEY: ("a1", 8), B: ("a1", 8)}
    assert files_in(ledger, 200) == {KEY: ("b2", 5), B: ("a1", 8)}
    assert files_in(ledger, 300) == {KEY: ("b2", 5), B: ("a1", 8), "nyc_yellow/c.parquet": ("a1", 8)}
    assert {item.key: item.snapshot_id for item in ledger.files_in(200) or ()} == {KEY: 200, B: 100}


def test_snapshot_holds_no_file_that_was_taken_back_or_rejected_whole_until_it_is_put_back(ledger: Ledger) -> None:
    commit(ledger, 1, accepted(), accepted(key=B))
    taken_back = accepted(rows=0, rejected=0).model_copy(update={"deleted": True})
    commit(ledger, 2, taken_back, accepted(key=B, etag="b2", rows=4, rejected=4))
    commit(ledger, 3, accepted())
    assert files_in(ledger, 200) == {}
    assert files_in(ledger, 300) == {KEY: ("a1", 8)}


def test_refused_content_leaves_the_snapshot_the_rows_of_the_one_before(ledger: Ledger) -> None:
    commit(ledger, 1, accepted())
    refused = accepted(etag="b2", rows=0, rejected=0).model_copy(update={"refused": Reason.NOT_PARQUET})
    commit(ledger, 2, refused, accepted(key=B))
    assert files_in(ledger, 200) == {KEY: ("a1", 8), B: ("a1", 8)}


def test_snapshot_of_one_table_holds_nothing_of_another(ledger: Ledger) -> None:
    commit(ledger, 1, accepted())
    commit(ledger, 2, accepted(rows=8, rejected=0), layer=Layer.GOLD)
    assert [item.table_name for item in ledger.files_in(100) or ()] == ["silver.nyc_yellow"]
    assert [item.table_name for item in ledger.files_in(200) or ()] == ["gold.nyc_yellow_features"]


def test_order_of_commits_is_that_of_the_table_whatever_clocks_and_markers_say(ledger: Ledger) -> None:
    # The second marker came first; the third commit's clock was behind; the fourth shares its time.
    commit(ledger, 2, accepted(etag="b2", rows=5, rejected=0))
    commit(ledger, 1, accepted())
    commit(ledger, 3, accepted(etag="c3", rows=6, rejected=0), committed_at=NOON)
    commit(ledger, 4, accepted(etag="d4", rows=7, rejected=0), committed_at=NOON)
    assert [files_in(ledger, number * 100)[KEY][0] for number in (1, 2, 3, 4)] == ["a1", "b2", "c3", "d4"]


def test_commits_of_before_the_ledger_kept_their_numbers_come_first_by_their_time(ledger: Ledger) -> None:
    commit(ledger, 5, accepted(etag="b2"), sequence_number=0, committed_at=NOON + timedelta(hours=1))
    commit(ledger, 4, accepted(etag="a1"), sequence_number=0, committed_at=NOON)
    commit(ledger, 6, accepted(key=B), committed_at=NOON)
    assert [files_in(ledger, snapshot)[KEY][0] for snapshot in (400, 500, 600)] == ["a1", "b2", "b2"]


CHECKED = {
    "reasons": {"a": 2, "b": 1},
    "warnings": {"w": 3},
    "rescued": ("new", "ünder scøre \\x00"),
    "left_out": ("twins",),
}


def test_reasons_warnings_and_columns_kept_aside_are_told_of_a_file_and_of_its_commit(ledger: Ledger) -> None:
    ledger.record_marker(marker(accepted().model_copy(update=CHECKED), accepted(key="nyc_yellow/b.parquet")))
    assert told(ledger).layers[0].model_dump().items() >= CHECKED.items()
    plain = told(ledger, "nyc_yellow/b.parquet").layers[0]
    assert (plain.reasons, plain.warnings, plain.rescued) == ({}, {}, ())
    assert ledger.commit_sources(5)[0].model_dump().items() >= CHECKED.items()


def test_newer_result_takes_the_reasons_with_it_and_the_commit_before_keeps_its_own(ledger: Ledger) -> None:
    ledger.record_marker(marker(accepted().model_copy(update=CHECKED)))
    ledger.record_marker(marker(accepted(etag="a1", rejected=0), batch_id="b2", snapshot=6))
    assert (told(ledger).layers[0].reasons, told(ledger).layers[0].rescued) == ({}, ())
    assert ledger.commit_sources(5)[0].reasons == CHECKED["reasons"]


def test_result_of_before_the_ledger_kept_reasons_tells_none(ledger: Ledger, ledger_url: str) -> None:
    with psycopg.connect(ledger_url) as connection:
        connection.execute(
            "INSERT INTO ledger.results (bucket, key, etag, layer, table_name, batch_id, rows_in, rows_accepted, "
            "rows_rejected, at) VALUES ('bronze', %s, 'a1', 'silver', 'silver.nyc_yellow', 'b0', 3, 2, 1, now())",
            (KEY,),
        )
    drop(ledger, put())
    assert told(ledger).layers[0].reasons == {}


def test_unknown_snapshot_is_told_from_one_that_holds_no_file(ledger: Ledger) -> None:
    commit(ledger, 1, accepted(rows=3, rejected=3))
    assert ledger.files_in(100) == []
    assert ledger.files_in(99) is None


def test_dead_letter_is_open_until_it_is_settled_and_stays_as_it_was_settled_first(ledger: Ledger) -> None:
    assert ledger.settled_letters(0, 100) == {}
    ledger.settle_letters([3, 5], LetterState.REDRIVEN)
    ledger.settle_letters([5, 7], LetterState.DISCARDED)
    states = {letter_id: settled.state for letter_id, settled in ledger.settled_letters(0, 100).items()}
    assert states == {3: LetterState.REDRIVEN, 5: LetterState.REDRIVEN, 7: LetterState.DISCARDED}
    assert set(ledger.settled_letters(4, 7)) == {5}


def test_first_open_letter_moves_over_what_is_settled_in_any_order(ledger: Ledger) -> None:
    assert ledger.first_open_letter() == 0
    moved = []
    for ids in ([1, 2], [0], [4], [3, 0], []):
        ledger.settle_letters(ids, LetterState.DISCARDED)
        moved.append(ledger.first_open_letter())
    assert moved == [0, 3, 3, 5, 5]


def test_first_open_letter_that_two_at_once_left_behind_is_moved_on_by_the_next(
    ledger: Ledger, ledger_url: str
) -> None:
    with psycopg.connect(ledger_url) as other:
        other.execute("INSERT INTO ledger.dead_letters (letter_id, state) VALUES (1, 'discarded')")
        ledger.settle_letters([0], LetterState.REDRIVEN)
    assert ledger.first_open_letter() == 1
    ledger.settle_letters([9], LetterState.REDRIVEN)
    assert ledger.first_open_letter() == 2


def test_dead_letter_cannot_be_opened_by_settling_it(ledger: Ledger) -> None:
    with pytest.raises(BadWork):
        ledger.settle_letters([1], LetterState.OPEN)


def test_settling_costs_the_same_after_many(ledger: Ledger, ledger_url: str) -> None:
    ledger.settle_letters(range(50_000), LetterState.DISCARDED)
    with psycopg.connect(ledger_url) as connection:
        connection.execute("ANALYZE ledger.dead_letters")
        connection.execute("INSERT INTO ledger.dead_letters VALUES (50000, 'discarded')")
        plan = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {_MOVE_FIRST_OPEN}").fetchone()
    assert plan is not None
    assert _most_rows(plan[0][0]["Plan"]) < 10
    assert ledger.first_open_letter() == 50_001


def _most_rows(node: dict[str, Any]) -> float:
    """The most rows that any step of a plan went through."""
    return max([node["Actual Rows"] * node["Actual Loops"], *map(_most_rows, node.get("Plans", []))])


@pytest.mark.parametrize("seen_again", [False, True], ids=["once", "dropped-again-since"])
def test_file_redriven_after_its_contract_came_starts_and_can_be_claimed(ledger: Ledger, seen_again: bool) -> None:
    drop_with(ledger, {}, arrival(put()))
    if seen_again:
        drop_with(ledger, {}, arrival(put(sequencer="11")))
    assert (told(ledger).state, told(ledger).reason) == (FileState.QUARANTINED, Reason.UNKNOWN_DATASET)
    again = replace(arrival(put()), redriven=True)
    (still_lost,) = drop_with(ledger, {}, again)
    assert isinstance(still_lost, Repeat)
    assert isinstance(still_lost.again, End)
    assert told(ledger).state == FileState.QUARANTINED
    (work,) = drop_with(ledger, CONTRACTS, again)
    assert isinstance(work, Work)
    assert told(ledger).state == FileState.RECEIVED
    # The ledger's transaction was repeated after Kafka had failed.
    (repeated,) = drop_with(ledger, CONTRACTS, again)
    assert repeated == Repeat(dropped=False, again=work)
    batch = make_batch(Layer.SILVER, "nyc_yellow", ledger.unclaimed(Layer.SILVER, "nyc_yellow", [work.item]))
    assert ledger.claim(batch)
    assert told(ledger).state == FileState.RUNNING
    assert drop_with(ledger, CONTRACTS, again) == [Repeat(dropped=False)]


def drop_with(ledger: Ledger, contracts: Mapping[str, DatasetContract], *arrivals: Arrival) -> list[Decision]:
    names = [(a.event.bucket, a.event.key, a.event.etag) for a in arrivals]
    return ledger.apply(names, lambda known: plan(arrivals, contracts, known, NOON))


LATER = datetime(2999, 1, 1, tzinfo=UTC)


def test_file_that_waits_for_silver_is_found_until_a_batch_with_a_run_holds_it(ledger: Ledger) -> None:
    drop(ledger, put())
    (work,) = ledger.not_taken(Layer.SILVER, LATER, 10)
    assert (work.item.key, work.item.version, work.item.deleted) == (KEY, "10", False)
    assert ledger.not_taken(Layer.SILVER, NOON, 10) == []
    batch = make_batch(Layer.SILVER, "nyc_yellow", [work.item])
    ledger.claim(batch)
    assert ledger.waiting() == {("nyc_yellow", Layer.SILVER): 1}
    assert len(ledger.not_taken(Layer.SILVER, LATER, 10)) == 1
    ledger.handed_over(batch.batch_id)
    assert ledger.not_taken(Layer.SILVER, LATER, 10) == []
    assert ledger.without_result(LATER, 10) == [batch.batch_id]
    ledger.record_marker(marker(of_work(accepted(), work.item), batch_id=batch.batch_id))
    assert ledger.without_result(LATER, 10) == []
    (gold,) = ledger.not_taken(Layer.GOLD, LATER, 10)
    assert (gold.item.version, gold.item.rows, gold.item.cause) == ("5", 8, "10")
    assert ledger.waiting() == {("nyc_yellow", Layer.GOLD): 1}


def test_file_that_waits_for_gold_is_found_though_older_work_on_the_same_content_ended_later(ledger: Ledger) -> None:
    drop(ledger, put())
    (older,) = ledger.not_taken(Layer.SILVER, LATER, 10)
    newer = Work("nyc_yellow", replayed(put()))
    ledger.replay([newer])
    for number, work in enumerate((newer, older)):
        batch = make_batch(Layer.SILVER, "nyc_yellow", [work.item])
        ledger.claim(batch)
        ledger.handed_over(batch.batch_id)
        at = NOON + timedelta(hours=1 + number)
        own = marker(of_work(accepted(), work.item), batch_id=batch.batch_id, snapshot=5 + number)
        ledger.record_marker(own.model_copy(update={"committed_at": at}))
    (gold,) = ledger.not_taken(Layer.GOLD, LATER, 10)
    assert (gold.item.version, gold.item.rows, gold.item.cause) == ("5", 8, "replay-1")


def test_batches_without_a_marker_are_those_that_were_handed_over_and_never_recorded(ledger: Ledger) -> None:
    drop(ledger, put())
    (work,) = ledger.not_taken(Layer.SILVER, LATER, 10)
    batch = make_batch(Layer.SILVER, "nyc_yellow", [work.item])
    ledger.claim(batch)
    asked = [batch.batch_id, "of-a-run-by-hand"]
    assert ledger.without_marker(asked, LATER) == []
    ledger.handed_over(batch.batch_id)
    assert ledger.without_marker(asked, LATER) == [batch.batch_id]
    assert ledger.without_marker(asked, NOON) == []
    ledger.record_marker(marker(of_work(accepted(), work.item), batch_id=batch.batch_id))
    assert ledger.without_marker(asked, LATER) == []


def test_marker_of_an_attempt_that_committed_nothing_does_not_stand_for_the_commit_of_another(ledger: Ledger) -> None:
    drop(ledger, put())
    (work,) = ledger.not_taken(Layer.SILVER, LATER, 10)
    batch = make_batch(Layer.SILVER, "nyc_yellow", [work.item])
    ledger.claim(batch)
    ledger.handed_over(batch.batch_id)
    gone = of_work(accepted(rows=0, rejected=0), work.item, refused=Reason.OBJECT_GONE)
    ledger.record_marker(marker(gone, batch_id=batch.batch_id, snapshot=None))
    assert ledger.without_marker([batch.batch_id], LATER) == [batch.batch_id]
    ledger.record_marker(marker(of_work(accepted(), work.item), batch_id=batch.batch_id))
    assert ledger.without_marker([batch.batch_id], LATER) == []


def test_retraction_that_nobody_took_is_found_as_one(ledger: Ledger) -> None:
    drop(ledger, put())
    ledger.record_marker(marker(accepted(), layer=Layer.GOLD))
    work = retract(ledger)
    (found,) = ledger.not_taken(Layer.SILVER, LATER, 10)
    assert found.item.model_copy(update={"size": work.size}) == work


def test_newest_versions_of_a_range_of_keys_are_told_in_order(ledger: Ledger) -> None:
    keys = [f"nyc_yellow/{name}.parquet" for name in ("a", "B", "é", "z")]
    drop(ledger, *(put(key=key) for key in keys))
    drop(ledger, put(key=keys[0], etag="b2", sequencer="11"))
    found = ledger.newest_between("bronze", "", None)
    assert [row.key for row in found] == sorted(keys)
    assert {row.key: row.etag for row in found}[keys[0]] == "b2"
    assert [row.key for row in ledger.newest_between("bronze", keys[1], keys[0])] == [keys[0]]


def test_listing_goes_on_where_it_ended(ledger: Ledger) -> None:
    assert ledger.reconciled_to("bronze") == ""
    for key in ("nyc_yellow/m", "nyc_yellow/z", ""):
        ledger.set_reconciled_to("bronze", key)
        assert ledger.reconciled_to("bronze") == key


def test_decision_about_a_row_that_another_router_changed_meanwhile_is_made_anew(
    ledger: Ledger, ledger_url: str
) -> None:
    event = put()
    seen: list[bool] = []

    def slowly(known: KnownFiles) -> tuple[list[Decision], Changes]:
        seen.append(known.newest(event.bucket, event.key) is not None)
        if len(seen) == 1:
            with Ledger(ledger_url) as other:
                drop(other, event)
                other.claim(batch_of(event))
                other.record_marker(marker(accepted()))
        return planned(known, event)

    ledger.apply([(event.bucket, event.key, event.etag)], slowly)
    assert seen == [False, True]
    assert told(ledger).state == FileState.RUNNING


def test_value_that_is_too_long_for_an_index_is_refused_and_not_tried_again(ledger: Ledger) -> None:
    place = Place("bronze", "trips/")
    names = tuple(chr(0x4E00 + number % 5000) for number in range(3000))
    manifest = Manifest.model_construct(files=(ManifestFile.model_construct(name="".join(names), rows=None),))
    drop(ledger, put())
    with pytest.raises(BadWork, match="cannot hold a value"):
        ledger.record_manifest(place, ("bronze", KEY, put().etag), manifest)
