"""Puts a local file into bronze, a CSV as parquet. Nothing but the object's arrival starts the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from contracts.dataset import DatasetContract, hidden_part
from contracts.errors import UsageError
from contracts.landing import is_csv, landed_name
from contracts.loading import get_contract
from ingest.policies import BRONZE
from ingest.store import ObjectInfo, Store, content_etag

MAX_KEY_BYTES = 1024


def drop_file(
    store: Store, contracts: Mapping[str, DatasetContract], path: Path, dataset: str, key: str | None = None
) -> ObjectInfo:
    """Put a file into bronze under a key that its dataset's contract accepts.

    The content is not looked at: whatever is wrong with it, the chain says so. A CSV is turned into parquet first
    (`ingest.csv_files`), so that the same CSV makes the same object.

    Args:
        key: the object's key; see `drop_key` for None.

    Returns:
        What the store acknowledged.

    Raises:
        UsageError: there is no such file, nobody would process an object of that key, or a CSV has no header that names
            a column of the dataset. Nothing was put.
        UnknownDataset: no contract has that name.
        ServiceUnavailable: the store does not answer.
    """
    contract = get_contract(contracts, dataset)
    if not path.is_file():
        raise UsageError(f"There is no file {str(path)!r} to drop.")
    chosen = key if key is not None else drop_key(contract, path)
    _check_key(chosen, contract)
    if contract.is_manifest(chosen):
        return store.put_file(BRONZE, chosen, path)
    with landed(path, contract) as file:
        return store.put_file(BRONZE, chosen, file)


@contextmanager
def landed(path: Path, contract: DatasetContract) -> Iterator[Path]:
    """The file as it goes into bronze: of a CSV a parquet file that lives as long as the block.

    Raises:
        UsageError: a CSV has no header that names a column of the dataset, or cannot be turned into parquet.
    """
    if not is_csv(path.name):
        yield path
        return
    # Imported here: pyarrow costs 0.2 s, and few files are CSV.
    from ingest.csv_files import csv_to_parquet

    with ExitStack() as closing:
        try:
            file = Path(closing.enter_context(TemporaryDirectory(prefix="sluice-"))) / "landed.parquet"
            csv_to_parquet(path, file, contract.source_names)
        except OSError as error:
            raise UsageError(
                f"{str(path)!r} cannot be turned into parquet ({error}). Make it readable, or free some space for "
                "temporary files (TMPDIR names their folder)."
            ) from error
        yield file


def put_unless_there(
    store: Store, key: str, path: Path, source: str = "", progress: Callable[[int], None] | None = None
) -> ObjectInfo:
    """Put a file into bronze, unless the object has that content already.

    Args:
        source, progress: see `Store.put_file`.
    """
    there = store.stat(BRONZE, key)
    if there is not None and there.size == path.stat().st_size and there.etag == content_etag(path):
        return there
    return store.put_file(BRONZE, key, path, progress, source)


def drop_key(contract: DatasetContract, path: Path) -> str:
    """The key of a file for which none is chosen: `<dataset>/<file name>`, of a CSV `<dataset>/<name>.parquet`."""
    as_it_is = f"{contract.dataset}/{path.name}"
    return as_it_is if contract.is_manifest(as_it_is) else landed_name(as_it_is)


def _check_key(key: str, contract: DatasetContract) -> None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise UsageError(f"The name {key!r} is not UTF-8. Choose another with --key.") from error
    if size > MAX_KEY_BYTES:
        raise UsageError(f"The key has {size} bytes; at most {MAX_KEY_BYTES} fit. Choose a shorter one with --key.")
    # Spark and Hadoop skip such names, so the router ignores them.
    if hidden_part(key) is not None:
        raise UsageError(f"The key {key!r} has a part that begins with '_' or '.'. Choose another with --key.")
    if not contract.accepts(key) and not contract.is_manifest(key):
        hint = " A CSV is put as parquet." if is_csv(key) else ""
        raise UsageError(
            f"The key {key!r} is none of dataset {contract.dataset}: below {contract.dataset}/ its contract expects "
            f"names that match {contract.path}.{hint} Rename the file, or choose another key with --key."
        )
