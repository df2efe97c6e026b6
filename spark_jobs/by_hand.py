"""The jobs as applications of their own: started with `spark-submit`, by a person or by a stage of Airflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from contracts.dataset import BRONZE, DatasetContract
from contracts.errors import Permanent, Retryable, UsageError
from contracts.loading import get_contract, load_contracts
from contracts.markers import CommitMarker
from contracts.settings import Settings, load_settings
from contracts.states import Layer
from contracts.work import Batch, WorkItem, make_batch
from ingest.store import ObjectInfo, Store, store_for
from spark_jobs.lake import open_lake
from spark_jobs.session import submit_session

WRONG_USAGE = 2
FAILED = 1

Run = Callable[..., CommitMarker]


class Outcome(BaseModel):
    """What a stage that submitted a job gets back in a file; nothing where the process died."""

    marker: CommitMarker | None = None
    error: str = ""
    permanent: bool = False
    """Whether trying again cannot mend the error."""


def main(layer: Layer, run: Run, arguments: Sequence[str] | None = None) -> int:
    """Run a job over the objects that the arguments choose, and print what became of each.

    Returns:
        Exit code: 0 done, 1 the job failed and may be tried again, 2 wrong usage or nothing to do.
    """
    options = _parser(layer).parse_args(arguments)
    try:
        marker = _marker(layer, run, options)
    except (Permanent, Retryable) as error:
        permanent = isinstance(error, Permanent)
        _tell(options.outcome, Outcome(error=error.message, permanent=permanent))
        print(error.message, file=sys.stderr)
        return WRONG_USAGE if permanent else FAILED
    _tell(options.outcome, Outcome(marker=marker))
    print(_table(marker))
    return 0


def _marker(layer: Layer, run: Run, options: argparse.Namespace) -> CommitMarker:
    settings = load_settings()
    store = store_for(settings, "spark")
    given = Batch.model_validate_json(options.batch.read_bytes()) if options.batch else None
    contract = _contract(settings, given.dataset if given else options.dataset)
    if layer == Layer.GOLD and contract.gold is None:
        raise UsageError(f"{contract.dataset} is a reference dataset, which has no gold.")
    batch = given or _batch(layer, contract, choose(store, contract, options.year, options.month, options.key))
    spark = submit_session(settings, f"sluice-{batch.run_id}")
    try:
        return run(spark, open_lake(settings, store), store, contract, batch, options.dag_id, options.run_id)
    finally:
        spark.stop()


def _tell(path: Path | None, outcome: Outcome) -> None:
    if path is not None:
        path.write_text(outcome.model_dump_json(), "utf-8")


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
    found = [info for info in store.list(BRONZE, f"{contract.dataset}/") if _matches(contract, info.key, year, month)]
    if not found:
        wanted = f"{year}-{month:02d}" if month else str(year)
        raise UsageError(
            f"{BRONZE}/{contract.dataset}/ holds no file whose name says {wanted}. Drop it first: `sluice drop FILE`."
        )
    return found


def _parser(layer: Layer) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Take files of bronze into {layer}, without Airflow.")
    parser.add_argument("--year", type=int, help="year that the files' names say, for example 2025")
    parser.add_argument("--month", type=int, choices=range(1, 13), metavar="1..12", help="month of that year")
    parser.add_argument("--key", help="one object, for example bronze/DATASET/file.parquet")
    parser.add_argument("--dataset", help="name of a dataset contract; needed only where there are several")
    stage = parser.add_argument_group("what a stage of Airflow gives in place of these")
    stage.add_argument("--batch", type=Path, metavar="FILE", help="the batch, as JSON")
    stage.add_argument(
        "--outcome", type=Path, metavar="FILE", help="where the commit marker or the error goes, as JSON"
    )
    stage.add_argument("--dag-id", default="", help="noted in the commit marker")
    stage.add_argument("--run-id", default="", help="noted in the commit marker")
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
    if bucket != BRONZE or not contract.accepts(key):
        raise UsageError(f"{uri!r} is no file of {contract.dataset}: {BRONZE}/{contract.dataset}/… was expected.")
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
