"""What the demo says of a file's time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from contracts.states import Hop, Layer
from contracts.story import FileStory, Passage
from sluice.demo import _seconds_to_gold
from tests.sluice.stories import make_story

PUT_AT = datetime(2025, 1, 1, tzinfo=UTC)


def story(*hops: tuple[Hop, Layer | None, float]) -> FileStory:
    passages = [Passage(hop=hop, at=PUT_AT + timedelta(seconds=after), layer=layer) for hop, layer, after in hops]
    return make_story(*passages)


def test_time_to_gold_ends_when_the_aggregate_is_recorded_not_with_the_features() -> None:
    told = story((Hop.PUT, None, 0), (Hop.COMMITTED, Layer.GOLD, 4), (Hop.RECORDED, Layer.GOLD, 6))
    assert _seconds_to_gold(told) == 6


def test_file_that_was_put_again_and_has_not_ended_has_no_time() -> None:
    assert _seconds_to_gold(story((Hop.RECORDED, Layer.GOLD, -5), (Hop.PUT, None, 0))) is None
