"""Puts a local file into bronze. Nothing but the object's arrival starts the work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from contracts.dataset import DatasetContract
from contracts.errors import UsageError
from contracts.loading import get_contract
from ingest.policies import BRONZE
from ingest.store import ObjectInfo, Store

MAX_KEY_BYTES = 1024


def drop_file(
    store: Store, contracts: Mapping[str, DatasetContract], path: Path, dataset: str, key: str | None = None
) -> ObjectInfo:
    """Put a file into bronze under a key that its dataset's contract accepts.

    The content is not looked at: whatever is wrong with it, the chain says so.

    Args:
        key: the object's key; `<dataset>/<file name>` when None.

    Returns:
        What the store acknowledged.

    Raises:
        UsageError: there is no such file, or nobody would process an object of that key. Nothing was put.
        UnknownDataset: no contract has that name.
        ServiceUnavailable: the store does not answer.
    """
    contract = get_contract(contracts, dataset)
    if not path.is_file():
        raise UsageError(f"There is no file {str(path)!r} to drop.")
    chosen = key if key is not None else f"{dataset}/{path.name}"
    _check_key(chosen, contract)
    return store.put_file(BRONZE, chosen, path)


def _check_key(key: str, contract: DatasetContract) -> None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise UsageError(f"The name {key!r} is not UTF-8. Choose another with --key.") from error
    if size > MAX_KEY_BYTES:
        raise UsageError(f"The key has {size} bytes; at most {MAX_KEY_BYTES} fit. Choose a shorter one with --key.")
    # Spark and Hadoop skip such names, so the router ignores them.
    if any(part.startswith(("_", ".")) for part in key.split("/")):
        raise UsageError(f"The key {key!r} has a part that begins with '_' or '.'. Choose another with --key.")
    if not contract.accepts(key) and not contract.is_manifest(key):
        raise UsageError(
            f"The key {key!r} is none of dataset {contract.dataset}: below {contract.dataset}/ its contract expects "
            f"names that match {contract.path}. Rename the file, or choose another key with --key."
        )
