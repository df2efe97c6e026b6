"""Keep the original of a file that was refused."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable

from contracts.errors import ObjectChanged, ObjectGone
from contracts.states import Reason
from contracts.work import WorkItem
from ingest.store import Store
from spark_jobs.preflight import Refused

BUCKET = "quarantine"
# S3's limit for a key, in bytes of UTF-8.
_KEY_LIMIT = 1024
_NOT_THE_FILES_FAULT = frozenset({Reason.SUPERSEDED, Reason.OBJECT_GONE})

log = logging.getLogger(__name__)


def copy_originals(store: Store, refused: Iterable[Refused]) -> None:
    """Copy refused files to `quarantine/<key>/<etag>`, so that a later drop under the key does not lose them.

    Raises:
        ServiceUnavailable: the store does not answer.
    """
    for file in refused:
        if file.reason in _NOT_THE_FILES_FAULT:
            continue
        item = file.item
        try:
            store.copy(item.bucket, item.key, item.etag, BUCKET, quarantine_key(item))
        except (ObjectChanged, ObjectGone) as error:
            log.warning("No copy of a refused file was kept: %s", error)


def quarantine_key(item: WorkItem) -> str:
    """Where the original is kept; the key gives way to its SHA-256 where both together are too long.

    In the dataset's folder all the same, by which its copies expire.
    """
    key = f"{item.key}/{item.etag}"
    if len(key.encode()) <= _KEY_LIMIT:
        return key
    return f"{item.key.partition('/')[0]}/_long/{hashlib.sha256(item.key.encode()).hexdigest()}/{item.etag}"
