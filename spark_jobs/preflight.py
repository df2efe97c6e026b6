"""The check before Spark reads: does each object still hold the version asked for, and can it be read at all?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from contracts.dataset import DatasetContract, Limits
from contracts.errors import ObjectGone
from contracts.states import Reason
from contracts.work import Batch, WorkItem
from ingest.store import Store
from spark_jobs.footers import (
    MAX_FOOTER_BYTES,
    DamagedParquet,
    EncryptedParquet,
    Footer,
    FooterTooLong,
    NotParquet,
    read_footer,
)
from spark_jobs.matching import Layout, Refusal, match_columns
from spark_jobs.pages import check_pages

GLOB_SIGNS = re.compile(r"([{}\[\]*?\\])")
"""What makes a pattern of a path to Hadoop."""
_THREADS = 8
# Below, no ratio does harm: a few constant columns inflate a hundredfold honestly.
_HARMLESS_BYTES = 64 * 1024**2
_MAX_DETAIL = 1000


@dataclass(frozen=True)
class Accepted:
    """A file that Spark may read."""

    item: WorkItem
    size: int
    rows: int
    layout: Layout


@dataclass(frozen=True)
class Refused:
    """A file that does not get in as a whole."""

    item: WorkItem
    reason: Reason
    detail: str


def check_files(store: Store, contract: DatasetContract, batch: Batch) -> tuple[list[Accepted], list[Refused]]:
    """Check every file of a batch; see `check_deleted` for its deletions.

    Raises:
        ServiceUnavailable: the store does not answer.
    """
    files = [item for item in batch.items if not item.deleted]
    with ThreadPoolExecutor(_THREADS) as pool:
        checked = list(pool.map(lambda item: _check(store, contract, item), files))
    return (
        [result for result in checked if isinstance(result, Accepted)],
        [result for result in checked if isinstance(result, Refused)],
    )


def check_deleted(store: Store, batch: Batch) -> tuple[list[WorkItem], list[Refused]]:
    """The deletions of a batch whose objects are indeed not there, and those that were put again since.

    Raises:
        ServiceUnavailable: the store does not answer.
    """
    gone, refused = [], []
    for item in batch.items:
        if item.deleted:
            info = store.stat(item.bucket, item.key)
            if info is None:
                gone.append(item)
            else:
                detail = f"The object was put again since, with etag {info.etag}."
                refused.append(Refused(item, Reason.SUPERSEDED, detail))
    return gone, refused


def check_versions(store: Store, items: Iterable[WorkItem]) -> dict[WorkItem, Refused]:
    """Those objects that by now are gone or hold other content than the version asked for.

    Raises:
        ServiceUnavailable: the store does not answer.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        checked = pool.map(lambda item: _head(store, item), list(items))
    return {result.item: result for result in checked if isinstance(result, Refused)}


def _head(store: Store, item: WorkItem) -> int | Refused:
    """The object's size in bytes, or why the version asked for cannot be read."""
    info = store.stat(item.bucket, item.key)
    if info is None:
        return Refused(item, Reason.OBJECT_GONE, "The object is not there any more.")
    if info.etag != item.etag:
        return Refused(item, Reason.SUPERSEDED, f"The object's etag is {info.etag} by now, {item.etag} was asked for.")
    return info.size


def _check(store: Store, contract: DatasetContract, item: WorkItem) -> Accepted | Refused:
    size = _head(store, item)
    if isinstance(size, Refused):
        return size
    if ":" in item.key and GLOB_SIGNS.search(item.key):
        # Hadoop takes a part of an expanded pattern for a URI of its own, and the whole batch fails.
        return Refused(item, Reason.UNREADABLE_KEY, "The key has both a colon and a sign of a pattern, {}[]*?\\.")
    if size == 0:
        return Refused(item, Reason.EMPTY_FILE, "The object has 0 bytes; a parquet file was expected.")
    if size > contract.limits.max_bytes:
        return _over(item, "maxBytes", size, contract.limits.max_bytes)
    try:
        footer = read_footer(store, item.bucket, item.key, size)
    except NotParquet as error:
        return Refused(item, Reason.NOT_PARQUET, str(error))
    except DamagedParquet as error:
        return Refused(item, Reason.DAMAGED_PARQUET, str(error))
    except EncryptedParquet as error:
        return Refused(item, Reason.ENCRYPTED_PARQUET, str(error))
    except FooterTooLong as error:
        return _over(item, "maxFooterBytes", error.length, MAX_FOOTER_BYTES)
    except ObjectGone:
        return Refused(item, Reason.OBJECT_GONE, "The object was deleted while it was checked.")
    judged = _judge(contract, item, size, footer)
    if isinstance(judged, Accepted):
        try:
            check_pages(store, item.bucket, item.key, footer.chunks)
        except DamagedParquet as error:
            return Refused(item, Reason.UNREADABLE_DATA, str(error))
        except ObjectGone:
            return Refused(item, Reason.OBJECT_GONE, "The object was deleted while it was checked.")
    return judged


def _judge(contract: DatasetContract, item: WorkItem, size: int, footer: Footer) -> Accepted | Refused:
    for name, found, limit in _measures(contract.limits, size, footer):
        if found > limit:
            return _over(item, name, found, limit)
    layout = match_columns(contract.silver.columns, footer.columns, contract.strict)
    if isinstance(layout, Refusal):
        return Refused(item, layout.reason, _said(layout.detail))
    if footer.rows == 0:
        return Refused(item, Reason.NO_ROWS, "The file is valid parquet with 0 rows.")
    return Accepted(item, size, footer.rows, layout)


def _measures(limits: Limits, size: int, footer: Footer) -> list[tuple[str, int, int]]:
    """Each limit's name, what the footer says, and the limit."""
    inflation = footer.uncompressed // size if footer.uncompressed > _HARMLESS_BYTES else 0
    return [
        ("maxColumns", footer.leaves, limits.max_columns),
        ("maxRows", footer.rows, limits.max_rows),
        ("maxUncompressedBytes", footer.uncompressed, limits.max_uncompressed_bytes),
        ("maxInflation", inflation, limits.max_inflation),
    ]


def _over(item: WorkItem, name: str, found: int, limit: int) -> Refused:
    return Refused(item, Reason.OVER_LIMIT, f"{name}: the file has {found:,}, the limit is {limit:,}.")


def _said(detail: str) -> str:
    """A detail fit for the ledger: names of columns may be of any length, and Postgres takes no NUL."""
    shown = "".join(sign if sign.isprintable() else "\ufffd" for sign in detail[:_MAX_DETAIL])
    return shown if len(detail) <= _MAX_DETAIL else f"{shown}…"
