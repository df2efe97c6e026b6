"""The demo: one month of yellow-taxi data from bronze to gold, watched hop by hop."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.live import Live

from contracts.dataset import DatasetContract
from contracts.errors import DownloadFailed, ServiceUnavailable, UsageError
from contracts.loading import load_contracts
from contracts.settings import Settings, load_settings
from contracts.story import FileStory
from sluice import render
from sluice.stacks import chosen
from sluice.status import Say

SEED = 7
WAIT_SECONDS = 600.0


def run_demo(source: str, rows: int, year: int, month: int, quiet: bool) -> FileStory:
    """Start the stack, put a month into bronze, and follow it.

    Args:
        source: `tlc` (the published month), `sample` (the generator), or `auto` (the first that can be had).
        rows: of the generated sample.
        quiet: keep standard output for JSON; steps go to standard error.

    Returns:
        The file's story once it has ended.

    Raises:
        DownloadFailed: `tlc` was asked for and cannot be had.
        SetupError, ServiceUnavailable: the stack does not start.
    """

    def say(line: str) -> None:
        print(line, file=sys.stderr) if quiet else render.step(line)

    if not quiet:
        render.heading("1. The servers")
    from ingest.download import published_name

    settings = chosen(load_settings()).up(say)
    contract = _demo_contract(settings)
    if not quiet:
        render.heading("2. The file")
    key = f"{contract.dataset}/{published_name(contract, year, month)}"
    before = _story(settings, key)
    put = _put_month(settings, contract, source, (year, month), rows, key, say)
    if not quiet:
        render.heading("3. Its way")
    known = len(before.timeline) if before is not None and put and before.etag == put else 0
    story = _follow(settings, key, known, quiet)
    if not quiet:
        _show_end(settings, contract, story)
    return story


def _demo_contract(settings: Settings) -> DatasetContract:
    for contract in load_contracts(settings.contracts_dir).values():
        if contract.download is not None:
            return contract
    raise UsageError(f"No contract in {settings.contracts_dir} has a published source; the demo needs one.")


def _story(settings: Settings, key: str) -> FileStory | None:
    from consumers.ledger import open_ledger

    with open_ledger(settings) as ledger:
        return ledger.story("bronze", key)


def _put_month(
    settings: Settings,
    contract: DatasetContract,
    source: str,
    period: tuple[int, int],
    rows: int,
    key: str,
    say: Say,
) -> str:
    """Put the month into bronze; returns the etag when its bytes were put, empty when bronze held them already."""
    from ingest.download import download_month
    from ingest.store import store_for

    store = store_for(settings, "ingest")
    before = store.stat("bronze", key)
    if source in ("auto", "tlc"):
        say(f"asking {settings.tlc_base_url} for {period[0]}-{period[1]:02d} ...")
        try:
            put = download_month(settings, contract, *period, store)
            return "" if before is not None and before.last_modified == put.last_modified else put.etag
        except (DownloadFailed, ServiceUnavailable) as error:
            if source == "tlc":
                raise
            say(f"The TLC's site cannot be used: {error.message}")
            say("So the demo makes a sample of the same shape, with the known dirt.")
    return _put_sample(settings, contract, store, period, rows, key, say)


def _put_sample(
    settings: Settings,
    contract: DatasetContract,
    store: object,
    period: tuple[int, int],
    rows: int,
    key: str,
    say: Say,
) -> str:
    from ingest.drop import drop_file
    from ingest.generator import generate_month

    file = settings.home / "samples" / f"{rows}-{SEED}" / Path(key).name
    if not file.exists():
        say(f"generating {rows:,} trips ...")
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".part")
        generate_month(draft, *period, rows, SEED)
        draft.replace(file)
    say(f"dropping {file.stat().st_size / 1e6:.0f} MB into bronze/{key}")
    return drop_file(store, {contract.dataset: contract}, file, contract.dataset, key).etag  # type: ignore[arg-type]


def _follow(settings: Settings, key: str, known: int, quiet: bool) -> FileStory:
    from consumers.ledger import open_ledger
    from sluice.files import wait_for_end

    with open_ledger(settings) as ledger:

        def look() -> FileStory | None:
            return ledger.story("bronze", key)

        name = f"bronze/{key}"
        if quiet:
            return wait_for_end(look, name, known, WAIT_SECONDS)
        with Live(console=render.console, refresh_per_second=8, transient=False) as live:
            return wait_for_end(
                look, name, known, WAIT_SECONDS, on_change=lambda story: live.update(render.story_view(story))
            )


def _show_end(settings: Settings, contract: DatasetContract, story: FileStory) -> None:
    from sluice.query import run_query

    if story.timeline:
        took = _seconds_to_gold(story)
        if took is not None:
            render.step(f"from the PUT to gold: {took:.1f} s")
    render.heading("4. Gold")
    render.rows(
        *run_query(
            settings,
            f"select {_shown(contract)} from {contract.aggregate.name} order by trips desc limit 5",  # noqa: S608 - the contract's names
        )
    )
    render.rows(
        *run_query(
            settings,
            "select _reason, count(*) as rows from "  # noqa: S608 - the contract's name
            f"{contract.rejects_table} group by all order by rows desc limit 8",
        )
    )
    render.heading("5. Where to look next")
    render.key_values(addresses(settings, contract.dataset))


def _shown(contract: DatasetContract) -> str:
    """The aggregate's columns, shortened so that a row fits a terminal; what references tell is empty in a demo."""
    looked_up = {name for lookup in contract.references for name in lookup.columns}
    shapes = {"double": 'round("{0}", 2)', "timestamp_ntz": "strftime(\"{0}\", '%H:%M')"}
    columns = [
        (column.name, shapes.get(column.type, '"{0}"').format(column.name))
        for column in contract.aggregate.columns
        if column.name not in looked_up
    ]
    return ", ".join(f'{shown} as "{name}"' for name, shown in columns)


def _seconds_to_gold(story: FileStory) -> float | None:
    """Seconds from the newest PUT until the last layer is complete and recorded."""
    puts = [item.at for item in story.timeline if item.hop == "put"]
    ends = [item.at for item in story.timeline if item.hop == "recorded"]
    return (ends[-1] - puts[-1]).total_seconds() if puts and ends and ends[-1] > puts[-1] else None


def addresses(settings: Settings, dataset: str) -> list[tuple[str, str]]:
    """The pages of the stack and their logins."""
    ports = settings.ports
    return [
        ("Airflow UI", f"{settings.airflow_page or settings.airflow_url}  login {settings.airflow_admin_user} / "
                       f"{settings.airflow_admin_password.get_secret_value()}"),
        ("MinIO console", f"{settings.minio_console_url}  login {settings.minio_root_user} / "
                          f"{settings.minio_root_password.get_secret_value()}"),
        *([] if settings.spark_remote is not None else [
            ("Spark master UI", f"http://127.0.0.1:{ports.spark_master_ui}"),
            ("Spark worker UI", f"http://127.0.0.1:{ports.spark_worker_ui}"),
            ("Spark jobs UI", f"http://127.0.0.1:{ports.spark_connect_ui}"),
        ]),
        ("your own file", f"sluice drop FILE --dataset {dataset} --wait"),
        ("stop", "sluice down"),
    ]  # fmt: skip
