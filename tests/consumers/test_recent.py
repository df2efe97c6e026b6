"""The router's memory of events."""

from __future__ import annotations

from consumers.recent import RecentEvents
from contracts.events import parse_events
from tests.consumers.samples import body, put


def test_oldest_events_are_forgotten_beyond_the_limit() -> None:
    events = [event for name in ("a", "b", "c") for event in parse_events(body(put(f"nyc_yellow/{name}.parquet")))]
    recent = RecentEvents(most=2)
    recent.add(events)
    assert [event in recent for event in events] == [False, True, True]
