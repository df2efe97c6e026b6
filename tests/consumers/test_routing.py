"""What an event means."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.routing import (
    MAX_ITEMS,
    Arrival,
    Decision,
    End,
    FetchManifest,
    FetchMarker,
    Nothing,
    Removed,
    Repeat,
    UnknownBucket,
    Work,
    classify,
    gold_work,
    plan,
    route,
    silver_work,
)
from consumers.rows import FileRow, KnownFiles
from contracts.dataset import Completeness, DatasetContract
from contracts.events import EXPIRED, BucketEvent
from contracts.states import FileState, Hop, Layer, Reason
from contracts.work import WorkItem
from tests.consumers.samples import CONTRACT, CONTRACTS, KEY, NOON, accepted, marker, planned, put, removal

RECEIVED, RUNNING, DONE = FileState.RECEIVED, FileState.RUNNING, FileState.DONE
QUARANTINED, IGNORED = FileState.QUARANTINED, FileState.IGNORED
WORK = "work"
DROPPED = Repeat(dropped=True)
SILENT = Repeat(dropped=False)


def row(
    etag: str = "a1",
    sequencer: str = "10",
    state: FileState = DONE,
    reason: Reason | None = None,
    key: str = KEY,
) -> FileRow:
    return FileRow("bronze", key, etag, sequencer, state, reason)


def ends(reason: Reason) -> object:
    class Ends:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, End) and other.reason == reason

        __hash__ = None  # type: ignore[assignment]

        def __repr__(self) -> str:
            return f"End({reason})"

    return Ends()


@pytest.mark.parametrize(
    ("key", "reason", "dead"),
    [
        pytest.param("nyc_yellow/", Reason.DIRECTORY_MARKER, False, id="folder-marker"),
        pytest.param("nyc_yellow/2025/", Reason.DIRECTORY_MARKER, False, id="nested-folder-marker"),
        pytest.param("nyc_yellow/_SUCCESS", Reason.HIDDEN_NAME, False, id="success-file"),
        pytest.param("nyc_yellow/.part.parquet.crc", Reason.HIDDEN_NAME, False, id="checksum-file"),
        pytest.param("nyc_yellow/_temporary/0/part.parquet", Reason.HIDDEN_NAME, False, id="spark-work-folder"),
        pytest.param("oders/may.parquet", Reason.UNKNOWN_DATASET, True, id="misspelt-dataset"),
        pytest.param("may.parquet", Reason.UNKNOWN_DATASET, True, id="no-folder"),
        pytest.param("nyc_yellow", Reason.UNKNOWN_DATASET, True, id="object-named-like-the-dataset"),
        pytest.param("NYC_Yellow/may.parquet", Reason.UNKNOWN_DATASET, True, id="other-case"),
        pytest.param("nyc_yellow/may.txt", Reason.PATH_NOT_IN_CONTRACT, True, id="not-parquet-by-name"),
        pytest.param("nyc_yellow/may.csv", Reason.CSV_NEEDS_LANDING, True, id="csv"),
        pytest.param("nyc_yellow/2019/may.CSV.gz", Reason.CSV_NEEDS_LANDING, True, id="csv-compressed"),
        pytest.param("nyc_yellow/may.csv.zip", Reason.PATH_NOT_IN_CONTRACT, True, id="csv-in-an-archive"),
        pytest.param("oders/may.csv", Reason.UNKNOWN_DATASET, True, id="csv-of-no-dataset"),
        pytest.param("nyc_yellow/_may.csv", Reason.HIDDEN_NAME, False, id="hidden-csv"),
        pytest.param("nyc_yellow/may.parquet.tmp", Reason.PATH_NOT_IN_CONTRACT, True, id="suffix-after-parquet"),
    ],
)
def test_key_that_no_contract_takes_ends_with_its_reason(key: str, reason: Reason, dead: bool) -> None:
    decision = route(put(key=key), CONTRACTS, KnownFiles())
    assert isinstance(decision, End)
    assert (decision.reason, decision.dead_letter) == (reason, dead)


@pytest.mark.parametrize(
    ("key", "command"),
    [
        ("nyc_yellow/may.csv", "sluice drop may.csv --dataset nyc_yellow"),
        (
            "nyc_yellow/2019/may 1.csv.gz",
            "sluice drop 'may 1.csv.gz' --dataset nyc_yellow --key 'nyc_yellow/2019/may 1.parquet'",
        ),
    ],
)
def test_csv_put_by_hand_is_quarantined_with_the_command_that_lands_it(key: str, command: str) -> None:
    _, changes = plan([Arrival(put(key=key), NOON)], CONTRACTS, KnownFiles(), NOON)
    (stored,) = changes.files.values()
    assert (stored.state, stored.reason) == (QUARANTINED, Reason.CSV_NEEDS_LANDING)
    assert stored.detail == f"Run `{command}`."
    assert "delete this object" in Reason.CSV_NEEDS_LANDING.advice


def test_csv_whose_parquet_name_the_contract_does_not_take_either_is_to_be_renamed() -> None:
    # Made anew: a copy would keep the compiled pattern of the original.
    strict = {"nyc_yellow": DatasetContract.model_validate(CONTRACT.model_dump() | {"path": r"trips_\d+\.parquet"})}
    assert classify(put(key="nyc_yellow/may.csv"), strict) == ends(Reason.PATH_NOT_IN_CONTRACT)
    assert classify(put(key="nyc_yellow/trips_5.csv"), strict) == ends(Reason.CSV_NEEDS_LANDING)


def test_csv_seen_twice_makes_its_dead_letter_again_and_changes_nothing() -> None:
    key = "nyc_yellow/may.csv"
    lost = row(state=QUARANTINED, reason=Reason.CSV_NEEDS_LANDING, key=key)
    decision = route(put(key=key), CONTRACTS, KnownFiles([lost]))
    assert isinstance(decision, Repeat)
    assert decision.again == ends(Reason.CSV_NEEDS_LANDING)
    assert route(put(key=key, sequencer="11"), CONTRACTS, KnownFiles([lost])) == DROPPED


@pytest.mark.parametrize(
    "key", ["nyc_yellow/a.parquet", "nyc_yellow/2025/ä +%41'\"; drop.parquet", "nyc_yellow/x/y/z/a.parquet"]
)
def test_key_that_the_contract_takes_becomes_work_of_its_dataset(key: str) -> None:
    decision = route(put(key=key, sequencer="1F"), CONTRACTS, KnownFiles())
    assert decision == Work(
        "nyc_yellow", WorkItem(bucket="bronze", key=key, etag="a1", size=7, version="1F", rows=None, cause="1F")
    )


@pytest.mark.parametrize(
    ("known", "event", "expected"),
    [
        pytest.param([], put(), WORK, id="new-object"),
        pytest.param([row(state=RUNNING)], put(), SILENT, id="second-delivery-while-running"),
        pytest.param([row(sequencer="11")], put(), SILENT, id="older-delivery-of-the-same-content"),
        pytest.param([row(state=DONE)], put(sequencer="11"), DROPPED, id="same-again-when-done"),
        pytest.param([row(state=RUNNING)], put(sequencer="11"), DROPPED, id="same-again-while-running"),
        pytest.param([row(state=RECEIVED)], put(sequencer="11"), DROPPED, id="same-again-while-waiting"),
        pytest.param(
            [row(state=QUARANTINED, reason=Reason.RUN_FAILED)], put(sequencer="11"), WORK, id="same-again-after-failure"
        ),
        pytest.param(
            [row(state=IGNORED, reason=Reason.OBJECT_GONE)],
            put(sequencer="11"),
            WORK,
            id="same-again-after-it-was-gone",
        ),
        pytest.param([row()], put(etag="b2", sequencer="11"), WORK, id="correction"),
        pytest.param([row(sequencer="FF")], put(etag="b2", sequencer="100"), WORK, id="correction-longer-sequencer"),
        pytest.param(
            [row(sequencer="12")],
            put(etag="b2", sequencer="11"),
            ends(Reason.SUPERSEDED),
            id="late-event-of-old-version",
        ),
        pytest.param([row(), row("b2", "11")], put(sequencer="12"), WORK, id="old-content-put-back"),
        pytest.param([row(), row("b2", "12")], put(sequencer="11"), DROPPED, id="late-event-of-a-known-older-version"),
        pytest.param([row()], removal(sequencer="20"), Removed("a1"), id="removal"),
    ],
)
def test_what_the_ledger_knows_decides(known: list[FileRow], event: BucketEvent, expected: object) -> None:
    decision = route(event, CONTRACTS, KnownFiles(known))
    assert decision == (classify(event, CONTRACTS) if expected == WORK else expected)


def test_second_delivery_hands_on_again_what_nobody_took() -> None:
    decision = route(put(), CONTRACTS, KnownFiles([row(state=RECEIVED)]))
    assert isinstance(decision, Repeat)
    assert isinstance(decision.again, Work)


@pytest.mark.parametrize(
    ("known", "event"),
    [
        pytest.param({"sequencer": "11", "version": "10"}, put(), id="the-same-content-came-again-meanwhile"),
        pytest.param({"sequencer": "11", "version": "10"}, put(sequencer="11"), id="and-its-event-is-read-again"),
        pytest.param({"sequencer": "20", "version": "10", "removed_at": NOON}, put(), id="deleted-meanwhile"),
        pytest.param({"version": "replay-1", "depth": Layer.SILVER}, put(), id="replayed-meanwhile"),
    ],
)
def test_second_delivery_hands_on_the_very_work_that_the_ledger_waits_for(
    known: dict[str, Any], event: BucketEvent
) -> None:
    waits = dataclasses.replace(row(state=RECEIVED), **known)
    decision = route(event, CONTRACTS, KnownFiles([waits]))
    assert isinstance(decision, Repeat)
    assert isinstance(decision.again, Work)
    item = decision.again.item
    assert (item.version, item.cause, item.depth) == (waits.version, waits.version, waits.depth)


def test_second_delivery_of_an_unroutable_key_makes_its_dead_letter_again() -> None:
    lost = row(state=QUARANTINED, reason=Reason.UNKNOWN_DATASET, key="oders/a.parquet")
    decision = route(put(key="oders/a.parquet"), CONTRACTS, KnownFiles([lost]))
    assert isinstance(decision, Repeat)
    assert isinstance(decision.again, End)


def test_second_delivery_of_a_refused_file_hands_on_nothing() -> None:
    refused = row(state=QUARANTINED, reason=Reason.NOT_PARQUET)
    assert route(put(), CONTRACTS, KnownFiles([refused])) == SILENT


IN_SETS = {
    CONTRACT.dataset: CONTRACT.model_copy(
        update={
            "completeness": Completeness(time_limit=timedelta(hours=1), on_time_limit="release"),
            "path": ".*",
            "on_delete": "retract",
        }
    )
}
MANIFEST = "nyc_yellow/2025/manifest.json"
FETCH = FetchManifest("nyc_yellow")


@pytest.mark.parametrize(
    ("known", "event", "expected"),
    [
        pytest.param([], put(MANIFEST), FETCH, id="new"),
        pytest.param([row(key=MANIFEST, state=RECEIVED)], put(MANIFEST), Repeat(False, FETCH), id="again-before-read"),
        pytest.param([row(key=MANIFEST)], put(MANIFEST), Repeat(False, FETCH), id="again-once-it-is-in-force"),
        pytest.param(
            [row(key=MANIFEST, state=QUARANTINED, reason=Reason.BAD_MANIFEST)], put(MANIFEST), SILENT, id="again-bad"
        ),
        pytest.param([row(key=MANIFEST)], put(MANIFEST, sequencer="11"), DROPPED, id="same-content-dropped-again"),
        pytest.param([row(key=MANIFEST)], put(MANIFEST, "b2", "11"), FETCH, id="corrected"),
        pytest.param([row(key=MANIFEST)], removal(MANIFEST), Removed("a1"), id="deleted-is-no-retraction"),
        pytest.param([], put("nyc_yellow/_x/manifest.json"), ends(Reason.HIDDEN_NAME), id="in-a-work-folder"),
    ],
)
def test_manifest_is_read_and_is_no_work_of_a_stage(known: list[FileRow], event: BucketEvent, expected: object) -> None:
    known = [dataclasses.replace(one, dataset="nyc_yellow") for one in known]
    assert route(event, IN_SETS, KnownFiles(known)) == expected


def test_manifest_is_a_row_of_the_ledger_that_no_stage_waits_for() -> None:
    _, changes = plan([Arrival(put(MANIFEST), NOON)], IN_SETS, KnownFiles(), NOON)
    (stored,) = changes.files.values()
    assert (stored.state, stored.dataset, stored.version) == (RECEIVED, "nyc_yellow", "")
    assert [passage.hop for passage in changes.history] == [Hop.PUT, Hop.EVENT, Hop.ROUTED]


def test_object_named_like_a_manifest_is_judged_by_the_path_where_no_set_is_asked_for() -> None:
    decision = route(put(MANIFEST), CONTRACTS, KnownFiles())
    assert decision == ends(Reason.PATH_NOT_IN_CONTRACT)


def test_commit_of_a_dataset_that_waits_for_sets_sends_only_what_does_not_wait() -> None:
    waits, gone, by_hand = (accepted(f"nyc_yellow/{name}.parquet") for name in ("waits", "gone", "by_hand"))
    sources = (
        waits.model_copy(update={"cause": "1"}),
        gone.model_copy(update={"cause": "2", "deleted": True, "rows_in": 0, "rows_accepted": 0, "rows_rejected": 0}),
        by_hand,
    )
    (message,) = gold_work(marker(*sources), NOON, in_sets=True)
    assert [item.key for item in message.items] == [gone.key, by_hand.key]


LOST = "oders/a.parquet"
UNKNOWN, GONE, HIDDEN = Reason.UNKNOWN_DATASET, Reason.OBJECT_GONE, Reason.HIDDEN_NAME


@pytest.mark.parametrize(
    ("known", "event", "expected"),
    [
        pytest.param([], put(), WORK, id="event-that-was-no-event-before"),
        pytest.param([row(state=QUARANTINED, reason=UNKNOWN)], put(), WORK, id="contract-added-since"),
        pytest.param([row("a1", "12", QUARANTINED, UNKNOWN)], put(), WORK, id="dropped-again-before-the-contract"),
        pytest.param([row("a1", "0F", QUARANTINED, UNKNOWN)], put(), WORK, id="later-than-what-the-ledger-knows"),
        pytest.param([row(state=IGNORED, reason=HIDDEN)], put(), WORK, id="name-taken-since"),
        pytest.param(
            [row(state=QUARANTINED, reason=Reason.PATH_NOT_IN_CONTRACT, key=LOST)],
            put(LOST),
            ends(UNKNOWN),
            id="ends-for-another-reason",
        ),
        pytest.param([row(state=DONE)], put(), SILENT, id="done"),
        pytest.param([row(state=RUNNING)], put(), SILENT, id="running"),
        pytest.param([row(state=DONE)], put(sequencer="11"), DROPPED, id="done-and-later"),
        # A stage has claimed this very version, so it would never claim it again: the file would wait for ever.
        pytest.param([row(state=QUARANTINED, reason=Reason.RUN_FAILED)], put(), SILENT, id="run-failed"),
        pytest.param([row(state=IGNORED, reason=GONE)], put(), SILENT, id="object-gone"),
        pytest.param(
            [row(state=QUARANTINED, reason=UNKNOWN), row("b2", "11")], put(), SILENT, id="newer-content-since"
        ),
        pytest.param([row()], removal(sequencer="20"), Removed("a1"), id="removal"),
    ],
)
def test_redriven_event_is_judged_by_todays_contracts(
    known: list[FileRow], event: BucketEvent, expected: object
) -> None:
    decision = route(event, CONTRACTS, KnownFiles(known), redriven=True)
    if expected == WORK:
        assert isinstance(decision, Work)
        newest = max([int(event.sequencer, 16), *(int(row.sequencer, 16) for row in known)])
        assert int(decision.item.version, 16) == newest
    else:
        assert decision == expected


def test_redriven_event_of_a_file_that_waits_hands_it_on_again() -> None:
    decision = route(put(), CONTRACTS, KnownFiles([row(state=RECEIVED)]), redriven=True)
    assert isinstance(decision, Repeat)
    assert isinstance(decision.again, Work)


@pytest.mark.parametrize("sequencer", ["0F", "10", "11"])
def test_redriven_event_that_ends_as_before_is_a_dead_letter_again_and_the_file_keeps_its_state(
    sequencer: str,
) -> None:
    known = KnownFiles([row(state=QUARANTINED, reason=UNKNOWN, key=LOST)])
    event = put(LOST, sequencer=sequencer)
    (decision,), changes = plan([Arrival(event, NOON, redriven=True)], CONTRACTS, known, NOON)
    assert isinstance(decision, Repeat)
    assert isinstance(decision.again, End)
    assert decision.again.dead_letter
    assert changes.files == {}
    assert [passage.hop for passage in changes.history] == [Hop.REPEATED]
    assert changes.seen_again == {("bronze", LOST, "a1"): max(sequencer, "10")}


def test_redriven_file_that_starts_was_put_only_once() -> None:
    known = KnownFiles([row(state=QUARANTINED, reason=UNKNOWN)])
    _, changes = plan([Arrival(put(), NOON, redriven=True)], CONTRACTS, known, NOON)
    assert [passage.hop for passage in changes.history] == [Hop.EVENT, Hop.ROUTED]
    assert changes.reopened == {("bronze", KEY, "a1")}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        pytest.param(put("_commits/nyc_yellow/5-b.json", bucket="silver"), FetchMarker(Layer.SILVER), id="silver"),
        pytest.param(put("_commits/t/5-b.json", bucket="gold"), FetchMarker(Layer.GOLD), id="gold"),
        pytest.param(put("nyc_yellow/data/part.parquet", bucket="silver"), None, id="part-file"),
        pytest.param(put("_commits/nyc_yellow/", bucket="silver"), None, id="folder-marker"),
        pytest.param(
            put("_commits/t/1.json", bucket="gold").model_copy(update={"name": "s3:ObjectRemoved:Delete"}),
            None,
            id="removed-marker",
        ),
        pytest.param(put(bucket="quarantine"), UnknownBucket(), id="bucket-without-a-layer"),
    ],
)
def test_only_new_markers_of_a_layer_are_fetched(event: BucketEvent, expected: Decision | None) -> None:
    decision = route(event, CONTRACTS, KnownFiles())
    assert isinstance(decision, Nothing) if expected is None else decision == expected


@pytest.mark.parametrize(
    ("known", "sequencer"),
    [
        pytest.param([], "20", id="unknown-object"),
        pytest.param([row(sequencer="21")], "20", id="older-than-the-content"),
    ],
)
def test_removal_that_concerns_no_known_content_is_nothing(known: list[FileRow], sequencer: str) -> None:
    assert isinstance(route(removal(sequencer=sequencer), CONTRACTS, KnownFiles(known)), Nothing)


def test_two_versions_in_one_poll_leave_the_later_one_as_newest() -> None:
    decisions, changes = planned(KnownFiles(), put(etag="a1", sequencer="10"), put(etag="b2", sequencer="11"))
    assert [type(decision) for decision in decisions] == [Work, Work]
    assert changes.superseding["bronze", KEY].etag == "b2"
    assert [h.hop for h in changes.history if h.etag == "b2"] == [Hop.PUT, Hop.EVENT, Hop.ROUTED]


def test_repeat_stores_no_state_that_may_have_moved_on() -> None:
    _, changes = planned(KnownFiles([row(state=RECEIVED)]), put(sequencer="11"))
    assert changes.files == {}
    assert changes.seen_again == {("bronze", KEY, "a1"): "11"}


@given(st.permutations([put(etag=e, sequencer=s) for e, s in [("a", "1"), ("b", "2"), ("c", "3"), ("b", "2")]]))
def test_any_order_of_arrival_ends_with_the_same_newest_version(events: list[BucketEvent]) -> None:
    known = KnownFiles()
    planned(known, *events)
    newest = known.newest("bronze", KEY)
    assert newest is not None
    assert (newest.etag, newest.state) == ("c", RECEIVED)


def test_silver_work_is_one_message_a_dataset_up_to_its_limit() -> None:
    works = [
        Work(dataset, WorkItem(bucket="bronze", key=f"{dataset}/{n}", etag="e", version="1"))
        for n in range(MAX_ITEMS + 1)
        for dataset in ("a", "b")
    ]
    messages = silver_work(works, NOON)
    assert [(m.dataset, len(m.items)) for m in messages] == [("a", 100), ("a", 1), ("b", 100), ("b", 1)]


def test_file_whose_rows_were_all_rejected_still_goes_to_gold() -> None:
    refused = accepted("nyc_yellow/bad.parquet").model_copy(update={"refused": Reason.NOT_PARQUET})
    (message,) = gold_work(marker(accepted(rows=3, rejected=3), refused), NOON)
    assert [(item.key, item.rows, item.version) for item in message.items] == [(KEY, 0, "5")]


def test_commit_that_refused_every_file_makes_no_gold_work() -> None:
    refused = accepted().model_copy(update={"refused": Reason.NOT_PARQUET})
    assert gold_work(marker(refused, snapshot=None), NOON) == []


RETRACTING = {"nyc_yellow": CONTRACTS["nyc_yellow"].model_copy(update={"on_delete": "retract"})}


def known_file(**fields: object) -> FileRow:
    return dataclasses.replace(row(), dataset="nyc_yellow", version="10", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [RECEIVED, RUNNING, DONE, QUARANTINED])
def test_removal_takes_the_rows_back_where_the_contract_says_so(state: FileState) -> None:
    decision = route(removal(sequencer="20"), RETRACTING, KnownFiles([known_file(state=state)]))
    assert isinstance(decision, Work)
    assert (decision.item.deleted, decision.item.etag, decision.item.version) == (True, "a1", "20")


def test_content_put_again_and_removed_in_one_poll_is_removed_as_of_the_removal() -> None:
    arrivals = [Arrival(put(sequencer="11"), NOON), Arrival(removal(sequencer="12"), NOON)]
    _, changes = plan(arrivals, RETRACTING, KnownFiles([known_file(state=RUNNING)]), NOON)
    (stored,) = changes.files.values()
    assert (stored.sequencer, stored.removed_at) == ("12", arrivals[1].event.at)
    assert not changes.seen_again


def test_content_removed_and_put_again_in_one_poll_is_there() -> None:
    arrivals = [Arrival(removal(sequencer="11"), NOON), Arrival(put(sequencer="12"), NOON)]
    _, changes = plan(arrivals, CONTRACTS, KnownFiles([known_file(state=RUNNING)]), NOON)
    (stored,) = changes.files.values()
    assert (stored.sequencer, stored.removed_at) == ("12", None)
    assert not changes.removed


def test_removal_older_than_the_content_takes_nothing_back() -> None:
    newer = known_file(sequencer="21")
    assert isinstance(route(removal(sequencer="20"), RETRACTING, KnownFiles([newer])), Nothing)


def test_removal_delivered_twice_is_handed_on_again_only_while_nobody_took_it() -> None:
    waiting = known_file(sequencer="20", state=RECEIVED)
    waiting = dataclasses.replace(waiting, version="20", removed_at=NOON)
    again = route(removal(sequencer="20"), RETRACTING, KnownFiles([waiting]))
    assert isinstance(again, Repeat)
    assert isinstance(again.again, Work)
    assert again.again.item.deleted
    taken = dataclasses.replace(waiting, state=RUNNING)
    assert route(removal(sequencer="20"), RETRACTING, KnownFiles([taken])) == SILENT
    kept = known_file(sequencer="20", removed_at=NOON)
    assert route(removal(sequencer="20"), CONTRACTS, KnownFiles([kept])) == SILENT


@pytest.mark.parametrize("state", [RECEIVED, RUNNING])
def test_same_content_put_again_after_a_removal_starts_anew_since_the_run_may_have_missed_it(state: FileState) -> None:
    gone = known_file(state=state, sequencer="20", removed_at=NOON)
    assert isinstance(route(put(sequencer="21"), CONTRACTS, KnownFiles([gone])), Work)


def test_same_content_put_again_after_a_kept_removal_changes_nothing() -> None:
    gone = known_file(state=DONE, sequencer="20", removed_at=NOON)
    assert route(put(sequencer="21"), CONTRACTS, KnownFiles([gone])) == DROPPED


def test_gold_gets_no_work_from_sources_that_were_to_reach_silver_alone() -> None:
    silver_only = accepted("nyc_yellow/a.parquet").model_copy(update={"depth": Layer.SILVER})
    gone = accepted("nyc_yellow/b.parquet", rows=0, rejected=0).model_copy(update={"deleted": True, "cause": "20"})
    (message,) = gold_work(marker(silver_only, gone), NOON)
    assert [(i.key, i.deleted, i.cause, i.rows) for i in message.items] == [("nyc_yellow/b.parquet", True, "20", 0)]


@pytest.mark.parametrize("state", [RECEIVED, RUNNING, DONE, QUARANTINED])
@pytest.mark.parametrize("contracts", [CONTRACTS, RETRACTING])
def test_object_that_expired_keeps_its_rows_whatever_the_contract_says(
    contracts: dict[str, DatasetContract], state: FileState
) -> None:
    event = removal(sequencer="20").model_copy(update={"name": EXPIRED})
    _, changes = plan([Arrival(event, NOON)], contracts, KnownFiles([known_file(state=state)]), NOON)
    (gone,) = changes.removed.values()
    assert (gone.state, gone.sequencer, gone.removed_at) == (state, "20", event.at)
    assert [(hop.hop, hop.detail) for hop in changes.history] == [(Hop.REMOVED, "it expired, and its rows stay")]
    assert not changes.files
    assert route(event, contracts, KnownFiles([gone])) == SILENT


def test_expired_content_that_is_put_again_and_deleted_is_taken_back() -> None:
    expired = known_file(sequencer="20", removed_at=NOON)
    known = KnownFiles([expired])
    (again, taken_back), _ = plan(
        [Arrival(put(sequencer="21"), NOON), Arrival(removal(sequencer="22"), NOON)], RETRACTING, known, NOON
    )
    assert again == DROPPED
    assert isinstance(taken_back, Work)
    assert taken_back.item.deleted
