"""The story of a file, whose field names others script against."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

from contracts.states import FileState, Hop, Layer
from contracts.story import FileStory, LayerResult, Passage


def test_story_as_json_has_the_promised_fields_and_times_in_utc() -> None:
    at = datetime(2025, 1, 2, 3, 4, 5, 678900, tzinfo=timezone(timedelta(hours=2)))
    result = LayerResult(
        layer=Layer.SILVER,
        table="silver.d",
        dag_id="d_to_silver",
        run_id="r",
        snapshot_id=1,
        rows_in=3,
        rows_accepted=2,
        rows_rejected=1,
        reasons={"b": 1, "a": 1, "c": 2},
    )
    story = FileStory(
        bucket="bronze",
        key="d/ä.parquet",
        etag="e",
        size=1,
        dataset="d",
        state=FileState.DONE,
        reason=None,
        detail=None,
        timeline=(Passage(hop=Hop.PUT, at=at), Passage(hop=Hop.EVENT, at=at.astimezone(UTC))),
        layers=(result,),
    )
    told = json.loads(story.model_dump_json())
    assert told.keys() >= {"bucket", "key", "etag", "dataset", "state", "reason", "timeline", "layers"}
    assert [(p["hop"], p["at"]) for p in told["timeline"]] == [
        ("put", "2025-01-02T01:04:05.678Z"),
        ("event", "2025-01-02T01:04:05.678Z"),
    ]
    assert told["layers"][0].keys() == {
        "layer",
        "table",
        "dag_id",
        "run_id",
        "snapshot_id",
        "rows_in",
        "rows_accepted",
        "rows_rejected",
        "reasons",
        "warnings",
        "rescued",
        "left_out",
    }
    assert list(told["layers"][0]["reasons"]) == ["c", "a", "b"], "most rows first"
