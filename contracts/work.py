"""Work messages (Kafka) and batches (one DAG run each)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Annotated, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from contracts.dataset import BRONZE, DatasetContract
from contracts.errors import BadWork
from contracts.states import Layer

SCHEMA_VERSION = 1
RUN_TYPES = tuple(
    f"{name}__" for name in ("scheduled", "backfill", "asset_triggered", "operator_triggered", "asset_materialization")
)
"""What ids of Airflow's own kinds of runs begin with, of which a run by its API is none (3.3: `DagRunType`)."""
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Without NUL, which no text in Postgres holds."""
Count = Annotated[int, Field(ge=0, lt=2**63)]


class WorkItem(BaseModel):
    """One version of one bronze object that a layer has to take in."""

    model_config = ConfigDict(frozen=True)

    bucket: Text
    key: Text
    etag: Text
    size: Count = 0
    """Bytes of the bronze object."""
    version: Text
    """What makes this work new: for silver the event's sequencer, for gold the silver snapshot id."""
    rows: Count | None = None
    """Rows to expect: for gold the rows that silver accepted; unknown for silver."""
    cause: Text = ""
    """Version of the bronze work that this descends from, for silver its own; empty when a person ran the job."""
    depth: Layer = Layer.GOLD
    """The last layer that the work is to reach."""
    deleted: bool = False
    """The object was deleted, and its rows are to go."""

    @property
    def uri(self) -> str:
        """`bucket/key`, the KEY of the command line."""
        return f"{self.bucket}/{self.key}"


class WorkMessage(BaseModel):
    """A message of `lake.bronze.work` or `lake.silver.work`: files for one dataset's next stage."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    layer: Layer
    """The layer to be written."""
    dataset: str
    items: tuple[WorkItem, ...] = Field(min_length=1)
    at: AwareDatetime


class Batch(BaseModel):
    """What one DAG run of a stage works on."""

    model_config = ConfigDict(frozen=True)

    batch_id: str
    layer: Layer
    dataset: str
    items: tuple[WorkItem, ...] = Field(min_length=1)

    @property
    def run_id(self) -> str:
        """The DAG run's id: it names the file or the number of files, and the batch.

        Airflow accepts `^[A-Za-z0-9_.~:+-]+$` up to 250 characters, without ".." and, of a run that is made by hand or
        through its API, without the first word of another kind of run.
        """
        name = self.items[0].key.rsplit("/", 1)[-1] if len(self.items) == 1 else f"{len(self.items)}_files"
        readable = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9_.~:+-]+", "_", name)[:120])
        run_id = f"{readable}__{self.batch_id}"
        return f"file-{run_id}" if run_id.startswith(RUN_TYPES) else run_id

    @property
    def dag_id(self) -> str:
        """The stage's DAG."""
        return stage_dag_id(self.dataset, self.layer)


def make_batch(layer: Layer, dataset: str, items: Iterable[WorkItem]) -> Batch:
    """Make a batch whose id comes from its content, so the same files make the same id.

    Later versions of one object replace earlier ones in the batch.
    """
    newest: dict[tuple[str, str], WorkItem] = {}
    for item in items:
        newest[item.bucket, item.key] = item
    chosen = tuple(newest[name] for name in sorted(newest))
    digest = hashlib.sha256(f"{layer}\0{dataset}".encode())
    for item in chosen:
        digest.update("\0".join(("", item.bucket, item.key, item.etag, item.version)).encode())
    return Batch(batch_id=digest.hexdigest()[:12], layer=layer, dataset=dataset, items=chosen)


class Named(Protocol):
    """An object in the store, whoever tells of it."""

    @property
    def bucket(self) -> str: ...
    @property
    def key(self) -> str: ...


def refuse_foreign(contract: DatasetContract, objects: Iterable[Named], told_by: str) -> None:
    """Refuse what names an object outside its dataset's folder in bronze: nobody of ours writes such a thing.

    Args:
        told_by: the message, marker or batch, for the error.

    Raises:
        BadWork: an object is not the dataset's.
    """
    for item in objects:
        if not contract.owns(item.bucket, item.key):
            raise BadWork(
                f"{told_by} names {item.bucket}/{item.key[:200]!r}, but work of {contract.dataset} lies in "
                f"{BRONZE}/{contract.dataset}/ alone. It was not made by Sluice; find out who wrote it."
            )


def refuse_other(contract: DatasetContract, layer: Layer, batch: Batch) -> None:
    """Refuse a batch that is not for this dataset and layer, or that names what is not the dataset's.

    Raises:
        BadWork: it is such a batch.
    """
    if (batch.dataset, batch.layer) != (contract.dataset, layer):
        expected = stage_dag_id(contract.dataset, layer)
        raise BadWork(f"The batch {batch.batch_id!r} is one of {batch.dag_id}, not of {expected}.")
    refuse_foreign(contract, batch.items, f"The batch {batch.batch_id!r}")


def stage_dag_id(dataset: str, layer: Layer) -> str:
    """The DAG that writes `layer` of `dataset`, for example `nyc_yellow_to_silver`."""
    return f"{dataset}_to_{layer}"


def second_run_id(run_id: str) -> str:
    """The id of the run that does a run's work once more: always the same, so that it is made once."""
    return f"{run_id}__again"


def parse_work(value: bytes | None) -> WorkMessage:
    """Parse a work message.

    Raises:
        BadWork: not a work message, or one of a newer schema version.
    """
    try:
        message = WorkMessage.model_validate_json(value or b"")
    except ValidationError as error:
        raise BadWork(f"The message is not a work message: {error.error_count()} fields are malformed.") from error
    if message.schema_version > SCHEMA_VERSION:
        raise BadWork(
            f"The work message has schema version {message.schema_version}; this code knows up to {SCHEMA_VERSION}. "
            "Upgrade this part, then redrive the message."
        )
    return message
