"""The jobs as applications of their own: started with `spark-submit`, by a person or by a stage of Airflow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from contracts.dataset import BRONZE, DatasetContract
from contracts.errors import Permanent, Retryable, UsageError
from contracts.loading import get_contract, load_contracts
from contracts.markers import CommitMarker
from contracts.settings import load_settings
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
    """Run a job over the objects that the arguments choose, dataset by dataset, and print what became of each.

    Returns:
        Exit code: 0 done, 1 the job failed and may be tried again, 2 wrong usage or nothing to do.
    """
    options = _parser(layer).parse_args(arguments)
    try:
        for marker in _markers(layer, run, options):
            _tell(options.outcome, Outcome(marker=marker))
            print(_table(marker), flush=True)
    except (Permanent, Retryable) as error:
        permanent = isinstance(error, Permanent)
        _tell(options.outcome, Outcome(error=error.message, permanent=permanent))
        print(error.message, file=sys.stderr)
        return WRONG_USAGE if permanent else FAILED
    return 0


def _markers(layer: Layer, run: Run, options: argparse.Namespace) -> Iterator[CommitMarker]:
    settings = load_settings()
    contracts = load_contracts(settings.contracts_dir)
    if options.batch:
        batches = [Batch.model_validate_json(options.batch.read_bytes())]
        store = store_for(settings, "spark")
    else:
        wanted = _wanted(layer, contracts, options.dataset)
        store = store_for(settings, "spark")
        chosen = choose(store, wanted, options.year, options.month, options.key)
        batches = [_batch(layer, contracts[dataset], objects) for dataset, objects in chosen.items()]
    spark = submit_session(settings, f"sluice-{batches[0].run_id}")
    try:
        lake = open_lake(settings, store)
        for batch in batches:
            contract = get_contract(contracts, batch.dataset)
            yield run(spark, lake, store, contract, batch, options.dag_id, options.run_id)
    finally:
        spark.stop()


def _tell(path: Path | None, outcome: Outcome) -> None:
    if path is not None:
        path.write_text(outcome.model_dump_json(), "utf-8")


def choose(
    store: Store, contracts: Sequence[DatasetContract], year: int | None, month: int | None, key: str | None
) -> dict[str, list[ObjectInfo]]:
    """These datasets' bronze objects of a month or a year, or the one called `bronze/<key>`, by dataset.

    Raises:
        UsageError: neither a year nor a key is given, or no object matches.
    """
    if key is not None:
        return _one(store, contracts, key)
    if year is None:
        raise UsageError("Say which files: --year, --year with --month, or --key.")
    found: dict[str, list[ObjectInfo]] = {}
    for contract in contracts:
        listed = store.list(BRONZE, f"{contract.dataset}/")
        if objects := [info for info in listed if _matches(contract, info.key, year, month)]:
            found[contract.dataset] = objects
    if not found:
        wanted = f"{year}-{month:02d}" if month else str(year)
        raise UsageError(
            f"{_folders(contracts)} holds no file whose name says {wanted}. Drop it first: `sluice drop FILE`."
        )
    return found


def _parser(layer: Layer) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Take files of bronze into {layer}, without Airflow.")
    parser.add_argument("--year", type=int, help="year that the files' names say, for example 2025")
    parser.add_argument("--month", type=int, choices=range(1, 13), metavar="1..12", help="month of that year")
    parser.add_argument("--key", help="one object, for example bronze/DATASET/file.parquet")
    parser.add_argument("--dataset", help="name of a dataset contract; without it, each that has such files")
    stage = parser.add_argument_group("what a stage of Airflow gives in place of these")
    stage.add_argument("--batch", type=Path, metavar="FILE", help="the batch, as JSON")
    stage.add_argument(
        "--outcome", type=Path, metavar="FILE", help="where the commit marker or the error goes, as JSON"
    )
    stage.add_argument("--dag-id", default="", help="noted in the commit marker")
    stage.add_argument("--run-id", default="", help="noted in the commit marker")
    return parser


def _wanted(layer: Layer, contracts: Mapping[str, DatasetContract], dataset: str | None) -> list[DatasetContract]:
    """The dataset that was asked for, or all that have the layer."""
    if dataset is None:
        return [contracts[name] for name in sorted(contracts) if layer != Layer.GOLD or contracts[name].gold]
    contract = get_contract(contracts, dataset)
    if layer == Layer.GOLD and contract.gold is None:
        raise UsageError(f"{dataset} is a reference dataset, which has no gold.")
    return [contract]


def _one(store: Store, contracts: Sequence[DatasetContract], uri: str) -> dict[str, list[ObjectInfo]]:
    bucket, _, key = uri.partition("/")
    contract = next((contract for contract in contracts if bucket == BRONZE and contract.accepts(key)), None)
    if contract is None:
        datasets = ", ".join(contract.dataset for contract in contracts)
        raise UsageError(f"{uri!r} is no file of {datasets}: {BRONZE}/DATASET/… was expected.")
    info = store.stat(bucket, key)
    if info is None:
        raise UsageError(f"There is no object {uri!r}.")
    return {contract.dataset: [info]}


def _folders(contracts: Sequence[DatasetContract]) -> str:
    """Where the files of these datasets are, for a message."""
    names = [contract.dataset for contract in contracts]
    return f"{BRONZE}/{names[0]}/" if len(names) == 1 else f"{BRONZE}/ ({', '.join(names)})"


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
