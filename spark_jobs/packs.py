"""Decision: which small source files are put together, and into which packs. No I/O.

A source file's rows are data files of their own, so that they can be replaced by themselves; a thousand small files are
then a thousand data files, and each costs a reader a request or two. A pack is a partition that holds the rows of many,
in the order of their keys, so that the lowest and highest key of a pack tell which it may hold. A batch of many small
files comes in packs; those that come by few are put together by upkeep, and so are small packs.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

from spark_jobs.lake import BATCH_PACK, PACK, Partition, SourceRows

PACK_BYTES = 32 * 1024**2
"""Of a pack at most. A corrected file has its whole pack written anew, which takes a second or two at this size."""
MANY_FILES = 50
"""A batch of more, with few rows, comes in packs."""
FILES_A_PACK = 250
"""Of a batch, at most. A correction has to look into each pack that may hold its key, and packs of files that are
named by chance may all."""
_FEW_ROWS = 20_000
_FEW_ROWS_A_FILE = 200
LEAST = 8
"""So many small files and packs at least, or they are left as they are: a commit costs more than they do."""
MOST_SOURCES = 2000
"""Of them that one commit takes."""
MOST_ACROSS = 4
"""Packs that may hold one key. A job that replaces a file looks into each of them."""


@dataclass(frozen=True)
class Source:
    """A source file's part of a table."""

    key: str
    bytes: int


@dataclass(frozen=True)
class Pack:
    """A pack to be written: it takes the sources up to its last key that no pack before it takes."""

    id: str
    last: str


def few_rows(rows: int, files: int) -> bool:
    """Whether some files have few rows, at least one, for so many files."""
    return 0 < rows <= _FEW_ROWS + _FEW_ROWS_A_FILE * files


def packs_of_batch(batch_id: str, rows: Mapping[str, int]) -> list[Pack]:
    """The packs in which the files of a batch come; none when each has data files of its own.

    Args:
        rows: key of a file to its rows.
    """
    if len(rows) <= MANY_FILES or not few_rows(sum(rows.values()), len(rows)):
        return []
    keys = sorted(rows)
    number = math.ceil(len(keys) / FILES_A_PACK)
    lasts = [keys[len(keys) * (place + 1) // number - 1] for place in range(number)]
    return [Pack(f"{BATCH_PACK}{batch_id}-{place}", last) for place, last in enumerate(lasts)]


def small_and_old(partitions: Sequence[Partition], below: int, before: datetime) -> list[Partition]:
    """The source files, and the packs of batches, to be put together by one commit, in the order of their keys.

    Empty when it is not worth one.

    Args:
        below: bytes of a source file's data files; more are not small.
        before: what was written later may well be corrected yet.
    """
    found = [
        partition
        for partition in partitions
        if (partition.is_of_batch or (not partition.is_pack and partition.bytes < below))
        and (partition.written_at is None or partition.written_at < before)
    ]
    chosen = sorted(found, key=lambda partition: partition.lowest)[:MOST_SOURCES]
    return chosen if len(chosen) >= LEAST else []


def cut_anew(partitions: Sequence[Partition], chosen: Sequence[Partition]) -> list[Partition]:
    """The packs of upkeep that are put together anew with the chosen partitions, in the order of their keys.

    Those that are less than half full and lie across the chosen keys, or next to them, so that packs do not stay small;
    and those that lie across one another, where they are too many.
    """
    first, last = chosen[0].lowest, max(partition.highest for partition in chosen)
    own = (partition for partition in partitions if partition.is_pack and not partition.is_of_batch)
    packs = sorted(own, key=lambda pack: pack.lowest)
    across = [pack for pack in packs if pack.lowest <= last and first <= pack.highest]
    crowded = {pack.id for pack in _crowded(across)}
    before = [pack for pack in packs if pack.highest < first][-1:]
    after = [pack for pack in packs if pack.lowest > last][:1]
    return [pack for pack in (*before, *across, *after) if pack.bytes < PACK_BYTES / 2 or pack.id in crowded]


def _crowded(packs: Sequence[Partition]) -> Iterator[Partition]:
    """The packs, of some in the order of their lowest keys, that may hold a key that as many as may be may hold."""
    for place, pack in enumerate(packs):
        # It is at their lowest keys that packs become more.
        there = [other for other in packs[: place + 1] if other.highest >= pack.lowest]
        if len(there) >= MOST_ACROSS:
            yield from there


def sources_of(
    chosen: Sequence[Partition], packs: Sequence[Partition], held: Mapping[str, Mapping[str, SourceRows]]
) -> list[Source]:
    """The source files of some partitions, in the order of their keys.

    Args:
        held: pack to what it holds of each source file, by key; each gets its share of the pack's bytes.
    """
    sources = [Source(partition.lowest, partition.bytes) for partition in chosen]
    for pack in packs:
        rows = sum(found.rows for found in held[pack.id].values())
        sources += [Source(key, pack.bytes * found.rows // rows) for key, found in held[pack.id].items()]
    return sorted(sources, key=lambda source: source.key)


def cut(sources: Sequence[Source]) -> list[Pack]:
    """Packs of about equal size for some source files, of which there is at least one.

    Args:
        sources: in the order of their keys.
    """
    total = sum(source.bytes for source in sources)
    number = max(1, math.ceil(total / PACK_BYTES))
    lasts: dict[int, str] = {}
    for source, reached in zip(sources, accumulate(source.bytes for source in sources), strict=True):
        # A source is where its middle is; the last one is always in the last pack.
        middle = reached - source.bytes / 2
        lasts[min(number - 1, int(middle * number / total)) if total else 0] = source.key
    return [Pack(f"{PACK}{uuid.uuid4().hex}", last) for _, last in sorted(lasts.items())]
