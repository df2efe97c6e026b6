"""Downloads a published month into bronze: checked, resumable, one atomic PUT."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.dataset import DatasetContract
from contracts.errors import DownloadFailed, ServiceUnavailable, SetupError, UsageError
from contracts.landing import is_csv
from contracts.settings import Settings
from ingest.csv_files import csv_to_parquet
from ingest.drop import drop_key, put_unless_there
from ingest.fetch import Report, current_version, fetch
from ingest.policies import BRONZE
from ingest.store import ObjectInfo, Store

_MAGIC = b"PAR1"


def download_month(
    settings: Settings,
    contract: DatasetContract,
    year: int,
    month: int,
    store: Store,
    progress: Report | None = None,
) -> ObjectInfo:
    """Download the file of a month from `settings.tlc_base_url` and put it into bronze.

    What an interrupted download left in `<home>/downloads` is gone on from. Where bronze holds the same content
    already, nothing is put, and where it came from the same version of the same address, nothing is downloaded.

    Args:
        progress: called with the bytes that are there, and how many there will be (None when unknown).

    Returns:
        The object in bronze.

    Raises:
        UsageError: the contract names no published source, or the month is not one.
        DownloadFailed: the month is not published, or what came is not a whole parquet file; where the contract names
            a CSV, not one that names a column of the dataset.
        ServiceUnavailable: the source or the store cannot be reached, or the same month is being downloaded.
        SetupError: the downloads folder cannot be written.
    """
    name = published_name(contract, year, month)
    url = f"{settings.tlc_base_url.rstrip('/')}/{name}"
    folder, key = settings.home / "downloads", drop_key(contract, Path(name))
    there = store.stat(BRONZE, key)
    if there is not None and there.source.startswith(f"{url} ") and there.source == _source(url, current_version(url)):
        return there
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f"{name}.lock", name):
            path = folder / f"{name}.part"
            source = _source(url, _fetch_month(url, path, progress))
            landed = _landed(url, path, contract) if is_csv(name) else _whole_parquet(url, path)
            put = put_unless_there(store, key, landed, source)
            _remove(path)
            return put
    except OSError as error:
        raise SetupError(
            f"The folder {folder} cannot be written ({error}). Free some space or set SLUICE_HOME."
        ) from error


def published_name(contract: DatasetContract, year: int, month: int) -> str:
    """What the file of a month is called where it is published.

    Raises:
        UsageError: the contract names no published source, or the month is not one.
    """
    if contract.download is None:
        raise UsageError(f"The contract of {contract.dataset} names no published source to download from.")
    if not (1900 <= year <= 2200 and 1 <= month <= 12):
        raise UsageError(f"{year}-{month} is no month; year 1900 to 2200 and month 1 to 12 were expected.")
    return contract.download.file.format(year=year, month=month)


def _source(url: str, version: str) -> str:
    """What an object's source is called; empty where the version is unknown or cannot be kept."""
    return f"{url} {version}" if version and f"{url}{version}".isascii() else ""


def _fetch_month(url: str, path: Path, progress: Report | None) -> str:
    try:
        return fetch(url, path, progress)
    except DownloadFailed as error:
        if error.context.get("status") not in (403, 404, 410):
            raise
        # The source answers 403 for a file that is not there.
        raise DownloadFailed(
            f"The month is not published: {url} answers HTTP {error.context['status']}. Months come out about two "
            "months later; choose an earlier one, or check SLUICE_TLC_BASE_URL.",
            **error.context,
        ) from error


def _whole_parquet(url: str, path: Path) -> Path:
    """The downloaded file, if it is one that can be put."""
    if not _looks_like_parquet(path):
        size = path.stat().st_size
        _remove(path)
        raise DownloadFailed(f"What {url} gave ({size} bytes) is not a whole parquet file. Try again later.", url=url)
    return path


def _landed(url: str, path: Path, contract: DatasetContract) -> Path:
    """The parquet file that a downloaded CSV becomes."""
    landed = _landing_place(path)
    try:
        csv_to_parquet(path, landed, contract.source_names)
    except UsageError as error:
        _remove(path)
        raise DownloadFailed(
            f"What {url} gave is no CSV of {contract.dataset}: {error.message} Try again later.", url=url
        ) from error
    return landed


def _looks_like_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
        size = file.seek(0, 2)
        file.seek(max(0, size - len(_MAGIC)))
        return size >= 12 and start == _MAGIC and file.read() == _MAGIC


def _landing_place(path: Path) -> Path:
    return path.with_name(f"{path.name}.parquet")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.json").unlink(missing_ok=True)
    _landing_place(path).unlink(missing_ok=True)


@contextmanager
def _alone(lock: Path, name: str) -> Iterator[None]:
    """Keep a second process from writing the same part file."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServiceUnavailable(f"{name} is being downloaded by another process; wait for that one.") from error
        yield
