"""The story of one file, as `sluice why` tells it. Field names are public: others script against them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, NonNegativeInt, field_serializer

from contracts.events import utc_millis
from contracts.states import FileState, Hop, Layer, Reason


def _most_first(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


Counts = Annotated[dict[str, NonNegativeInt], AfterValidator(_most_first)]
"""Reason code to rows, most rows first."""


class Passage(BaseModel):
    """One hop of a file's way."""

    model_config = ConfigDict(frozen=True)

    hop: Hop
    at: AwareDatetime
    layer: Layer | None = None
    run_id: str | None = None
    detail: str | None = None

    @field_serializer("at")
    def _at(self, at: AwareDatetime) -> str:
        return utc_millis(at)


class LayerResult(BaseModel):
    """What a layer holds of a file."""

    model_config = ConfigDict(frozen=True)

    layer: Layer
    table: str
    dag_id: str | None
    run_id: str | None
    snapshot_id: int | None
    rows_in: int
    rows_accepted: int
    rows_rejected: int
    reasons: Counts = {}
    """Rejected rows by reason code; a row counts with every reason that it has."""
    warnings: Counts = {}
    """Accepted rows that break a rule which only warns, by its code."""
    rescued: tuple[str, ...] = ()
    """File columns that the contract does not name, kept in `_rescued`."""
    left_out: tuple[str, ...] = ()
    """Further such columns, which Spark cannot read: their values are in the file alone."""


class CommitSource(BaseModel):
    """What one commit wrote of one file."""

    model_config = ConfigDict(frozen=True)

    snapshot_id: int
    table_name: str
    batch_id: str
    run_id: str | None
    committed_at: AwareDatetime
    bucket: str
    key: str
    etag: str
    rows_in: int
    rows_accepted: int
    rows_rejected: int
    reasons: Counts = {}
    warnings: Counts = {}
    rescued: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """All four as in `LayerResult`."""

    @field_serializer("committed_at")
    def _committed_at(self, at: AwareDatetime) -> str:
        return utc_millis(at)


class FileStory(BaseModel):
    """What became of one version of one bronze object."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str
    etag: str
    size: int
    dataset: str | None
    state: FileState
    reason: Reason | None
    detail: str | None
    timeline: tuple[Passage, ...]
    """In order of time."""
    layers: tuple[LayerResult, ...]
    """Silver first."""
