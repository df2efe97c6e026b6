"""The commit marker of a job: made, put into the layer's bucket, and told to a person."""

from __future__ import annotations

from contracts.markers import CommitMarker, SourceResult
from contracts.work import WorkItem
from ingest.store import Store


def put_marker(store: Store, marker: CommitMarker) -> None:
    """Put the marker; the same batch writes the same object, so a repeat changes nothing.

    Raises:
        ServiceUnavailable: the store does not answer; the commit stands, and a re-run puts the marker.
    """
    store.put_bytes(marker.layer, marker.key, marker.model_dump_json().encode(), content_type="application/json")


def result(item: WorkItem, **fields: object) -> SourceResult:
    """The result for one file of a batch.

    Args:
        fields: any others of `SourceResult`: its rows and what is told of them, or why it was refused.
    """
    return SourceResult.model_validate(
        {
            **item.model_dump(include={"bucket", "key", "etag", "size", "cause", "depth", "deleted"}),
            **fields,
        }
    )
