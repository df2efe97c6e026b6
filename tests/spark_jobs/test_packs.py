"""Which small files are put together, and into which packs."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_jobs.lake import Partition, SourceRows
from spark_jobs.packs import (
    FILES_A_PACK,
    LEAST,
    MANY_FILES,
    MOST_ACROSS,
    PACK_BYTES,
    Pack,
    Source,
    cut,
    cut_anew,
    packs_of_batch,
    small_and_old,
    sources_of,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OLD = NOW - timedelta(days=2)
SMALL = 1000


def loose(key: str, size: int = SMALL, at: datetime | None = OLD) -> Partition:
    return Partition(f"id of {key}", 1, size, key, key, at)


def pack(first: str, last: str, size: int = PACK_BYTES) -> Partition:
    return Partition(f"pack-{first}-{last}", 1, size, first, last, OLD)


def letters(count: int) -> list[Partition]:
    return [loose(chr(ord("c") + index)) for index in range(count)]


def chosen_of(partitions: list[Partition]) -> list[Partition]:
    return small_and_old(partitions, SMALL + 1, NOW - timedelta(days=1))


def pack_of(key: str, packs: list[Pack]) -> str:
    return next((one.id for one in packs[:-1] if key <= one.last), packs[-1].id)


def test_small_files_that_came_long_enough_ago_are_chosen_in_the_order_of_their_keys() -> None:
    kept = [loose("a", SMALL + 1), loose("b", at=NOW), pack("a", "b")]
    assert chosen_of([*kept, *reversed(letters(LEAST))]) == letters(LEAST)


def test_file_whose_snapshot_has_expired_came_long_enough_ago() -> None:
    partitions = [loose(key, at=None) for key in "abcdefgh"]
    assert chosen_of(partitions) == partitions


def test_few_small_files_are_left_as_they_are() -> None:
    assert chosen_of(letters(LEAST - 1)) == []


def test_packs_that_are_half_empty_are_filled_if_they_are_next_to_the_files_or_across_them() -> None:
    few = PACK_BYTES // 4
    packs = [pack("a", "a", few), pack("b", "b", few), pack("d", "f", few), pack("x", "x", few), pack("y", "y", few)]
    assert [one.id for one in cut_anew(packs, letters(LEAST))] == ["pack-b-b", "pack-d-f", "pack-x-x"]
    full = [pack("b", "b"), pack("d", "f"), pack("x", "x")]
    assert cut_anew(full, letters(LEAST)) == []


def test_packs_across_the_same_keys_are_cut_anew_before_they_are_too_many() -> None:
    packs = [pack("a", "z") for _ in range(MOST_ACROSS)]
    assert cut_anew(packs[1:], letters(LEAST)) == []
    assert cut_anew(packs, letters(LEAST)) == packs


def test_packs_that_follow_one_another_are_left_as_they_are_however_many_they_are() -> None:
    row = [pack(f"{number:02}", f"{number:02}~") for number in range(60)]
    chosen = [loose(f"{number:02}x") for number in range(0, 60, 7)]
    assert cut_anew(row, chosen) == []
    crowd = [pack("30", "31", PACK_BYTES + number) for number in range(MOST_ACROSS - 1)]
    assert cut_anew([*row, *crowd], chosen) == [row[30], *crowd, row[31]]


def test_files_of_a_pack_have_their_share_of_its_bytes() -> None:
    held = {"pack-a-d": {"a": SourceRows(30, frozenset("1")), "d": SourceRows(10, frozenset("2"))}}
    found = sources_of([loose("b")], [pack("a", "d", 400)], held)
    assert found == [Source("a", 300), Source("b", SMALL), Source("d", 100)]


@given(st.dictionaries(st.text(max_size=5), st.integers(0, PACK_BYTES // 2), min_size=1))
def test_each_file_is_in_one_pack_and_packs_follow_one_another_and_none_is_too_large(sizes: dict[str, int]) -> None:
    sources = [Source(key, sizes[key]) for key in sorted(sizes)]
    packs = cut(sources)
    taken = [pack_of(source.key, packs) for source in sources]
    assert list(dict.fromkeys(taken)) == [one.id for one in packs]
    assert taken == sorted(taken, key=[one.id for one in packs].index)
    for one in packs:
        assert sum(s.bytes for s, name in zip(sources, taken, strict=True) if name == one.id) <= 1.5 * PACK_BYTES


@given(st.sets(st.text(max_size=3), min_size=MANY_FILES + 1, max_size=3 * FILES_A_PACK))
@settings(max_examples=20)
def test_files_of_a_batch_are_spread_evenly_over_as_few_packs_as_hold_them(keys: set[str]) -> None:
    packs = packs_of_batch("b", dict.fromkeys(keys, 1))
    assert [one.id for one in packs] == [f"pack-of-b-{place}" for place in range(ceil(len(keys) / FILES_A_PACK))]
    counts = Counter(pack_of(key, packs) for key in keys)
    assert max(counts.values()) <= FILES_A_PACK
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("rows", [0, 1_000])
def test_few_files_and_files_of_many_rows_are_by_themselves(rows: int) -> None:
    assert packs_of_batch("b", dict.fromkeys(map(str, range(MANY_FILES)), 1)) == []
    assert packs_of_batch("b", dict.fromkeys(map(str, range(MANY_FILES + 1)), rows)) == []


def test_packs_of_batches_are_chosen_as_small_files_are_and_are_none_of_upkeep_s() -> None:
    came = [Partition(f"pack-of-b-{key}", 1, SMALL * 9, key, "z", OLD) for key in "ab"]
    assert chosen_of([*came, *letters(LEAST - 2)]) == [*came, *letters(LEAST - 2)]
    assert cut_anew([*came, pack("x", "y", 1)], came) == [pack("x", "y", 1)]
