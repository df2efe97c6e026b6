"""What a CSV is called once it has landed in bronze, where all data files are parquet."""

from __future__ import annotations

_CSV = (".csv", ".csv.gz")


def is_csv(name: str) -> bool:
    """Whether a file of that name, or an object of that key, is a CSV, plain or compressed with gzip."""
    return name.lower().endswith(_CSV)


def landed_name(name: str) -> str:
    """The name, or key, under which a file lands: `x.csv` and `x.csv.gz` as `x.parquet`, all others as they are."""
    if not is_csv(name):
        return name
    bare = name[: -len(".gz")] if name.lower().endswith(".gz") else name
    return f"{bare[: -len('.csv')]}.parquet"
