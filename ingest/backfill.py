"""Which files a backfill is about, and bringing one of them into bronze."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from contracts.dataset import DatasetContract, Period
from contracts.errors import UsageError
from contracts.settings import Settings
from ingest.download import download_month, published_name
from ingest.drop import drop_key, landed, put_unless_there
from ingest.fetch import Report
from ingest.policies import BRONZE
from ingest.store import ObjectInfo, Store

_MONTHS = re.compile(r"(\d{4})-(\d{2})(?:\.\.(\d{4})-(\d{2}))?")


@dataclass(frozen=True)
class Wanted:
    """A file that belongs in bronze."""

    month: Period
    key: str
    path: Path | None
    """On this machine; None: the published month is downloaded."""


def parse_months(text: str) -> list[Period]:
    """The months of `YYYY-MM..YYYY-MM`, both included, or of `YYYY-MM`, in order.

    Raises:
        UsageError: it is neither, or the last month comes before the first.
    """
    found = _MONTHS.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        first = Period(year=int(found[1]), month=int(found[2]))
        last = Period(year=int(found[3]), month=int(found[4])) if found[3] else first
    except (ValueError, ValidationError) as error:
        raise UsageError(f"{text!r} names no months; 2023-01..2024-12 or 2023-01 was expected.") from error
    if last.start < first.start:
        raise UsageError(f"{text!r} ends before it begins; write the earlier month first.")
    # Months counted from year 0.
    start, end = (month.year * 12 + month.month - 1 for month in (first, last))
    return [Period(year=number // 12, month=number % 12 + 1) for number in range(start, end + 1)]


def wanted_files(
    contract: DatasetContract, months: Sequence[Period], folder: Path | None
) -> tuple[list[Wanted], list[Period]]:
    """The files of some months, and the months that have none.

    Args:
        folder: where the files are; a month may have several. None: where the contract says that they are published.

    Raises:
        UsageError: there is no such folder, or nothing is published; or names tell no month.
    """
    if folder is None:
        return [
            Wanted(month, drop_key(contract, Path(published_name(contract, month.year, month.month))), None)
            for month in months
        ], []
    if contract.period is None:
        raise UsageError(
            f"The contract of {contract.dataset} has no period, so no name tells a month. Use: sluice drop"
        )
    if not folder.is_dir():
        raise UsageError(f"There is no folder {str(folder)!r} to take files from.")
    found = []
    for path in sorted(folder.iterdir()):
        key = drop_key(contract, path)
        month = contract.period_of(key)
        if month is not None and month in months and contract.accepts(key) and path.is_file():
            found.append(Wanted(month, key, path))
    found.sort(key=lambda wanted: (wanted.month.start, wanted.key))
    there = {wanted.month for wanted in found}
    return found, [month for month in months if month not in there]


def bring(
    settings: Settings, contract: DatasetContract, wanted: Wanted, store: Store, progress: Report | None = None
) -> tuple[ObjectInfo, bool]:
    """Put a file into bronze, unless the same content is there.

    Args:
        progress: called with the bytes that are there, and how many there will be; what it raises ends this.

    Returns:
        The object, and whether it was put.

    Raises:
        UsageError, DownloadFailed, ServiceUnavailable, SetupError: as `download_month` and `drop_file`.
    """
    before = store.stat(BRONZE, wanted.key)
    if wanted.path is None:
        info = download_month(settings, contract, wanted.month.year, wanted.month.month, store, progress)
    else:
        try:
            with landed(wanted.path, contract) as file:
                info = put_unless_there(store, wanted.key, file, progress=_summed(progress, file))
        except OSError as error:
            raise UsageError(f"The file {str(wanted.path)!r} cannot be read ({error}); nothing was put.") from error
    return info, before is None or before.etag != info.etag


def _summed(report: Report | None, file: Path) -> Callable[[int], None] | None:
    """As the store reports a put: by the bytes since the last time."""
    if report is None:
        return None
    total, have = file.stat().st_size, 0

    def add(length: int) -> None:
        nonlocal have
        have += length
        report(have, total)

    return add
