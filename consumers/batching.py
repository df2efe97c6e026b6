"""Decisions of a listener: which waiting files form the next batch, and how far its offsets may move. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from contracts.errors import BadWork
from contracts.states import Layer
from contracts.work import Batch, WorkItem, WorkMessage, make_batch

MAX_WAITING = 20_000
"""Files of a dataset that may wait at once; more stay in Kafka."""
DEFAULT_BATCH_FILES = 1000
NAMED_FILES = 20
"""How many keys a run's conf names; the ledger holds them all."""

Place = tuple[str, int, int]
"""Topic, partition, offset of a message."""
Identity = tuple[str, str, str, str]


@dataclass(slots=True)
class _Waiting:
    item: WorkItem
    places: set[Place] = field(default_factory=set)
    """The messages that carry the item; more than one when it was sent again."""


class Gatherer:
    """Files that wait for a batch, per dataset in order of arrival, and the messages that they came in.

    Group commit: while a dataset has a run under way its files gather here; then all that wait go at once.
    """

    def __init__(self, layer: Layer, max_waiting: int = MAX_WAITING) -> None:
        self._layer = layer
        self._max_waiting = max_waiting
        self._waiting: dict[str, dict[Identity, _Waiting]] = {}
        self._open: dict[Place, int] = {}
        """Messages that still hold waiting items -> how many."""
        self._seen: dict[tuple[str, int], int] = {}
        """(topic, partition) -> highest offset that was added."""
        self._came_by: dict[str, set[int]] = {}
        """Dataset -> partitions that its messages came by; one, by their key."""

    @property
    def waiting(self) -> int:
        """Files that wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def crowded(self) -> dict[str, int]:
        """Datasets of which so many files wait that no more should be read, and how many; bounds the memory."""
        return {name: len(waiting) for name, waiting in self._waiting.items() if len(waiting) >= self._max_waiting}

    def partitions_of(self, datasets: Iterable[str]) -> set[int]:
        """The partitions that the files of some datasets came by."""
        return set().union(*(self._came_by[dataset] for dataset in datasets))

    def add(
        self, message: WorkMessage, topic: str, partition: int, offset: int, skip: Collection[WorkItem] = ()
    ) -> None:
        """Take in a message.

        Args:
            skip: its items that need no batch, for example since an earlier one claimed them.

        Raises:
            BadWork: the message is for another layer; pass over it.
        """
        if message.layer != self._layer:
            raise BadWork(f"{topic}[{partition}]@{offset} is work for {message.layer}, expected {self._layer}.")
        place = (topic, partition, offset)
        if place in self._open:
            return
        self.pass_over(topic, partition, offset)
        self._came_by.setdefault(message.dataset, set()).add(partition)
        waiting = self._waiting.setdefault(message.dataset, {})
        for item in message.items:
            if item in skip:
                continue
            entry = waiting.setdefault(_identity(item), _Waiting(item))
            if place not in entry.places:
                entry.places.add(place)
                self._open[place] = self._open.get(place, 0) + 1

    def pass_over(self, topic: str, partition: int, offset: int) -> None:
        """Count a message that carries nothing to do, or cannot be read, as dealt with."""
        self._seen[topic, partition] = max(offset, self._seen.get((topic, partition), offset))

    def next_batches(self, busy: Collection[str], limits: Mapping[str, int] | None = None) -> list[Batch]:
        """A batch for each dataset that has files waiting and no run under way.

        Args:
            busy: datasets with a run under way.
            limits: most files of a batch, per dataset.

        Returns:
            The same again until `handed_over` is told or more files arrive.
        """
        batches = []
        for dataset, waiting in self._waiting.items():
            if waiting and dataset not in busy:
                limit = (limits or {}).get(dataset, DEFAULT_BATCH_FILES)
                items = (entry.item for entry in islice(waiting.values(), limit))
                batches.append(make_batch(self._layer, dataset, items))
        return batches

    def handed_over(self, batch: Batch) -> None:
        """The batch's DAG run exists: its files, and the older versions that it replaced, wait no longer."""
        waiting = self._waiting.get(batch.dataset, {})
        chosen = {(item.bucket, item.key): _identity(item) for item in batch.items}
        for identity in list(waiting):
            if chosen.get(identity[:2]) is None:
                continue
            if chosen[identity[:2]] == identity:
                del chosen[identity[:2]]
            for place in waiting.pop(identity).places:
                self._close(place)

    def committable(self) -> dict[tuple[str, int], int]:
        """(topic, partition) -> the offset to go on from: the first message not wholly handed over."""
        offsets = {source: highest + 1 for source, highest in self._seen.items()}
        for topic, partition, offset in self._open:
            offsets[topic, partition] = min(offset, offsets[topic, partition])
        return offsets

    def _close(self, place: Place) -> None:
        self._open[place] -= 1
        if not self._open[place]:
            del self._open[place]


def run_conf(batch: Batch) -> dict[str, Any]:
    """The conf of a batch's DAG run: what its task needs, and what a person reads."""
    files = [item.uri for item in batch.items[:NAMED_FILES]]
    return {"batch_id": batch.batch_id, "dataset": batch.dataset, "files": files}


def run_note(batch: Batch) -> str:
    """The note of a batch's DAG run until it has an outcome."""
    what = batch.items[0].uri if len(batch.items) == 1 else f"{len(batch.items)} files of {batch.dataset}"
    return f"{what} → {batch.layer} (batch {batch.batch_id})"


def _identity(item: WorkItem) -> Identity:
    return item.bucket, item.key, item.etag, item.version
