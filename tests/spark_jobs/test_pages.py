"""Checksums of pages, on bytes in memory: a flipped byte is found wherever it is, and files without are left alone."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs import pages
from spark_jobs.footers import DamagedParquet, read_footer
from spark_jobs.pages import check_pages
from tests.spark_jobs.bad_files import as_parquet, flipped
from tests.spark_jobs.trips import table, trip

ROWS = pa.concat_tables([table(*(trip(fare_amount=20.0 + number) for number in range(200)))] * 5)
KINDS = {
    "version-1": {},
    "version-2": {"data_page_version": "2.0", "compression": "zstd"},
    "many-pages-and-groups": {"data_page_size": 256, "row_group_size": 300, "use_dictionary": False},
}
CHECKED = {name: as_parquet(ROWS, write_page_checksum=True, **options) for name, options in KINDS.items()}


class Bytes:
    """Ranged reads of one object, counted."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.longest = 0
        self.reads = 0

    def get_range(self, bucket: str, key: str, offset: int, length: int) -> bytes:
        self.longest = max(self.longest, length)
        self.reads += 1
        return self.data[offset : offset + length]


def check(whole: bytes, changed: bytes | None = None) -> Bytes:
    """Check the pages of `changed` by the footer of `whole`."""
    chunks = read_footer(Bytes(whole), "bronze", "key", len(whole)).chunks
    store = Bytes(whole if changed is None else changed)
    check_pages(store, "bronze", "key", chunks)
    return store


@pytest.mark.parametrize("kind", KINDS)
def test_undamaged_pages_match_their_checksums(kind: str) -> None:
    check(CHECKED[kind])


@pytest.mark.parametrize("window", [300, 64 * 1024])
def test_pages_longer_than_a_window_are_read_in_parts(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(pages, "_WINDOW", window)
    monkeypatch.setattr(pages, "_LONGEST_HEADER", 300)
    whole = CHECKED["version-1"]
    assert check(whole).longest <= window
    with pytest.raises(DamagedParquet, match="checksum"):
        check(whole, flipped(whole, whole.index(b"PAR1") + 2_000))


def bodies(whole: bytes) -> list[range]:
    """Where the bytes of each page are, behind its header."""
    found = []
    for start, length in read_footer(Bytes(whole), "bronze", "key", len(whole)).chunks:
        reader = pages._Reader(Bytes(whole), "bronze", "key", start, start + length)
        while not reader.done:
            size, _ = reader.header()
            found.append(range(reader.at, reader.at + size))
            reader.skip(size)
    return [body for body in found if body]


BODIES = {kind: bodies(whole) for kind, whole in CHECKED.items()}


@given(st.data(), st.sampled_from(sorted(KINDS)))
def test_any_flipped_bit_of_a_page_is_found(data: Any, kind: str) -> None:
    at = data.draw(st.sampled_from(data.draw(st.sampled_from(BODIES[kind]))))
    with pytest.raises(DamagedParquet, match="checksum"):
        check(CHECKED[kind], flipped(CHECKED[kind], at, 1 << data.draw(st.integers(0, 7))))


def test_file_without_checksums_costs_one_read_of_its_first_header() -> None:
    assert check(as_parquet(ROWS, row_group_size=100)).reads == 1


def test_header_that_tells_of_more_bytes_than_the_column_has_is_damaged() -> None:
    whole = CHECKED["version-1"]
    with pytest.raises(DamagedParquet, match="byte 4"):
        check(whole, whole[:4] + b"\xff" * 60 + whole[64:])
