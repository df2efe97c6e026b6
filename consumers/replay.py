"""Decision: which files a replay runs again, and as which work. No I/O."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consumers.routing import End, Work, dataset_of
from consumers.rows import FileRow
from contracts.dataset import DatasetContract
from contracts.states import Layer
from contracts.work import WorkItem


@dataclass(frozen=True, slots=True)
class Passed:
    """A file that is not run again, and why."""

    uri: str
    why: str


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What a replay will do."""

    depth: Layer
    """The last layer that the files reach again."""
    work: tuple[Work, ...]
    passed: tuple[Passed, ...]
    batches: int
    """DAG runs of the silver stage, at least; fewer files a run when a run is under way already."""

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(work.item.size for work in self.work)


def plan_replay(
    rows: Sequence[FileRow], contracts: Mapping[str, DatasetContract], depth: Layer, version: str
) -> ReplayPlan:
    """Plan to run files again by today's contracts, whatever became of them.

    Args:
        rows: the newest version of each object.
        version: of the new work; another one than any work had before, so that listeners take it for new.
    """
    work, passed = [], []
    for row in rows:
        uri = f"{row.bucket}/{row.key}"
        dataset = dataset_of(row.key, contracts)
        if row.removed_at is not None:
            passed.append(Passed(uri, "The object was deleted."))
        elif isinstance(dataset, End):
            passed.append(Passed(uri, f"{dataset.reason}: {dataset.detail}"))
        elif contracts[dataset].is_manifest(row.key):
            passed.append(Passed(uri, "It is a manifest, which holds no rows."))
        else:
            item = WorkItem(
                bucket=row.bucket,
                key=row.key,
                etag=row.etag,
                size=row.size,
                version=version,
                cause=version,
                depth=depth,
            )
            work.append(Work(dataset, item))
    counts = Counter(one.dataset for one in work)
    batches = sum(math.ceil(count / contracts[dataset].max_batch_files) for dataset, count in counts.items())
    return ReplayPlan(depth, tuple(work), tuple(passed), batches)
