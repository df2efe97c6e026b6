"""The jobs started by a person with `spark-submit`, without Airflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from contracts.dataset import DatasetContract
from contracts.errors import Permanent, Retryable, UsageError
from contracts.loading import get_contract, load_contracts
from contracts.markers import CommitMarker
from contracts.settings import Settings, load_settings
from contracts.states import Layer
from contracts.work import Batch, WorkItem, make_batch
from ingest.store import ObjectInfo, Store, store_for
from spark_jobs.lake import open_lake
from spark_jobs.session import submit_session

BUCKET = "bronze"
WRONG_USAGE = 2
FAILED = 1

Run = Callable[..., CommitMarker]


def main(layer: Layer, run: Run, arguments: Sequence[str] | None = None) -> int:
    """Run a job over the objects that the arguments choose, and print what became of each.

    Returns:
        Exit code: 0 done, 1 the job failed and may be tried again, 2 wrong usage or nothing to do.
    """
    options = _parser(layer).parse_args(arguments)
    try:
        settings = load_settings()
        contract = _contract(settings, options.dataset)
        store = store_for(settings, "spark")
        if layer == Layer.GOLD and contract.gold is None:
            raise UsageError(f"{contract.dataset} is a reference dataset, which has no gold.")
        batch = _batch(layer, contract, choose(store, contract, options.year, options.month, options.key))
        spark = submit_session(settings, f"sluice-{batch.run_id}")
        try:
            marker = run(spark, open_lake(settings, store), store, contract, batch)
        finally:
            spark.stop()
    except Permanent as error:
        print(error.message, file=sys.stderr)
        return WRONG_USAGE
    except Retryable as error:
        print(error.message, file=sys.stderr)
        return FAILED
    print(_table(marker))
    return 0


def choose(
    store: Store, contract: DatasetContract, year: int | None, month: int | None, key: str | None
) -> list[ObjectInfo]:
    """The dataset's bronze objects of a month or a year, or the one called `bronze/<key>`.

    Raises:
        UsageError: neither a year nor a key is given, or no object matches.
    """
    if key is not None:
        return [_one(store, contract, key)]
    if year is None:
        raise UsageError("Say which files: --year, --year with --month, or --key.")
    found = [info for info in store.list(BUCKET, f"{contract.dataset}/") if _matches(contract, info.key, year, month)]
    if not found:
        wanted = f"{year}-{month:02d}" if month else str(year)
        raise UsageError(
            f"{BUCKET}/{contract.dataset}/ holds no file whose name says {wanted}. Drop it first: `sluice drop FILE`."
        )
    return found


def _parser(layer: Layer) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Take files of bronze into {layer}, without Airflow.")
    parser.add_argument("--year", type=int, help="year that the files' names say, for example 2025")
    parser.add_argument("--month", type=int, choices=range(1, 13), metavar="1..12", help="month of that year")
    parser.add_argument("--key", help="one object, for example bronze/DATASET/file.parquet")
    parser.add_argument("--dataset", help="name of a dataset contract; needed only where there are several")
    return parser


def _contract(settings: Settings, dataset: str | None) -> DatasetContract:
    contracts = load_contracts(settings.contracts_dir)
    if dataset is None and len(contracts) == 1:
        return next(iter(contracts.values()))
    if dataset is None:
        raise UsageError(f"Say which dataset with --dataset: {', '.join(sorted(contracts))}.")
    return get_contract(contracts, dataset)


def _one(store: Store, contract: DatasetContract, uri: str) -> ObjectInfo:
    bucket, _, key = uri.partition("/")
    if bucket != BUCKET or not contract.accepts(key):
        raise UsageError(f"{uri!r} is no file of {contract.dataset}: {BUCKET}/{contract.dataset}/… was expected.")
    info = store.stat(bucket, key)
    if info is None:
        raise UsageError(f"There is no object {uri!r}.")
    return info


def _matches(contract: DatasetContract, key: str, year: int, month: int | None) -> bool:
    period = contract.period_of(key) if contract.accepts(key) else None
    return period is not None and period.year == year and month in (None, period.month)


def _batch(layer: Layer, contract: DatasetContract, objects: Sequence[ObjectInfo]) -> Batch:
    # A person who asks again wants the work done again, so the version is the time of asking.
    version = f"by-hand-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
    items = [
        WorkItem(
            bucket=info.bucket,
            key=info.key,
            etag=info.etag,
            size=info.size,
            version=version,
            depth=contract.last_layer,
        )
        for info in objects
    ]
    return make_batch(layer, contract.dataset, items)


def _table(marker: CommitMarker) -> str:
    lines = [f"{'rows in':>12} {'accepted':>12} {'rejected':>12}  file"]
    for source in marker.sources:
        if source.refused:
            lines.append(f"{source.refused:>38}  {source.bucket}/{source.key!r}: {source.detail}")
        else:
            counts = f"{source.rows_in:>12,} {source.rows_accepted:>12,} {source.rows_rejected:>12,}"
            lines.append(f"{counts}  {source.bucket}/{source.key!r}")
    return "\n".join([*lines, f"{marker.table}: snapshot {marker.snapshot_id or 'none'}, batch {marker.batch_id}"])
