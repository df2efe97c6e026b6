"""What the rows of one file are like: the model, and where it is kept. No I/O."""

from __future__ import annotations

import re

from pydantic import AwareDatetime, BaseModel, ConfigDict, NonNegativeInt

from contracts.dataset import DatasetContract

PREFIX = "_profiles/"
STEPS = 20
"""The quantiles of a column are at 0, 1/20, … and 20/20."""
MOST_VALUES = 20
"""So many values of a text column are counted, those of most rows; whole numbers that have no more count as codes."""


class ColumnProfile(BaseModel):
    """What a column of silver holds of a file."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: str
    """Spark SQL type."""
    unit: str = ""
    nulls: NonNegativeInt
    minimum: str | None = None
    """As Spark writes it; None where all values are null."""
    maximum: str | None = None
    quantiles: tuple[float, ...] = ()
    """Of a number: at 0, 1/20, … and 20/20, by a sample of the values that are not null. Of anything else none."""
    values: dict[str, NonNegativeInt] = {}
    """Of a text, a boolean, or whole numbers of few values: values to about as many rows, those of most rows first."""
    counted: NonNegativeInt = 0
    """Rows that `values` were counted of; more than their sum where there are other values that are not told."""

    @property
    def untold(self) -> int:
        """Rows with values beyond those in `values`; none in a profile that does not tell `counted`."""
        return max(0, self.counted - sum(self.values.values()))


class Profile(BaseModel):
    """What the rows are like that silver holds of one version of a file."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str
    etag: str
    dataset: str
    snapshot_id: int
    """Of silver; the commit that wrote the rows."""
    made_at: AwareDatetime
    rows_in: NonNegativeInt
    rows_accepted: NonNegativeInt
    rows_rejected: NonNegativeInt
    reasons: dict[str, NonNegativeInt] = {}
    """Rejected rows by reason code; see `contracts.markers.SourceResult`."""
    columns: tuple[ColumnProfile, ...] = ()
    """In the contract's order; none where no row was accepted."""


def profile_key(dataset: str, source: str, etag: str) -> str:
    """The key in the bucket `silver` under which a version's profile is kept.

    Args:
        source: what stands for the file's key, `spark_jobs.lake.source_id`.
    """
    return f"{PREFIX}{dataset}/{source}/{etag}.json"


def key_of_the_month_before(contract: DatasetContract, key: str) -> str | None:
    """The key that the file of the month before has if it is named alike; None where the key names no month."""
    period, found = contract.period_of(key), re.search(contract.period, key) if contract.period else None
    if period is None or found is None:
        return None
    before = {
        "year": period.year - (period.month == 1),
        "month": (period.month - 2) % 12 + 1,
    }
    parts = sorted(((found.span(name), str(number)) for name, number in before.items()), reverse=True)
    for (start, end), text in parts:
        key = f"{key[:start]}{text.rjust(end - start, '0')}{key[end:]}"
    return key
