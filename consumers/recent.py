"""Remembers the bucket events that were handed on lately, so that second deliveries cost nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from contracts.events import BucketEvent

MOST = 20_000
"""Events, some 10 MB. A second delivery comes within seconds; an older one is told by the ledger."""


class RecentEvents:
    """A bounded memory of events; forgetting one is safe, since the ledger knows it too."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        # Not a plain dict, which looks through all that it has dropped before it finds its oldest.
        self._events: OrderedDict[tuple[str, ...], None] = OrderedDict()

    def __contains__(self, event: BucketEvent) -> bool:
        return _identity(event) in self._events

    def add(self, events: Iterable[BucketEvent]) -> None:
        """Remember events, and forget the oldest beyond the limit."""
        for event in events:
            self._events[_identity(event)] = None
        while len(self._events) > self._most:
            self._events.popitem(last=False)


def _identity(event: BucketEvent) -> tuple[str, ...]:
    return event.name, event.bucket, event.key, event.etag, event.sequencer
