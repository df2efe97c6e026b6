"""The command line. It calls the packages and shows what they answer; it decides nothing.

Exit codes: 0 done, 2 wrong usage, 3 not running, 4 the file ended in quarantine, 5 timed out, 1 anything else.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from contracts import errors
from contracts.settings import HOST, Settings, load_settings
from sluice import render
from sluice.stacks import chosen

app = typer.Typer(
    help="Drop a file into the bucket bronze, and it reaches gold by itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

dlq = typer.Typer(
    help="Dead letters: messages that nobody could process. Look at them, send them again, or close them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(dlq, name="dlq")

contract = typer.Typer(
    help="Dataset contracts: check them, begin a new one, or see what a change of one means.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(contract, name="contract")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
QUARANTINED = 4
WRONG = 2

Ids = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", min=0, help="Ids from `sluice dlq list`.")]
OfReason = Annotated[str | None, typer.Option("--reason", help="Only of this reason, for example bad_event.")]
OfTopic = Annotated[str | None, typer.Option("--topic", help="Only messages of this topic.")]
Since = Annotated[datetime | None, typer.Option("--since", help="Only those given up since then (UTC).")]


def exit_code(error: errors.SluiceError) -> int:
    """The exit code that stands for an error."""
    if isinstance(error, errors.UsageError | errors.UnknownDataset | errors.ContractError):
        return 2
    if isinstance(error, errors.NotRunning | errors.ServiceUnavailable):
        return 3
    return 5 if isinstance(error, errors.WaitTimedOut) else 1


@contextmanager
def _told(as_json: bool) -> Iterator[None]:
    """Have the settings of the stack that is meant; turn our errors into one clear line (or JSON) and the exit code."""
    try:
        if os.environ.get("SLUICE_STACK") == "compose":
            from sluice.compose_stack import environment

            os.environ.update(environment())
        yield
    except errors.SluiceError as error:
        if as_json:
            _print_json({"error": type(error).__name__, "message": error.message})
        else:
            render.problem(error.message)
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error
    except BrokenPipeError as error:
        sys.stderr.close()
        raise typer.Exit(0) from error
    except OSError as error:
        message = _refused_by_system(error)
        _print_json({"error": type(error).__name__, "message": message}) if as_json else render.problem(message)
        raise typer.Exit(1) from error


def _refused_by_system(error: OSError) -> str:
    """What the operating system refused, to which file, and what to look at, in one line."""
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    if isinstance(error, ConnectionError | TimeoutError):
        advice = "Look whether every server is up: sluice status"
    else:
        advice = "Check permissions and free space there, and that SLUICE_HOME is right; `sluice doctor` looks at it."
    return render.visible(f"{where}{error.strerror or error}. {advice}")


def _print_json(value: Any, flush: bool = False) -> None:
    print(json.dumps(render.plain(value), ensure_ascii=False, allow_nan=False), flush=flush)


def _say(as_json: bool) -> Any:
    return (lambda line: print(line, file=sys.stderr)) if as_json else render.step


def _running() -> Settings:
    settings = load_settings()
    chosen(settings).require_running(settings)
    return settings


@app.callback()
def choose(
    stack: Annotated[
        Literal["processes", "compose"],
        typer.Option(envvar="SLUICE_STACK", help="Servers as processes of this machine, or in containers."),
    ] = "processes",
) -> None:
    """Drop a file into the bucket bronze, and it reaches gold by itself."""
    os.environ["SLUICE_STACK"] = stack
    # Whoever speaks HTTP reads it and hands it on: health checks, gRPC, Airflow's tasks, Java's S3 client. Some know
    # one spelling only.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = past_proxies(os.environ)
    # A command says once, in a line of its own, that Postgres does not answer.
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


def past_proxies(environment: Mapping[str, str]) -> str:
    """The hosts that no proxy is asked for, as `no_proxy` has them: those that the environment names, and this machine.

    The lower-case spelling comes first, as with curl.
    """
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    if "*" in hosts:
        return given
    return ",".join([*hosts, *(own for own in (HOST, "localhost") if own not in hosts)])


@app.command()
def up(as_json: Json = False) -> None:
    """Start every server and bootstrap it; safe to repeat."""
    with _told(as_json):
        stack = chosen(load_settings())
        settings = stack.up(_say(as_json))
        _show_status(stack.status(settings), as_json)


@app.command()
def down(as_json: Json = False) -> None:
    """Stop every server; the data stays."""
    with _told(as_json):
        chosen(load_settings()).down(_say(as_json))
        _print_json({"running": False}) if as_json else render.step("stopped; nothing is left running")


@app.command()
def status(
    retention: Annotated[bool, typer.Option("--retention", help="Show how long what is kept, instead.")] = False,
    as_json: Json = False,
) -> None:
    """Show every server: whether it does its job, where it is, what it takes."""
    with _told(as_json):
        if retention:
            from sluice.retention import all_kept

            kept = all_kept(_running())
            _print_json([item.model_dump() for item in kept]) if as_json else render.retention(kept)
            return
        settings = load_settings()
        found = chosen(settings).status(settings)
        _show_status(found, as_json)
        if all(service.state == "stopped" for service in found.services):
            raise typer.Exit(3)


def _show_status(found: Any, as_json: bool) -> None:
    _print_json(found.model_dump()) if as_json else render.status(found)


@app.command()
def install(as_json: Json = False) -> None:
    """Obtain the servers: build MinIO, fetch Kafka's and Spark's jars, install Java where it may."""
    with _told(as_json):
        from sluice.install import install_servers
        from sluice.spark_home import make_spark_home

        settings = load_settings()
        install_servers(settings.cache, _say(as_json))
        make_spark_home(settings.cache, _say(as_json))
        _print_json({"cache": str(settings.cache)}) if as_json else render.step(f"servers are in {settings.cache}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check what a start needs: Java, ports, memory, disk; each finding has its remedy."""
    with _told(as_json):
        from dataclasses import asdict

        from sluice import supervisor
        from sluice.doctor import examine

        settings = load_settings()
        findings = examine(settings, stack_is_up=supervisor.running(settings))
        good = all(finding.ok for finding in findings)
        if as_json:
            _print_json({"ok": good, "findings": [asdict(finding) for finding in findings]})
        else:
            render.findings(findings)
        raise typer.Exit(0 if good else 1)


@app.command()
def drop(
    file: Annotated[Path, typer.Argument(help="The file to drop.")],
    dataset: Annotated[str, typer.Option(help="Name of its dataset, for example nyc_yellow.")],
    key: Annotated[
        str | None,
        typer.Option(help="Object key; <dataset>/<file name> by default, of a CSV <dataset>/<name>.parquet."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the file has reached gold, or ended.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 600.0,
    as_json: Json = False,
) -> None:
    """Put a file into bronze, a CSV as parquet. Nothing else starts the work: its arrival does."""
    with _told(as_json):
        from sluice import files

        settings = _running()
        story = files.drop(settings, file, dataset, key, wait_seconds=timeout if wait else None)
        if isinstance(story, dict):
            _print_json(story) if as_json else render.step(f"dropped {story['bucket']}/{story['key']}")
            return
        _print_json(story.model_dump(mode="json")) if as_json else render.story(story)
        raise typer.Exit(QUARANTINED if story.state == "quarantined" else 0)


@app.command()
def why(
    key: Annotated[str | None, typer.Argument(help="bronze/<key>")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List files instead of telling one's story.")] = False,
    state: Annotated[str | None, typer.Option(help="With --list: only this state.")] = None,
    dataset: Annotated[str | None, typer.Option(help="With --list: only this dataset.")] = None,
    since: Annotated[datetime | None, typer.Option(help="With --list: only files seen since then (UTC).")] = None,
    snapshot: Annotated[int | None, typer.Option(help="Tell which files the commit of this snapshot wrote.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="With --snapshot: every file whose rows the table holds at it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what became of a file: every hop with its time, every layer with its rows."""
    with _told(as_json):
        from sluice import files

        if all_ and snapshot is None:
            raise errors.UsageError("--all goes with --snapshot.")
        settings = _running()
        if snapshot is not None and all_:
            held = files.files_in_snapshot(settings, snapshot)
            _print_json([item.model_dump(mode="json") for item in held]) if as_json else render.held(snapshot, held)
            return
        if snapshot is not None:
            sources = files.snapshot_sources(settings, snapshot)
            _print_json([item.model_dump(mode="json") for item in sources]) if as_json else render.sources(sources)
            return
        if list_:
            stories = files.list_stories(settings, state, dataset, since)
            _print_json([item.model_dump(mode="json") for item in stories]) if as_json else render.stories(stories)
            return
        if key is None:
            raise errors.UsageError("Name a file, as bronze/<key>, or use --list or --snapshot.")
        story = files.story(settings, key)
        _print_json(story.model_dump(mode="json")) if as_json else render.story(story)


@app.command()
def replay(
    keys: Annotated[list[str] | None, typer.Argument(help="bronze/<key>; several may be named.")] = None,
    dataset: Annotated[str | None, typer.Option(help="All files of this dataset.")] = None,
    since: Annotated[datetime | None, typer.Option(help="With --dataset: only files put since then (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="With --dataset: only files put before then (UTC).")] = None,
    batch: Annotated[str | None, typer.Option(help="The files of this batch.")] = None,
    depth: Annotated[str, typer.Option(help="How far they go again: silver, or on to gold.")] = "gold",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Run files again with today's code and contract; shows the plan first."""
    with _told(as_json):
        from sluice import replaying

        settings = _running()
        plan = replaying.plan(settings, keys or [], dataset, since, until, batch, depth)
        if not as_json:
            render.replay_plan(plan)
        started = 0 if dry_run else replaying.carry_out(settings, plan)
        if as_json:
            _print_json(render.replay_record(plan, started))
        elif not dry_run:
            render.step(f"started {started} file(s) anew; follow them: sluice why --list")


@app.command()
def backfill(
    dataset: Annotated[str, typer.Argument(help="Name of the dataset, for example nyc_yellow.")],
    months: Annotated[str, typer.Argument(help="First and last month, as 2023-01..2024-12, or one month.")],
    source: Annotated[
        str, typer.Option(metavar="tlc|DIR", help="Where the files come from: published, or a folder here.")
    ] = "tlc",
    parallel: Annotated[int, typer.Option(min=1, max=32, help="Files under way at most.")] = 2,
    as_json: Json = False,
) -> None:
    """Load many months, oldest first. Ctrl-C stops it; the same command again goes on, and skips what is there."""
    with _told(as_json):
        import time

        from sluice import backfilling
        from sluice.progress import Bars, Quiet

        settings, began = _running(), time.monotonic()
        asked = (settings, dataset, months, source, parallel)
        if as_json:
            outcomes = backfilling.backfill(*asked, Quiet())
        else:
            with Bars() as bars:
                outcomes = backfilling.backfill(*asked, bars)
        seconds = time.monotonic() - began
        if as_json:
            _print_json(render.backfill_record(outcomes, seconds))
        else:
            render.backfill_summary(outcomes, seconds)
        raise typer.Exit(backfilling.exit_code(outcomes))


@app.command()
def reconcile(
    full: Annotated[bool, typer.Option("--full", help="Look at the whole bucket, not only at its next piece.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look, and mend nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Find files that no event told of and work that stands still, and set them going again."""
    with _told(as_json):
        from consumers import reconciler
        from ingest.store import store_for
        from spark_jobs.lake import open_lake

        settings = _running()
        lake = open_lake(settings, store_for(settings, "spark"))
        report = reconciler.reconcile(settings, lake.batches_since, full, repair=not dry_run)
        _print_json(report.model_dump(mode="json")) if as_json else render.reconciled(report)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder is made in it.")],
    as_json: Json = False,
) -> None:
    """Write Airflow's database, ledger, catalog, passwords and contracts into a new folder."""
    with _told(as_json):
        from sluice.backup import back_up

        settings = _running()
        made = back_up(chosen(settings), settings, folder, _say(as_json))
        _print_json({"folder": str(made)}) if as_json else render.step(f"the backup is {made}; it holds passwords")


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="What `sluice backup` made.")],
    as_json: Json = False,
) -> None:
    """Put a backup back and start the stack; what came to bronze since then is brought to gold again."""
    with _told(as_json):
        from sluice.backup import restore as put_back

        stack = chosen(load_settings())
        settings = put_back(stack, folder, _say(as_json))
        _show_status(stack.status(settings), as_json)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help='For example: "select count(*) from gold.nyc_yellow_features"')],
    as_json: Json = False,
) -> None:
    """Query silver and gold."""
    with _told(as_json):
        from sluice.query import run_query

        columns, rows = run_query(_running(), query)
        if as_json:
            names = render.distinct(columns)
            _print_json([dict(zip(names, row, strict=True)) for row in rows])
        else:
            render.rows(columns, rows)


@app.command()
def profile(
    key: Annotated[str, typer.Argument(help="bronze/<key>")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page to look at, instead.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a file's rows are like: nulls, bounds, distributions, rejects, drift against the month before."""
    with _told(as_json):
        from sluice import profile_view, profiles

        found = profiles.profile_of(_running(), key)
        if html is not None:
            profiles.write_page(html, profile_view.page(found))
        if as_json:
            _print_json(profile_view.record(found))
        elif html is not None:
            render.step(f"wrote {html}; open it in a browser")
        else:
            profile_view.show(found)


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help="A name from `sluice status`.")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    as_json: Json = False,
) -> None:
    """Show a server's log."""
    with _told(as_json):
        settings = load_settings()
        stack = chosen(settings)
        shown = stack.last_lines(settings, service, lines)
        if as_json:
            _print_json({"service": service, "lines": shown})
            return
        for line in shown:
            print(line)
        if follow:
            for line in stack.follow_lines(settings, service):
                print(line, flush=True)


@app.command()
def topics(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show messages as they come.")] = False,
    topic: Annotated[list[str] | None, typer.Option(help="Only this topic; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Show the Kafka topics and how far each consumer group is behind."""
    with _told(as_json):
        from consumers import broker
        from consumers.topics import PARTITIONS

        settings = _running()
        names = topic or list(PARTITIONS)
        if not set(names) <= set(PARTITIONS):
            raise errors.UsageError(f"No such topic. Topics: {', '.join(PARTITIONS)}.")
        login = settings.kafka_login("operator")
        if not follow:
            found = [item for item in broker.topics_overview(login) if item.topic in names]
            _print_json([item.model_dump(mode="json") for item in found]) if as_json else render.topics(found)
            return
        for message in broker.follow(login, names):
            _print_json(render.record(message), flush=True) if as_json else render.message(message)


@dlq.command("list")
def list_letters(
    reason: OfReason = None,
    topic: OfTopic = None,
    since: Since = None,
    all_: Annotated[bool, typer.Option("--all", help="Redriven and discarded ones too.")] = False,
    as_json: Json = False,
) -> None:
    """List open dead letters, oldest first."""
    with _told(as_json):
        from sluice import letters

        found = letters.listed(_running(), letters.filter_of(reason, topic, since), all_)
        _print_json([render.letter_fields(item) for item in found]) if as_json else render.letters(found)


@dlq.command("show")
def show_letter(
    letter_id: Annotated[int, typer.Argument(metavar="ID", min=0, help="An id from `sluice dlq list`.")],
    as_json: Json = False,
) -> None:
    """Show a dead letter with its message, what became of it, and where it came from."""
    with _told(as_json):
        from sluice import letters

        with letters.open_box(_running()) as box:
            shown = box.show(letter_id)
        _print_json(render.shown_letter(shown)) if as_json else render.letter(shown)


@dlq.command("redrive")
def redrive_letters(
    ids: Ids = None, reason: OfReason = None, topic: OfTopic = None, since: Since = None, as_json: Json = False
) -> None:
    """Send the messages of open dead letters again; they meet the same checks as any other."""
    _settle("redriven", ids, reason, topic, since, as_json)


@dlq.command("discard")
def discard_letters(
    ids: Ids = None, reason: OfReason = None, topic: OfTopic = None, since: Since = None, as_json: Json = False
) -> None:
    """Close open dead letters without sending their messages again."""
    _settle("discarded", ids, reason, topic, since, as_json)


def _settle(
    word: str, ids: list[int] | None, reason: str | None, topic: str | None, since: datetime | None, as_json: bool
) -> None:
    with _told(as_json):
        from sluice import letters

        only = letters.filter_of(reason, topic, since)
        letters.require_choice(ids or (), only)
        with letters.open_box(_running()) as box:
            outcome = (box.redrive if word == "redriven" else box.discard)(ids or (), only)
        if as_json:
            _print_json({word: outcome.done, "left": [{"id": n, "why": why} for n, why in outcome.left.items()]})
        else:
            render.outcome(word, outcome)
        raise typer.Exit(1 if outcome.left else 0)


@contract.command("check")
def check_contracts(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE|DATASET]...", help="All datasets when none is named.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find all that is wrong with contracts, with line and field; exit code 2 where that is anything."""
    with _told(as_json):
        from dataclasses import asdict

        from sluice.contract_check import chosen, problems_of

        paths = chosen(load_settings().contracts_dir, targets or [])
        problems = problems_of(paths, load_settings().contracts_dir)
        if as_json:
            _print_json([asdict(problem) for problem in problems])
        else:
            render.problems(problems, len(paths))
        raise typer.Exit(WRONG if problems else 0)


@contract.command("new")
def new_contract(
    name: Annotated[str, typer.Argument(help="Of the dataset, for example orders.")],
    title: Annotated[str, typer.Option(help="What people call it.")] = "",
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Take columns and types from this parquet file or CSV."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the first contract, transformations and test of a dataset; nothing is overwritten."""
    with _told(as_json):
        from sluice.scaffold import PROJECT, scaffold, write_files

        made = write_files(scaffold(name, title, source), load_settings().contracts_dir, PROJECT)
        if as_json:
            _print_json({"files": [str(path) for path in made]})
        else:
            for path in made:
                render.step(f"wrote {path}")
            render.step(f"next: say in them what the rows are, then `sluice contract check {name}`")
            render.step("how, step by step: docs/adding-a-dataset.md")


@contract.command("diff")
def diff_contracts(
    old: Annotated[Path, typer.Argument(help="The contract file as it was.")],
    new: Annotated[Path, typer.Argument(help="The contract file as it is to be.")],
    as_json: Json = False,
) -> None:
    """Show what a changed contract means for its readers; exit code 1 where it can break them."""
    with _told(as_json):
        from dataclasses import asdict

        from contracts.changes import changes, version_problem
        from sluice.contract_check import read

        before, after = read(old), read(new)
        found = changes(before, after)
        problem = version_problem(before, after, found)
        breaking = any(change.breaking for change in found)
        if as_json:
            listed = [asdict(change) for change in found]
            _print_json({"compatible": not breaking, "changes": listed, "problems": [problem] if problem else []})
        else:
            render.changes(found, problem)
        raise typer.Exit(1 if breaking else WRONG if problem else 0)


@app.command()
def env(as_json: Json = False) -> None:
    """Print shell exports, so that mc, the aws command line and boto3 work: eval "$(sluice env)"."""
    with _told(as_json):
        from sluice.environment import shell_exports, user_environment

        settings = load_settings()
        if not settings.ingest_secret_key.get_secret_value():
            raise errors.NotRunning("This stack has no passwords yet. Start it with: sluice up")
        variables = user_environment(settings)
        _print_json(variables) if as_json else print(shell_exports(variables))


@app.command()
def demo(
    source: Annotated[
        Literal["auto", "tlc", "sample"], typer.Option(help="auto tries the TLC's site, then makes a sample.")
    ] = "auto",
    rows: Annotated[int, typer.Option(min=1, help="Rows of the generated sample.")] = 3_000_000,
    year: int = 2025,
    month: Annotated[int, typer.Option(min=1, max=12)] = 1,
    as_json: Json = False,
) -> None:
    """Start everything, drop a month of yellow-taxi data, and watch it reach gold."""
    with _told(as_json):
        from sluice.demo import run_demo

        story = run_demo(source, rows, year, month, as_json)
        if as_json:
            _print_json(story.model_dump(mode="json"))
        raise typer.Exit(QUARANTINED if story.state == "quarantined" else 0)


def main() -> None:
    """Entry point of the program `sluice`."""
    app()
