"""Stories of files, for tests of what is told of them."""

from __future__ import annotations

from contracts.states import FileState
from contracts.story import FileStory, LayerResult, Passage


def make_story(
    *timeline: Passage, state: FileState = FileState.DONE, layers: tuple[LayerResult, ...] = ()
) -> FileStory:
    """A file's story with these passages."""
    return FileStory(
        bucket="bronze",
        key="nyc_yellow/a.parquet",
        etag="e" * 32,
        size=1,
        dataset="nyc_yellow",
        state=state,
        reason=None,
        detail=None,
        timeline=timeline,
        layers=layers,
    )
