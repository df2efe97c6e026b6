"""Sets of files, from their events to gold's work, on a real ledger."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consumers import reconciler
from consumers.completeness import KnownSet, Outcome, Place
from consumers.ledger import Ledger
from consumers.reconcile import Finding
from contracts.loading import load_contracts
from contracts.manifest import MAX_BYTES, parse_manifest
from contracts.markers import CommitMarker
from contracts.states import FileState, Layer, Reason
from contracts.work import WorkItem
from tests.consumers.samples import removal
from tests.consumers.sets import FOLDER, Line, committed_at, listing, reconcile_pass, write_contract

pytestmark = pytest.mark.services

SILVER, GOLD = Layer.SILVER, Layer.GOLD
MANIFEST = "manifest.json"
B_IS_MISSING = "waiting for 1 of 2 files: b.parquet (has not arrived)"


@pytest.fixture
def contracts(tmp_path: Path) -> Path:
    return write_contract(tmp_path / "contracts")


@pytest.fixture
def line(ledger: Ledger, contracts: Path) -> Line:
    return Line(ledger, contracts)


def reconcile(line: Line, contracts: Path, now: datetime | None = None, repair: bool = True) -> list[tuple[Any, str]]:
    """What a pass over the sets finds and does."""
    known = load_contracts(contracts)
    one = reconcile_pass(line, known, now or datetime.now(UTC), repair)
    rules = {name: own.completeness for name, own in known.items() if own.completeness}
    reconciler._standing(one, rules)
    reconciler._sets(one, rules)
    return one.findings


def test_files_go_to_gold_together_once_all_that_are_listed_are_in_silver(line: Line) -> None:
    line.list_files(a=10, b=10)
    line.drop("a")
    line.run(SILVER, "a")
    assert line.in_gold() == []
    assert (line.story("a").state, line.story("a").detail) == (FileState.RUNNING, B_IS_MISSING)
    assert (line.story(MANIFEST).state, line.story(MANIFEST).detail) == (FileState.DONE, B_IS_MISSING)
    line.drop("b")
    line.run(SILVER, "b")
    assert sorted(line.in_gold()) == ["a", "b"]
    assert {name: line.hops(name) for name in "ab"} == {"a": ["held", "released"], "b": []}
    assert [line.story(name).detail for name in ("a", "b", MANIFEST)] == [None, None, None]
    line.run(GOLD, "a", "b")
    assert {line.story(name).state for name in "ab"} == {FileState.DONE}


def test_manifest_that_comes_last_completes_its_set(line: Line) -> None:
    line.drop("a", "b")
    line.run(SILVER, "a", "b")
    assert line.story("a").detail == f"waiting for {FOLDER}{MANIFEST}"
    assert line.in_gold() == []
    line.list_files(a=10, b=None)
    assert line.in_gold() == ["a", "b"]
    assert line.story("a").timeline[-1].detail == "the set is complete"


def test_file_with_other_rows_than_listed_waits_until_it_or_the_manifest_is_corrected(line: Line) -> None:
    line.list_files(a=1000)
    line.drop("a")
    line.run(SILVER, "a", rows=990)
    assert line.story("a").detail == ("waiting for 1 of 1 files: a.parquet (990 rows came, 1,000 are listed)")
    line.list_files(a=990)
    assert line.in_gold() == ["a"]


def test_correction_of_a_file_of_a_set_that_was_complete_waits_alone(line: Line) -> None:
    line.list_files(a=10, b=10)
    line.drop("a", "b")
    line.run(SILVER, "a", "b")
    line.run(GOLD, "a", "b")
    line.drop("a")
    line.run(SILVER, "a", rows=12)
    assert (line.story("a").state, line.story("b").state) == (FileState.RUNNING, FileState.DONE)
    assert len(line.in_gold()) == 2
    line.list_files(a=12, b=10)
    assert line.in_gold()[2:] == ["a"]


def test_correction_with_the_listed_rows_goes_on_at_once(line: Line) -> None:
    line.list_files(a=10)
    line.drop("a")
    line.run(SILVER, "a")
    line.run(GOLD, "a")
    line.drop("a")
    line.run(SILVER, "a")
    assert line.in_gold() == ["a", "a"]
    assert line.hops("a") == []


def test_version_that_was_replaced_while_it_waited_ends_and_does_not_reach_gold(line: Line) -> None:
    line.list_files(a=10, b=10)
    old = line.drop("a")["a"]
    line.run(SILVER, "a")
    line.drop("a", "b")
    line.run(SILVER, "a", "b")
    ended = line.story("a", old.etag)
    assert (ended.state, ended.reason) == (FileState.IGNORED, Reason.SUPERSEDED)
    assert sorted(line.in_gold()) == ["a", "b"]
    assert old.etag not in {item.etag for item in line.work()}


def test_file_that_is_not_listed_waits_for_a_manifest_that_lists_it(line: Line) -> None:
    line.list_files(a=10)
    line.drop("a", "x")
    line.run(SILVER, "a", "x")
    assert line.in_gold() == ["a"]
    assert line.story("x").detail == f"waiting, as it is not listed in {FOLDER}{MANIFEST}"
    line.run(GOLD, "a")
    line.list_files(a=10, x=10)
    assert line.in_gold() == ["a", "x"]


def test_listed_file_that_is_refused_is_named_with_its_reason(line: Line) -> None:
    line.list_files(a=10, b=10)
    line.drop("a", "b")
    line.run(SILVER, "a")
    line.run(SILVER, "b", refused=Reason.NOT_PARQUET)
    assert line.story("a").detail == "waiting for 1 of 2 files: b.parquet (is quarantined (not_parquet))"


def test_deleted_file_is_missing_and_its_retraction_does_not_wait(line: Line) -> None:
    line.list_files(a=10, b=10)
    line.drop("a")
    line.run(SILVER, "a")
    line.tell(removal(f"{FOLDER}a.parquet", "FFF"))
    line.drop("b")
    line.run(SILVER, "a", rows=0, deleted=True)
    line.run(SILVER, "b")
    assert [(item.key, item.deleted) for item in line.work()] == [(f"{FOLDER}a.parquet", True)]
    assert line.story("b").detail == "waiting for 1 of 2 files: a.parquet (was deleted)"


def test_sets_are_told_apart_by_their_folders_and_other_folders_do_not_wait_for_them(line: Line) -> None:
    line.list_files(a=10)
    nested = line.event("deeper/a.parquet")
    line.tell(nested)
    line.drop("a")
    line.run(SILVER, "deeper/a")
    line.run(SILVER, "a")
    assert line.in_gold() == ["a"]
    assert line.story("deeper/a").detail == f"waiting for {FOLDER}deeper/{MANIFEST}"


def replay(line: Line, *names: str, depth: Layer = GOLD, version: str = "replay-1") -> None:
    from consumers.routing import Work

    works = []
    for name in names:
        (row,) = line.ledger.newest_of_keys([("bronze", f"{FOLDER}{name}.parquet")])
        item = WorkItem(
            bucket="bronze", key=row.key, etag=row.etag, size=row.size, version=version, cause=version, depth=depth
        )
        works.append(Work("nyc_yellow", item))
    started = line.ledger.replay(works)
    for message in reconciler.work_messages(SILVER, started, datetime.now(UTC)):
        line.sent.append(("lake.bronze.work", message.model_dump_json().encode()))


def test_replayed_file_counts_again_once_silver_has_taken_it(line: Line) -> None:
    line.list_files(a=10, b=10)
    line.drop("a", "b")
    line.run(SILVER, "a", "b")
    line.run(GOLD, "a", "b")
    replay(line, "a", "b")
    line.run(SILVER, "a")
    assert line.story("a").detail == "waiting for 1 of 2 files: b.parquet (is not in silver yet)"
    line.run(SILVER, "b")
    assert sorted(line.in_gold()[2:]) == ["a", "b"]


def test_file_replayed_to_silver_alone_is_never_held(line: Line) -> None:
    line.list_files(a=10, b=10)
    line.drop("a")
    line.run(SILVER, "a")
    replay(line, "a", depth=SILVER)
    line.run(SILVER, "a")
    assert (line.story("a").state, line.story("a").detail) == (FileState.DONE, None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "Invalid JSON"),
        (b"[" * 100_000, "recursion limit"),
        (listing(a=-1), "files.0.rows"),
        (b"x" * (MAX_BYTES + 1), "at most 4194304"),
    ],
)
def test_bad_manifest_is_quarantined_stops_no_neighbour_and_leaves_the_one_before_in_force(
    line: Line, content: bytes, said: str
) -> None:
    line.list_files(a=10)
    bad, neighbour = line.event(MANIFEST, content), line.event("a.parquet")
    line.tell(bad, neighbour)
    story = line.story(MANIFEST)
    assert (story.state, story.reason) == (FileState.QUARANTINED, Reason.BAD_MANIFEST)
    assert said in (story.detail or "")
    line.run(SILVER, "a")
    assert line.in_gold() == ["a"]
    assert line.dead() == []
    again = line.event(MANIFEST, content, bad.etag)
    line.objects["bronze", again.key] = (listing(a=11), "fixed")
    line.tell(again)
    assert line.story(MANIFEST, bad.etag).reason is Reason.SUPERSEDED


def test_manifest_that_is_gone_or_changed_before_it_is_read_ends_with_that_reason(line: Line) -> None:
    gone = line.event(MANIFEST, listing(a=1))
    del line.objects["bronze", gone.key]
    line.tell(gone)
    assert line.story(MANIFEST).reason is Reason.OBJECT_GONE
    first, second = line.event(MANIFEST, listing(a=1)), line.event(MANIFEST, listing(a=10))
    line.tell(first)
    assert line.story(MANIFEST, first.etag).reason is Reason.SUPERSEDED
    line.tell(second)
    assert line.story(MANIFEST).state is FileState.DONE


def test_manifest_of_an_older_event_does_not_replace_a_later_one(line: Line) -> None:
    older, newer = line.event(MANIFEST, listing(a=1)), line.event(MANIFEST, listing(a=10))
    line.tell(newer)
    line.tell(older)
    line.drop("a")
    line.run(SILVER, "a")
    assert line.in_gold() == ["a"]


def test_manifest_that_was_read_before_a_later_one_but_recorded_after_it_is_not_in_force(line: Line) -> None:
    older, newer = line.list_files(a=1), line.list_files(a=10)
    for event, rows in ((newer, 10), (older, 1)):
        name = (event.bucket, event.key, event.etag)
        line.ledger.record_manifest(Place("bronze", FOLDER), name, parse_manifest(listing(a=rows)))
    line.drop("a")
    line.run(SILVER, "a")
    assert line.in_gold() == ["a"]


def test_old_manifest_put_back_is_in_force_again(line: Line) -> None:
    first = line.list_files(a=1)
    line.list_files(a=10)
    line.tell(line.event(MANIFEST, listing(a=1), first.etag))
    line.drop("a")
    line.run(SILVER, "a")
    assert line.in_gold() == []


def test_manifest_stays_in_force_when_its_object_is_deleted(line: Line) -> None:
    line.list_files(a=10, b=10)
    line.tell(removal(FOLDER + MANIFEST, "FFFF"))
    line.drop("a")
    line.run(SILVER, "a")
    assert line.story("a").detail == B_IS_MISSING


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_markers_that_two_routers_record_before_either_looks_at_the_set_complete_it(
    line: Line, contracts: Path, order: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    line.list_files(a=10, b=10)
    line.drop("a", "b")
    events = [line.run(SILVER, name, tell=False) for name in "ab"]
    routers = [line.router, line.start(contracts)]
    record = line.ledger.record_marker

    def while_the_other_records(found: CommitMarker) -> None:
        record(found)
        monkeypatch.setattr(line.ledger, "record_marker", record)
        line.tell(events[order[1]], router=routers[1])

    monkeypatch.setattr(line.ledger, "record_marker", while_the_other_records)
    line.tell(events[order[0]], router=routers[0])
    assert set(line.in_gold()) == {"a", "b"}


def test_second_look_at_a_set_begins_when_the_first_has_ended(line: Line) -> None:
    place = Place("bronze", FOLDER)
    order: list[str] = []

    def second() -> None:
        line.ledger.weigh(place, FOLDER + MANIFEST, lambda known: order.append("second") or Outcome())

    with ThreadPoolExecutor(1) as pool:

        def first(known: KnownSet) -> Outcome:
            pool.submit(second)
            waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            limit = time.monotonic() + 20
            while not line.ledger._run(lambda connection: connection.execute(waiting).fetchone()):
                assert time.monotonic() < limit, "the second look did not wait"
            order.append("first")
            return Outcome()

        line.ledger.weigh(place, FOLDER + MANIFEST, first)
    assert order == ["first", "second"]


def test_event_read_again_hands_on_again_until_a_batch_holds_it_and_history_tells_once(
    line: Line, contracts: Path
) -> None:
    line.list_files(a=10, b=10)
    line.drop("a", "b")
    line.run(SILVER, "a")
    last = line.run(SILVER, "b")
    line.tell(last, router=line.start(contracts))
    assert sorted(line.in_gold()) == ["a", "a", "b", "b"]
    assert line.hops("a") == ["held", "released"]
    line.run(GOLD, "a", "b")
    line.tell(last, router=line.start(contracts))
    assert len(line.in_gold()) == 4


def test_manifest_event_read_again_hands_on_again_what_it_completed(line: Line, contracts: Path) -> None:
    line.drop("a")
    line.run(SILVER, "a")
    manifest = line.list_files(a=10)
    line.tell(manifest, router=line.start(contracts))
    assert line.in_gold() == ["a", "a"]


def test_work_once_released_is_not_held_again_when_the_set_changes(line: Line, contracts: Path) -> None:
    line.list_files(a=10)
    line.drop("a")
    line.run(SILVER, "a")
    line.list_files(a=10, b=10)
    assert line.hops("a") == []
    assert reconcile(line, contracts, datetime.now(UTC) + timedelta(days=1)) == [
        (Finding.WORK_NOT_TAKEN, f"bronze/{FOLDER}a.parquet")
    ]


def waiting_since(line: Line, waited: timedelta) -> None:
    line.list_files(a=10, b=10)
    line.drop("a", "x")
    line.run(SILVER, "a", "x")
    committed_at(line, datetime.now(UTC) - waited)


def test_files_that_wait_within_their_time_are_left_alone_by_reconcile(line: Line, contracts: Path) -> None:
    waiting_since(line, timedelta(hours=5))
    assert reconcile(line, contracts, datetime.now(UTC) + timedelta(minutes=30)) == []
    assert line.in_gold() == []


def test_time_limit_that_releases_sends_all_that_waits_and_tells_why(line: Line, contracts: Path) -> None:
    waiting_since(line, timedelta(hours=7))
    found = [(Finding.SET_INCOMPLETE, f"bronze/{FOLDER}")]
    assert reconcile(line, contracts, repair=False) == found
    assert (line.in_gold(), line.story("a").detail) == ([], B_IS_MISSING)
    assert reconcile(line, contracts) == found
    assert line.in_gold() == ["a", "x"]
    assert line.story("a").timeline[-1].detail == f"after 6:00:00, though {B_IS_MISSING}"
    assert line.story("a").detail is None
    assert reconcile(line, contracts) == []
    line.run(GOLD, "a", "x")
    assert line.story("a").state is FileState.DONE


def test_time_limit_that_quarantines_ends_what_waits_until_it_is_replayed(line: Line, tmp_path: Path) -> None:
    waiting_since(line, timedelta(hours=7))
    strict = write_contract(tmp_path / "strict", onTimeLimit="quarantine")
    assert reconcile(line, strict) == [(Finding.SET_INCOMPLETE, f"bronze/{FOLDER}")]
    story = line.story("a")
    assert (story.state, story.reason) == (FileState.QUARANTINED, Reason.SET_INCOMPLETE)
    assert story.detail == f"After 6:00:00 still {B_IS_MISSING}."
    assert line.in_gold() == []
    line.drop("b")
    line.run(SILVER, "b")
    assert line.story("b").detail == "waiting for 1 of 2 files: a.parquet (is quarantined (set_incomplete))"
    replay(line, "a")
    line.run(SILVER, "a")
    assert sorted(line.in_gold()) == ["a", "b"]


def test_set_that_nobody_looked_at_since_it_is_complete_is_found_by_reconcile(line: Line, contracts: Path) -> None:
    line.list_files(a=10)
    line.drop("a")
    event = line.run(SILVER, "a", tell=False)
    found, _ = line.objects["silver", event.key]
    line.ledger.record_marker(CommitMarker.model_validate_json(found))
    assert line.ledger.held_sets(["nyc_yellow"], 10) == [Place("bronze", FOLDER)]
    assert reconcile(line, contracts) == [(Finding.WORK_NOT_TAKEN, f"bronze/{FOLDER}a.parquet")]
    assert line.in_gold() == ["a"]


def test_contract_that_asks_for_no_sets_any_more_lets_go_what_waits(line: Line, contracts: Path) -> None:
    waiting_since(line, timedelta(hours=1))
    works = line.ledger.not_taken(GOLD, datetime.now(UTC) + timedelta(minutes=1), 10, in_sets=())
    assert sorted(work.item.key for work in works) == [f"{FOLDER}a.parquet", f"{FOLDER}x.parquet"]


def test_key_that_no_pattern_should_see_is_held_in_its_own_folder(line: Line) -> None:
    line.objects.clear()
    event = line.event("a%_'\n.parquet")
    line.tell(event)
    line.run(SILVER, "a%_'\n")
    assert line.ledger.held_sets(["nyc_yellow"], 10) == [Place("bronze", FOLDER)]
    assert line.story("a%_'\n").detail == f"waiting for {FOLDER}{MANIFEST}"
