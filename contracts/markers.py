"""The commit marker: the one small object that ends a stage and wakes the next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from contracts.errors import BadWork
from contracts.states import Layer, Reason

SCHEMA_VERSION = 1
"""Rises when an older reader would misread a marker. A field with a default leaves it: older readers pass over it."""
PREFIX = "_commits/"
MAX_NAMES = 20
LONGEST_NAME = 64


def bounded_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names that others wrote, safe to keep and to show.

    Returns:
        The first 20 of them in order, once each. What a terminal or Postgres would not take is an escape, and a name
        of more than 64 characters ends with `…`. What was made so stays as it is.
    """
    return tuple(sorted({_bounded(name) for name in names})[:MAX_NAMES])


def _bounded(name: str) -> str:
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name[: LONGEST_NAME + 1])
    return safe if len(safe) <= LONGEST_NAME else safe[: LONGEST_NAME - 1] + "…"


class SourceResult(BaseModel):
    """What a stage did with one version of one bronze object.

    Rows in = rows accepted + rows rejected (I3), unless the file was refused as a whole.
    """

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str
    etag: str
    size: int = Field(default=0, ge=0)
    rows_in: int = Field(default=0, ge=0)
    rows_accepted: int = Field(default=0, ge=0)
    rows_rejected: int = Field(default=0, ge=0)
    reasons: dict[str, NonNegativeInt] = {}
    """Rejected rows by reason code. Every reason of a row counts, so their sum may be above `rows_rejected`."""
    warnings: dict[str, NonNegativeInt] = {}
    """Accepted rows that break a rule of the severity `warn`, by its code."""
    rescued: Annotated[tuple[str, ...], AfterValidator(bounded_names)] = ()
    """File columns that no column of the contract names, whose values were kept in `_rescued`; see `bounded_names`."""
    left_out: Annotated[tuple[str, ...], AfterValidator(bounded_names)] = ()
    """Further such columns, which Spark cannot read, so that their values are in the file alone; bounded likewise."""
    refused: Reason | None = None
    """Set when the file as a whole did not get in: quarantined, or ignored as superseded or gone."""
    detail: str = ""
    """For a person: what was found and what was expected. No row data."""
    cause: str = ""
    """As in the work item: which bronze work this is the result of."""
    depth: Layer = Layer.GOLD
    """The last layer that the work is to reach; a silver commit wakes gold only for sources whose depth it is."""
    deleted: bool = False
    """The object was deleted, and this commit took its rows back."""

    @model_validator(mode="after")
    def _accounted(self) -> SourceResult:
        if self.refused is None and self.rows_in != self.rows_accepted + self.rows_rejected:
            raise ValueError(
                f"{self.rows_in} rows in, but {self.rows_accepted} accepted + {self.rows_rejected} rejected"
            )
        return self


class CommitMarker(BaseModel):
    """What one batch did to one layer. Written after the Iceberg commit, under `_commits/<table>/`."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    layer: Layer
    dataset: str
    table: str
    """The layer's main table, for example `silver.nyc_yellow`."""
    snapshot_id: int | None
    """None when every file of the batch was refused and nothing was committed."""
    parent_id: int | None = None
    sequence_number: int = Field(default=0, ge=0)
    """The snapshot's place among the table's commits, counted by Iceberg from 1; 0 when nothing was committed, and in
    markers of before this field."""
    batch_id: str
    dag_id: str = ""
    run_id: str = ""
    """Empty when the job ran without Airflow."""
    started_at: AwareDatetime
    committed_at: AwareDatetime
    sources: tuple[SourceResult, ...]

    @property
    def key(self) -> str:
        """The marker's object key in its layer's bucket; the same batch writes the same object."""
        return marker_key(self.table, self.snapshot_id, self.batch_id)


def marker_key(table: str, snapshot_id: int | None, batch_id: str) -> str:
    """Where the marker of a batch's commit to a table is, in its layer's bucket."""
    return f"{PREFIX}{table.rsplit('.', 1)[-1]}/{snapshot_id or 'none'}-{batch_id}.json"


def parse_marker(value: bytes | None) -> CommitMarker:
    """Parse a commit marker.

    Raises:
        BadWork: not a commit marker, or one of a newer schema version.
    """
    try:
        marker = CommitMarker.model_validate_json(value or b"")
    except ValidationError as error:
        raise BadWork(f"The object is not a commit marker: {error.error_count()} fields are malformed.") from error
    if marker.schema_version > SCHEMA_VERSION:
        raise BadWork(
            f"The commit marker has schema version {marker.schema_version}; this code knows up to {SCHEMA_VERSION}. "
            "Upgrade this part, then redrive the message."
        )
    return marker
