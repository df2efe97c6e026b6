"""What the download DAGs call: fetch a month into bronze, and watch the file's way through the ledger."""

from __future__ import annotations

import json
import logging
from typing import Any

from contracts.errors import Permanent
from contracts.loading import get_contract, load_contracts
from contracts.settings import load_settings
from contracts.states import FileState
from contracts.story import FileStory

log = logging.getLogger(__name__)


def fetch_month(dataset: str, year: int, month: int) -> dict[str, str]:
    """Download a published month and put it into bronze.

    Returns:
        `bucket`, `key`, `etag` of the object.

    Raises:
        DownloadFailed: the month is not published, or what came is not what was promised.
        UsageError: the contract names no published source.
        ServiceUnavailable: MinIO or the source does not answer.
    """
    from ingest.download import download_month
    from ingest.store import store_for

    settings = load_settings()
    contract = get_contract(load_contracts(settings.contracts_dir), dataset)
    info = download_month(settings, contract, year, month, store_for(settings, "ingest"))
    log.info("bronze holds %s (%d bytes, etag %s)", info.key, info.size, info.etag)
    return {"bucket": info.bucket, "key": info.key, "etag": info.etag}


def arrived(place: dict[str, str]) -> bool:
    """Whether the file has reached its final state.

    Raises:
        Permanent: it ended in quarantine; the message holds the reason and what to do.
    """
    story = _story(place)
    if story is None:
        return False
    log.info("%s is %s", place["key"], story.state)
    if story.state is FileState.QUARANTINED and story.reason is not None:
        raise Permanent(f"{place['key']} is in quarantine: {story.reason}. {story.detail or ''} {story.reason.advice}")
    return story.state.final


def report(place: dict[str, str], dag_id: str, run_id: str) -> dict[str, Any]:
    """The file's story as JSON values; logged, and summed up in the run's note."""
    from sluice_listener.stage import set_note

    story = _story(place)
    if story is None:
        raise Permanent(f"The ledger knows nothing of {place['key']} (etag {place['etag']}).")
    told: dict[str, Any] = story.model_dump(mode="json")
    log.info("%s", json.dumps(told, indent=2))
    rows = "; ".join(
        f"{layer.table}: {layer.rows_in:,} rows in, {layer.rows_accepted:,} accepted, {layer.rows_rejected:,} rejected"
        for layer in story.layers
    )
    set_note(load_settings(), dag_id, run_id, f"{story.bucket}/{story.key} is {story.state}. {rows}")
    return told


def _story(place: dict[str, str]) -> FileStory | None:
    from consumers.ledger import open_ledger

    with open_ledger(load_settings()) as ledger:
        story: FileStory | None = ledger.story(place["bucket"], place["key"], place["etag"])
        return story
