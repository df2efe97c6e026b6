"""The check before Spark reads, on bytes in memory: each bad file has its own reason, and none harms the others."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.dataset import DatasetContract
from contracts.errors import ObjectGone
from contracts.states import FileState, Reason
from contracts.work import WorkItem
from ingest.store import ObjectInfo
from spark_jobs.footers import MAX_FOOTER_BYTES
from spark_jobs.preflight import Accepted, Refused, check_files
from spark_jobs.quarantine import quarantine_key
from tests.spark_jobs.bad_files import (
    as_parquet,
    claiming_rows,
    encrypted,
    flipped,
    footer_at,
    inflating,
    twice,
    with_footer,
)
from tests.spark_jobs.conftest import TAXI, silver_batch
from tests.spark_jobs.trips import TYPES, table, trip

GOOD = as_parquet(table(trip(), trip(fare_amount=21.0)))
FOOTER = footer_at(GOOD)


class MemoryStore:
    """The methods of `Store` that the check uses, on bytes."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.read = 0
        self.gone: set[str] = set()
        """Keys whose objects are deleted once somebody has asked for their size."""

    def put(self, key: str, data: bytes) -> WorkItem:
        self.objects[key] = data
        return WorkItem(bucket="bronze", key=key, etag=_etag(data), size=len(data), version="1")

    def stat(self, bucket: str, key: str) -> ObjectInfo | None:
        data = self.objects.get(key)
        return None if data is None else ObjectInfo(bucket, key, _etag(data), len(data), datetime.now(UTC))

    def get_range(self, bucket: str, key: str, offset: int, length: int) -> bytes:
        if key in self.gone:
            raise ObjectGone(f"{key} is not there")
        data = self.objects[key][offset : offset + length]
        self.read += len(data)
        return data


def _etag(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()  # noqa: S324 - as the store makes it


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


def check(store: MemoryStore, contract: DatasetContract, *items: WorkItem) -> tuple[list[Accepted], list[Refused]]:
    return check_files(store, contract, silver_batch(*items))  # type: ignore[arg-type]


def _nested() -> bytes:
    fare = pa.array([{"amount": 20.0, "currency": "USD"}])
    return as_parquet(_with(table(trip()), "fare_amount", fare))


def _list() -> bytes:
    return as_parquet(_with(table(trip()), "trip_distance", pa.array([[5.0, 6.0]])))


def _with(file: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return file.set_column(file.column_names.index(name), name, column)


def _scalar_and_nested() -> bytes:
    return as_parquet(twice("fare_amount", {"amount": 20.0}))


def _wide() -> bytes:
    extra = pa.table({f"extra_{number}": [1] for number in range(181)})
    return as_parquet(pa.table({**dict(zip(TYPES, table(trip()).columns, strict=True)), **extra.to_pydict()}))


def _long_footer() -> bytes:
    return with_footer(GOOD, bytes(MAX_FOOTER_BYTES + 1))


def _nul_in_name() -> bytes:
    return as_parquet(pa.table({"a\0b": [1], "x" * 100_000: [1]}))


BAD: dict[str, tuple[Callable[[], bytes], Reason, str]] = {
    "0-bytes": (lambda: b"", Reason.EMPTY_FILE, "0 bytes"),
    "text": (lambda: b"vendor,fare\n1,20\n" * 50, Reason.NOT_PARQUET, "neither begins nor ends"),
    "4-bytes": (lambda: b"PAR1", Reason.DAMAGED_PARQUET, "claims a footer"),
    "0-rows": (lambda: as_parquet(table()), Reason.NO_ROWS, "0 rows"),
    "0-columns": (lambda: as_parquet(pa.table({})), Reason.NO_COLUMNS, "0 columns"),
    "encrypted-footer": (lambda: encrypted(plaintext_footer=False), Reason.ENCRYPTED_PARQUET, "'PARE'"),
    "encrypted-columns": (lambda: encrypted(plaintext_footer=True), Reason.ENCRYPTED_PARQUET, "columns are encrypted"),
    "10^12-rows": (lambda: claiming_rows(True), Reason.OVER_LIMIT, "maxRows: the file has 1,000,000,000,000, "),
    "10^12-rows-in-no-row-group": (
        lambda: claiming_rows(False), Reason.DAMAGED_PARQUET, "1,000,000,000,000 rows, its row groups tell of 12,345 "
    ),
    "inflates-1000-times": (inflating, Reason.OVER_LIMIT, "maxInflation: the file has "),
    "too-many-columns": (_wide, Reason.OVER_LIMIT, "maxColumns: the file has 201, the limit is 200."),
    "footer-longer-than-the-file": (
        lambda: GOOD[:-8] + b"\xff\xff\xff\x7fPAR1", Reason.DAMAGED_PARQUET, "a footer of 2,147,483,647 bytes"
    ),
    "footer-too-long": (_long_footer, Reason.OVER_LIMIT, "maxFooterBytes: the file has 8,388,609, "),
    "nested": (_nested, Reason.WRONG_TYPES, "fare_amount is nested"),
    "list": (_list, Reason.WRONG_TYPES, "trip_distance is nested"),
    "same-name": (lambda: as_parquet(twice("fare_amount", 1.0)), Reason.DUPLICATE_COLUMNS, "fare_amount"),
    "same-name-but-for-case": (lambda: as_parquet(twice("FARE_amount", 1.0)), Reason.DUPLICATE_COLUMNS, "FARE_amount"),
    "name-and-synonym": (lambda: as_parquet(twice("vendor_id", 1)), Reason.DUPLICATE_COLUMNS, "vendor_id is there as"),
    "same-name-nested": (_scalar_and_nested, Reason.DUPLICATE_COLUMNS, "fare_amount"),
    "boolean-fare": (
        lambda: as_parquet(table(trip(fare_amount=True), types={"fare_amount": pa.bool_()})),
        Reason.WRONG_TYPES, "fare_amount is boolean, decimal(10,2) was expected",
    ),
    "binary-time": (
        lambda: as_parquet(table(trip(tpep_pickup_datetime=b"x"), types={"tpep_pickup_datetime": pa.binary()})),
        Reason.WRONG_TYPES, "tpep_pickup_datetime is binary",
    ),
    "no-fare": (lambda: as_parquet(table(trip(), without=("fare_amount",))), Reason.MISSING_COLUMNS, "fare_amount"),
    "names-that-no-database-takes": (_nul_in_name, Reason.MISSING_COLUMNS, "Missing: "),
}  # fmt: skip


@pytest.mark.parametrize(("make", "reason", "said"), BAD.values(), ids=list(BAD))
def test_bad_file_has_its_reason_and_its_neighbours_are_accepted(
    memory: MemoryStore, contract: DatasetContract, make: Callable[[], bytes], reason: Reason, said: str
) -> None:
    before, bad, after = (memory.put(f"nyc_yellow/{n}.parquet", body) for n, body in zip("abc", (GOOD, make(), GOOD)))  # noqa: B905
    accepted, refused = check(memory, contract, before, bad, after)
    assert [(file.item, file.rows) for file in accepted] == [(before, 2), (after, 2)]
    assert [(file.item, file.reason) for file in refused] == [(bad, reason)]
    assert said in refused[0].detail
    assert reason.advice
    assert reason.state is FileState.QUARANTINED


def test_every_bad_file_in_one_batch_leaves_the_good_ones_alone(memory: MemoryStore, contract: DatasetContract) -> None:
    good = [memory.put(f"nyc_yellow/good{number}.parquet", GOOD) for number in range(3)]
    bad = {memory.put(f"nyc_yellow/{name}.parquet", make()): reason for name, (make, reason, _) in BAD.items()}
    accepted, refused = check(memory, contract, *good, *bad)
    assert {file.item for file in accepted} == set(good)
    assert {file.item: file.reason for file in refused} == bad


def test_file_cut_at_each_tenth_of_its_length_is_damaged_or_empty(
    memory: MemoryStore, contract: DatasetContract
) -> None:
    cuts = [memory.put(f"nyc_yellow/cut{tenth}.parquet", GOOD[: len(GOOD) * tenth // 10]) for tenth in range(10)]
    whole = memory.put("nyc_yellow/cut10.parquet", GOOD)
    accepted, refused = check(memory, contract, *cuts, whole)
    assert [file.item for file in accepted] == [whole]
    reasons = {file.item: file.reason for file in refused}
    assert [reasons[item] for item in cuts] == [Reason.EMPTY_FILE] + [Reason.DAMAGED_PARQUET] * 9


FLIPS = {
    "magic at the end": (len(GOOD) - 1, 0x01, Reason.DAMAGED_PARQUET),
    "length of the footer, short": (len(GOOD) - 8, 0x80, Reason.DAMAGED_PARQUET),
    "length of the footer, gigabytes": (len(GOOD) - 5, 0x40, Reason.DAMAGED_PARQUET),
    "first field": (FOOTER, 0x07, Reason.DAMAGED_PARQUET),
    "length of the schema": (FOOTER + 3, 0x40, Reason.DAMAGED_PARQUET),
    "a required column's name": (GOOD.index(b"fare_amount", FOOTER), 0x01, Reason.MISSING_COLUMNS),
}


@pytest.mark.parametrize(("at", "bits", "reason"), FLIPS.values(), ids=list(FLIPS))
def test_flipped_byte_in_the_footer_has_a_reason(
    memory: MemoryStore, contract: DatasetContract, at: int, bits: int, reason: Reason
) -> None:
    good = memory.put("nyc_yellow/good.parquet", GOOD)
    bad = memory.put("nyc_yellow/flipped.parquet", flipped(GOOD, at, bits))
    accepted, refused = check(memory, contract, good, bad)
    assert [file.item for file in accepted] == [good]
    assert [(file.item, file.reason) for file in refused] == [(bad, reason)]


def test_every_single_flip_of_the_footer_is_accepted_with_its_rows_or_has_a_reason(
    memory: MemoryStore, contract: DatasetContract
) -> None:
    items = [memory.put(f"nyc_yellow/{at}.parquet", flipped(GOOD, at, 1 << at % 8)) for at in range(FOOTER, len(GOOD))]
    accepted, refused = check(memory, contract, *items)
    assert len(accepted) + len(refused) == len(items)
    assert {file.rows for file in accepted} == {2}, "a count that is not that of the row groups is seen"


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "remove", "repeat"]),
        # Half of them in the footer, where it matters.
        st.one_of(st.integers(0, len(GOOD)), st.integers(FOOTER, len(GOOD))),
        st.binary(min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=6,
)


def _changed(body: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for how, at, data in changes:
        rest = {
            "set": data + body[at + len(data) :],
            "cut": b"",
            "insert": data + body[at:],
            "remove": body[at + len(data) :],
            "repeat": body[at:] * (1 + data[0] % 3),
        }
        body = body[:at] + rest[how]
    return body


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, whole=st.booleans())
def test_whatever_happened_to_its_bytes_a_file_is_accepted_or_refused(
    contract: DatasetContract, changes: list[tuple[str, int, bytes]], whole: bool
) -> None:
    store = MemoryStore()
    body = _changed(GOOD, changes)
    if whole:
        # With an end that fits, so that what was changed in the footer is looked at.
        body = with_footer(GOOD, body[FOOTER:-8])
    good, item = store.put("nyc_yellow/good.parquet", GOOD), store.put("nyc_yellow/changed.parquet", body)
    accepted, refused = check(store, contract, good, item)
    assert good in [file.item for file in accepted]
    assert [file.item for file in [*accepted, *refused]].count(item) == 1


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(footer=st.binary(max_size=300))
def test_whatever_stands_in_place_of_a_footer_the_file_is_refused(contract: DatasetContract, footer: bytes) -> None:
    store = MemoryStore()
    accepted, refused = check(store, contract, store.put("nyc_yellow/a.parquet", with_footer(GOOD, footer)))
    assert (accepted, len(refused)) == ([], 1)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: claiming_rows(True), id="10^12-rows"),
        pytest.param(inflating, id="inflating"),
        pytest.param(lambda: bytes(100_000_000) + _long_footer(), id="footer-too-long"),
        pytest.param(lambda: GOOD[:-8] + b"\xff\xff\xff\x7fPAR1", id="footer-of-gigabytes"),
    ],
)
def test_file_over_a_limit_costs_no_memory(
    memory: MemoryStore, contract: DatasetContract, make: Callable[[], bytes]
) -> None:
    item = memory.put("nyc_yellow/huge.parquet", make())
    check(memory, contract, memory.put("nyc_yellow/good.parquet", GOOD))
    memory.read = 0
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        _, refused = check(memory, contract, item)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(refused) == 1
    assert memory.read <= 64 * 1024, "its last 64 KiB tell enough"
    assert peak < 2_000_000
    assert pa.total_allocated_bytes() - arrow < 2_000_000


def test_inflating_file_inflates_a_thousandfold() -> None:
    body = inflating()
    metadata = pq.read_metadata(pa.BufferReader(body))
    assert metadata.row_group(0).total_byte_size > 0
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    assert sum(group.total_byte_size for group in groups) / len(body) >= 1000


def test_small_file_may_inflate_as_it_likes(memory: MemoryStore, contract: DatasetContract) -> None:
    constant = pa.table({name: column.take(pa.array([0] * 50_000)) for name, column in _columns_of_a_trip().items()})
    body = as_parquet(constant, compression="zstd", use_dictionary=False, write_statistics=False)
    accepted, _ = check(memory, contract, memory.put("nyc_yellow/constant.parquet", body))
    assert [file.rows for file in accepted] == [50_000]


def _columns_of_a_trip() -> dict[str, Any]:
    file = table(trip())
    return {name: file[name] for name in file.column_names}


@pytest.mark.parametrize(
    ("limits", "name"),
    [({"maxBytes": 100}, "maxBytes"), ({"maxRows": 1}, "maxRows"), ({"maxUncompressedBytes": 50}, "maxUncomp")],
)
def test_limit_of_the_contract_is_held_against_a_file(
    memory: MemoryStore, contract: DatasetContract, limits: dict[str, int], name: str
) -> None:
    changed = contract.model_copy(update={"limits": type(contract.limits).model_validate(limits)})
    _, refused = check(memory, changed, memory.put("nyc_yellow/a.parquet", GOOD))
    assert [file.reason for file in refused] == [Reason.OVER_LIMIT]
    assert refused[0].detail.startswith(name)
    assert f"the limit is {next(iter(limits.values()))}." in refused[0].detail


def test_detail_fits_the_ledger_whatever_the_columns_are_called(memory: MemoryStore, contract: DatasetContract) -> None:
    _, refused = check(memory, contract, memory.put("nyc_yellow/a.parquet", _nul_in_name()))
    assert "\0" not in refused[0].detail
    assert len(refused[0].detail) <= 1001


@pytest.mark.parametrize("when", ["before", "while it is checked"])
def test_object_deleted_before_it_is_read_is_ignored(memory: MemoryStore, contract: DatasetContract, when: str) -> None:
    good, gone = memory.put("nyc_yellow/good.parquet", GOOD), memory.put("nyc_yellow/gone.parquet", GOOD)
    if when == "before":
        del memory.objects[gone.key]
    else:
        memory.gone.add(gone.key)
    accepted, refused = check(memory, contract, good, gone)
    assert [file.item for file in accepted] == [good]
    assert [(file.item, file.reason) for file in refused] == [(gone, Reason.OBJECT_GONE)]
    assert Reason.OBJECT_GONE.state is FileState.IGNORED


def test_row_groups_and_long_footers_of_honest_files_are_accepted(
    memory: MemoryStore, contract: DatasetContract
) -> None:
    many = as_parquet(table(*[trip()] * 400), row_group_size=2)
    assert len(many) - footer_at(many) > 64 * 1024, "more than the first request gives"
    accepted, refused = check(memory, contract, memory.put("nyc_yellow/many.parquet", many))
    assert ([file.rows for file in accepted], refused) == ([400], [])


def test_footers_of_published_files_contradict_nothing(memory: MemoryStore, contract: DatasetContract) -> None:
    published = sorted(TAXI.glob("*.parquet"))
    if not published:
        pytest.skip("no published files beside the repository (shared/data/taxi)")
    _, refused = check(memory, contract, *(memory.put(f"nyc_yellow/{p.name}", p.read_bytes()) for p in published))
    # The green taxis' columns are others, which is for the next check to say.
    assert {file.reason for file in refused} <= {Reason.MISSING_COLUMNS}


@pytest.mark.parametrize("name", ["at [12:30]", "12:30/a*b", "a\\b:c", "{x}/y:z", "what?:"])
def test_key_that_hadoop_would_take_for_a_pattern_and_a_uri_is_refused(
    memory: MemoryStore, contract: DatasetContract, name: str
) -> None:
    good = [memory.put(f"nyc_yellow/{key}.parquet", GOOD) for key in ("12:30", "[1]{2}*?")]
    accepted, refused = check(memory, contract, *good, memory.put(f"nyc_yellow/{name}.parquet", GOOD))
    assert {file.item for file in accepted} == set(good)
    assert [file.reason for file in refused] == [Reason.UNREADABLE_KEY]


def test_key_of_1024_bytes_is_kept_under_its_digest() -> None:
    key = "nyc_yellow/" + "é" * 500 + "/ab.parquet"
    long = WorkItem(bucket="bronze", key=key + "x" * (1024 - len(key.encode())), etag="e" * 32, version="1")
    assert len(long.key.encode()) == 1024
    assert quarantine_key(long) == f"nyc_yellow/_long/{hashlib.sha256(long.key.encode()).hexdigest()}/{long.etag}"
    fits = long.model_copy(update={"key": "k" * (1024 - 33)})
    assert quarantine_key(fits) == f"{fits.key}/{fits.etag}"
