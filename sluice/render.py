"""How answers look in a terminal. No I/O but printing."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from contracts.events import utc_millis
from contracts.markers import MAX_NAMES
from contracts.states import FileState, Layer
from contracts.story import CommitSource, FileStory, LayerResult

if TYPE_CHECKING:
    from consumers.reconciler import Report
    from consumers.replay import ReplayPlan
    from contracts.changes import Change
    from contracts.loading import Problem
    from sluice.backfilling import Outcome
    from sluice.retention import Kept

# A file or a pipe has no width; the 80 columns that Rich takes then would break names and passwords.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
console = Console(highlight=False, width=_WIDTH)
_errors = Console(stderr=True, highlight=False)
_STYLE = {
    "running": "green", "starting": "yellow", "unhealthy": "red", "failed": "red", "stopped": "dim",
    FileState.DONE: "green", FileState.RECEIVED: "yellow", FileState.QUARANTINED: "red", FileState.IGNORED: "dim",
}  # fmt: skip
PLANNED = 20
"""Files that a plan names."""
MOST_TOLD = 12
"""Reason codes that a story names, those of most rows, and columns."""
MOST_ROWS = 200
"""A terminal's worth; `--json` gives all of them."""
_SHORT = 100
"""Characters of a dead letter's detail in a list."""
_MOST_OF_VALUE = 4_000
"""Characters of a message on a terminal."""


def plain(value: Any) -> Any:
    """A value as JSON has it, with all that is in it: numbers stay numbers, moments become ISO 8601.

    JSON has no NaN and no infinity, which become null, and no keys but text.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float | Decimal):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, Mapping):
        return {_plain_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _plain_key(key: Any) -> str:
    told = str(key) if isinstance(key, float) else plain(key)
    return told if isinstance(told, str) else json.dumps(told, ensure_ascii=False, allow_nan=False)


def distinct(names: Sequence[str]) -> list[str]:
    """Names of columns, each once: the second `a` becomes `a_1`, the third `a_2`, or the next that no column has."""
    taken, given = set(names), list[str]()
    for place, name in enumerate(names):
        if name in names[:place]:
            name = next(other for number in itertools.count(1) if (other := f"{name}_{number}") not in taken)
            taken.add(name)
        given.append(name)
    return given


def step(line: str) -> None:
    """One step of a longer command."""
    console.print(Text.assemble(("  ", ""), (line, "")))


def heading(line: str) -> None:
    """The title of a part."""
    console.print()
    console.print(Text(line, style="bold"))


def problem(message: str) -> None:
    """An error, on standard error."""
    _errors.print(Text(message, style="red"), soft_wrap=True)


def problems(found: Sequence[Problem], files: int) -> None:
    """What `sluice contract check` found, a line each; a line that an editor can follow stays whole."""
    for item in found:
        console.print(Text(str(item)), soft_wrap=True)
    step(f"{files} contract(s) checked, {len(found) or 'no'} problem(s)")


def changes(found: Sequence[Change], problem: str) -> None:
    """What `sluice contract diff` found, breaking changes first."""
    for item in sorted(found, key=lambda change: not change.breaking):
        word = Text("breaking  ", style="red") if item.breaking else Text("compatible", style="green")
        console.print(Text.assemble(("  ", ""), word, f" {item.kind} {item.where}: {item.why}"), soft_wrap=True)
    if not found:
        step("nothing that matters to a reader has changed")
    if problem:
        console.print(Text.assemble(("  ", ""), ("problem   ", "red"), f" {problem}"), soft_wrap=True)


def retention(kept: Sequence[Kept]) -> None:
    """The table of `sluice status --retention`."""
    table = Table(box=None, pad_edge=False)
    for title in ("WHAT", "WHERE", "HOW LONG", "SET BY"):
        table.add_column(title, overflow="fold")
    for item in kept:
        table.add_row(item.what, item.where, item.how_long, item.set_by)
    console.print(table)


def status(found: Any) -> None:
    """The table of `sluice status`."""
    table = Table(box=None, pad_edge=False)
    for title, justify in (
        ("SERVICE", "left"),
        ("STATE", "left"),
        ("PID", "right"),
        ("MEMORY", "right"),
        ("URL", "left"),
    ):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for item in found.services:
        table.add_row(
            item.name, Text(item.state, style=_STYLE.get(item.state, "")), str(item.pid or ""),
            f"{item.memory_mb} MB" if item.memory_mb else "", item.url or "",
        )  # fmt: skip
    console.print(table)
    total = sum(item.memory_mb for item in found.services)
    word = Text("ready", style="green") if found.ready else Text("not ready", style="red")
    console.print(Text.assemble(word, f", {total / 1024:.1f} GB in use" if total else ""))


def findings(items: Iterable[Any]) -> None:
    """The lines of `sluice doctor`."""
    for item in items:
        mark = Text("ok   ", style="green") if item.ok else Text("fail ", style="red")
        line = f"{item.check}: {item.found}"
        console.print(Text.assemble(mark, line if item.ok else f"{line}. {item.remedy}"), soft_wrap=True)


def story_view(story: FileStory) -> RenderableType:
    """A file's story on one screen."""
    parts: list[RenderableType] = [
        Text.assemble(
            (f"{story.bucket}/{story.key}", "bold"), f"  {story.size:,} bytes, etag {story.etag}, dataset ",
            story.dataset or "none",
        ),
        Text.assemble("state ", (story.state, _STYLE.get(story.state, ""))),
    ]  # fmt: skip
    if story.reason is not None:
        parts.append(Text.assemble("reason ", (story.reason, "bold"), f": {story.detail or ''}"))
        parts.append(Text(f"what to do: {story.reason.advice}"))
    elif story.detail:
        parts.append(Text(story.detail))
    parts += [Text(""), _timeline(story)]
    if story.layers:
        parts += [Text(""), _layers(story)]
        parts += [line for layer in story.layers for line in _told_of(layer)]
        parts += [Text(""), *map(_run, story.layers)]
    return Group(*parts)


def story(story: FileStory) -> None:
    """Print a file's story."""
    console.print(story_view(story))


def backfilled(outcome: Outcome) -> None:
    """One file of a backfill that ended, or never began."""
    name = outcome.key or _month(outcome)
    state = Text(f"{outcome.state:<11}", style=_STYLE.get(outcome.state, "red"))
    told = outcome.detail if outcome.state != FileState.DONE else "" if outcome.put else "was there already"
    rows = f"{outcome.silver.rows_in:,} rows, {outcome.silver.rows_rejected:,} rejected" if outcome.silver else ""
    console.print(
        Text.assemble("  ", state, f" {visible(name)}  ", "  ".join(filter(None, (rows, told)))), soft_wrap=True
    )


def _month(outcome: Outcome) -> str:
    return f"{outcome.month.year}-{outcome.month.month:02d}"


def backfill_record(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """The JSON of `sluice backfill`."""
    silver = [outcome.silver for outcome in outcomes if outcome.silver is not None]
    reasons: Counter[str] = Counter()
    for layer in silver:
        reasons.update(layer.reasons)
    return {
        "seconds": round(seconds, 1),
        "states": dict(Counter(outcome.state for outcome in outcomes)),
        "put": sum(outcome.put for outcome in outcomes),
        "rows_in": sum(layer.rows_in for layer in silver),
        "rows_accepted": sum(layer.rows_accepted for layer in silver),
        "rows_rejected": sum(layer.rows_rejected for layer in silver),
        "reasons": dict(reasons.most_common()),
        "files": [
            {
                "month": _month(outcome),
                "key": outcome.key,
                "state": outcome.state,
                "put": outcome.put,
                "rows_in": outcome.silver.rows_in if outcome.silver else None,
                "rows_rejected": outcome.silver.rows_rejected if outcome.silver else None,
                "detail": outcome.detail,
            }
            for outcome in outcomes
        ],
    }


def backfill_summary(outcomes: Sequence[Outcome], seconds: float) -> None:
    """What a backfill came to."""
    record = backfill_record(outcomes, seconds)
    for outcome in outcomes:
        if not outcome.key:
            backfilled(outcome)
    states = ", ".join(f"{count:,} {state}" for state, count in record["states"].items()) or "nothing to do"
    there = sum(outcome.state == FileState.DONE and not outcome.put for outcome in outcomes)
    step(f"{states}; {record['put']:,} were put, {there:,} were there already; {seconds:,.0f} s")
    step(f"{record['rows_in']:,} rows: {record['rows_accepted']:,} in silver, {record['rows_rejected']:,} rejected")
    if record["reasons"]:
        console.print(_listing("  rejected: ", _counts(dict(list(record["reasons"].items())[:MOST_TOLD])), ""))


def _timeline(story: FileStory) -> Table:
    table = Table(box=None, pad_edge=False)
    for title, justify in (
        ("HOP", "left"),
        ("LAYER", "left"),
        ("AT (UTC)", "left"),
        ("AFTER", "right"),
        ("WHAT", "left"),
    ):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    start = story.timeline[0].at if story.timeline else None
    for passage in story.timeline:
        after = f"{(passage.at - start).total_seconds():.2f} s" if start else ""
        at = passage.at.strftime("%H:%M:%S.") + f"{passage.at.microsecond // 1000:03d}"
        table.add_row(passage.hop, passage.layer or "", at, after, passage.detail or passage.run_id or "")
    return table


def _layers(story: FileStory) -> Table:
    table = Table(box=None, pad_edge=False)
    for title, justify in (
        ("LAYER", "left"), ("TABLE", "left"), ("ROWS IN", "right"), ("ACCEPTED", "right"), ("REJECTED", "right"),
    ):  # fmt: skip
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for layer in story.layers:
        table.add_row(
            layer.layer, layer.table, f"{layer.rows_in:,}", f"{layer.rows_accepted:,}", f"{layer.rows_rejected:,}"
        )  # fmt: skip
    return table


def _told_of(layer: LayerResult) -> list[Text]:
    """Why rows of a file were rejected or warned of, and which columns were kept aside; nothing where nothing was."""
    told = [
        ("rejected: ", _counts(layer.reasons), ""),
        ("warned: ", _counts(layer.warnings), ""),
        _names("kept in _rescued: columns ", layer.rescued),
        _names("left in the file, of types unknown to Spark: columns ", layer.left_out),
    ]
    return [_listing(label, items, or_) for label, items, or_ in told if items]


def _names(label: str, names: Sequence[str]) -> tuple[str, list[str], str]:
    return label, list(map(visible, names)), "or " * (len(names) == MAX_NAMES)


def _counts(counts: Mapping[str, int]) -> list[str]:
    return [f"{rows:,} {visible(code)}" for code, rows in counts.items()]


def _listing(label: str, items: Sequence[str], or_: str) -> Text:
    """Items behind a label, broken between them only, so that a number stays with its word."""
    left = len(items) - MOST_TOLD
    shown = [*items[:MOST_TOLD], *([f"… {left} {or_}more"] if left > 0 else [])]
    lines = [label + shown[0]]
    for item in shown[1:]:
        if cell_len(lines[-1]) + cell_len(item) + len(", ,") > console.width:
            lines[-1] += ","
            lines.append(f"  {item}")
        else:
            lines[-1] += f", {item}"
    return Text("\n".join(lines))


def _run(layer: LayerResult) -> Text:
    # Below the table, since a run's id names its file and would leave the columns no room.
    run = f"{layer.dag_id or ''} {layer.run_id or ''}".strip() or "by hand"
    commit = f", snapshot {layer.snapshot_id}" if layer.snapshot_id else ""
    return Text.assemble((f"{layer.layer} run  ", "dim"), run, commit, overflow="fold")


def stories(items: Sequence[FileStory]) -> None:
    """The list of `sluice why --list`."""
    table = Table(box=None, pad_edge=False)
    for title in ("STATE", "FILE", "DATASET", "REASON", "LAST HOP (UTC)"):
        table.add_column(title, overflow="fold")
    for item in items:
        last = item.timeline[-1].at.strftime("%Y-%m-%d %H:%M:%S") if item.timeline else ""
        table.add_row(
            Text(item.state, style=_STYLE.get(item.state, "")), f"{item.bucket}/{item.key}", item.dataset or "",
            item.reason or "", last,
        )  # fmt: skip
    console.print(table if items else "no file matches")


def sources(items: Sequence[CommitSource]) -> None:
    """The files of `sluice why --snapshot`."""
    first = items[0]
    console.print(Text.assemble((f"{first.table_name} snapshot {first.snapshot_id}", "bold")))
    console.print(Text(f"batch {first.batch_id}, run {first.run_id or 'by hand'}", style="dim"), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for title, justify in (("ROWS IN", "right"), ("ACCEPTED", "right"), ("REJECTED", "right"), ("FILE", "left")):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for item in items[:MOST_ROWS]:
        counts = (f"{item.rows_in:,}", f"{item.rows_accepted:,}", f"{item.rows_rejected:,}")
        table.add_row(*counts, Text(f"{item.bucket}/{item.key}"))
    console.print(table)
    if len(items) > MOST_ROWS:
        console.print(f"... {len(items) - MOST_ROWS:,} more files; --json prints all")


def held(snapshot_id: int, items: Sequence[CommitSource]) -> None:
    """The files of `sluice why --snapshot --all`."""
    table_name = f"{items[0].table_name} at " if items else ""
    rows = sum(item.rows_accepted for item in items)
    console.print(Text(f"{table_name}snapshot {snapshot_id}", style="bold"))
    console.print(Text(f"{rows:,} rows of {len(items):,} file(s)", style="dim"))
    table = Table(box=None, pad_edge=False)
    for title, justify in (("ROWS", "right"), ("WRITTEN BY SNAPSHOT", "right"), ("FILE", "left")):
        table.add_column(title, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for item in items[:MOST_ROWS]:
        table.add_row(f"{item.rows_accepted:,}", str(item.snapshot_id), Text(f"{item.bucket}/{item.key}"))
    if items:
        console.print(table)
    if len(items) > MOST_ROWS:
        console.print(f"... {len(items) - MOST_ROWS:,} more files; --json prints all")


def replay_plan(plan: ReplayPlan) -> None:
    """What a replay will do."""
    way = "silver" if plan.depth == Layer.SILVER else "silver and gold"
    files = f"{len(plan.work):,} file(s), {plan.size:,} bytes"
    console.print(Text.assemble((f"{files} to {way}", "bold"), f", in {plan.batches} batch(es) or a few more"))
    for work in plan.work[:PLANNED]:
        console.print(Text(f"  {work.item.uri}"), soft_wrap=True)
    if len(plan.work) > PLANNED:
        console.print(f"  ... and {len(plan.work) - PLANNED:,} more")
    for passed in plan.passed[:PLANNED]:
        console.print(Text.assemble(("  not ", "yellow"), f"{passed.uri}: {passed.why}"), soft_wrap=True)
    if len(plan.passed) > PLANNED:
        console.print(f"  ... and {len(plan.passed) - PLANNED:,} more that are not")


def replay_record(plan: ReplayPlan, started: int) -> dict[str, Any]:
    """A replay as JSON has it."""
    return {
        "depth": plan.depth, "batches": plan.batches, "bytes": plan.size, "started": started,
        "files": [{"dataset": w.dataset, "key": w.item.uri, "etag": w.item.etag} for w in plan.work],
        "passed": [{"key": passed.uri, "why": passed.why} for passed in plan.passed],
    }  # fmt: skip


def letter_fields(item: Any) -> dict[str, Any]:
    """A dead letter as JSON has it, without its message."""
    letter = item.letter
    return {
        "id": item.id, "state": item.state, "settled_at": utc_millis(item.settled.at) if item.settled else None,
        "at": utc_millis(letter.at), "reason": letter.reason, "detail": letter.detail, "source": letter.place,
        "topic": letter.topic, "partition": letter.partition, "offset": letter.offset, "key": letter.key,
        "attempt": letter.attempt, "redriven_from": letter.redriven_from,
    }  # fmt: skip


def shown_letter(shown: Any) -> dict[str, Any]:
    """A dead letter with its message and chain, as JSON has it."""
    content = shown.filed.letter.content
    return {
        **letter_fields(shown.filed), "redriven_to": list(shown.redriven_to),
        "value": None if content is None else content.decode("utf-8", errors="backslashreplace"),
        "value_cut": shown.filed.letter.value_cut,
    }  # fmt: skip


def letters(items: Sequence[Any]) -> None:
    """The list of `sluice dlq list`."""
    table = Table(box=None, pad_edge=False)
    for title in ("ID", "STATE", "AT (UTC)", "REASON"):
        table.add_column(title, overflow="fold")
    # One column: its parts are long, and side by side none of them had room on 80 columns.
    table.add_column("SOURCE, KEY, WHAT IS WRONG", overflow="fold")
    for item in items:
        letter = item.letter
        what = letter.detail if len(letter.detail) <= _SHORT else letter.detail[:_SHORT] + "…"
        message = "\n".join(visible(part) for part in (letter.place, letter.key, what) if part)
        at = letter.at.strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(str(item.id), Text(item.state), at, Text(visible(letter.reason)), Text(message))
    console.print(table if items else "no dead letter matches")


def letter(shown: Any) -> None:
    """What `sluice dlq show` says."""
    fields = shown_letter(shown)
    value = fields.pop("value")
    lines = [
        (name.replace("_", " "), visible(", ".join(map(str, told)) if isinstance(told, list) else str(told)))
        for name, told in fields.items()
        if told not in (None, [], False) and name not in ("topic", "partition", "offset")
    ]
    key_values(lines)
    console.print()
    if value is None:
        console.print("the message has no value")
        return
    console.print(Text(visible(value[:_MOST_OF_VALUE], lines=True)), soft_wrap=True)
    if len(value) > _MOST_OF_VALUE or fields["value_cut"]:
        console.print(f"… cut; --json prints {'the first 64 KiB' if fields['value_cut'] else 'all of it'}")


def outcome(word: str, done: Any) -> None:
    """What `sluice dlq redrive` and `discard` did."""
    step(f"{word} {len(done.done)}: {', '.join(map(str, done.done))}" if done.done else f"{word} none")
    for letter_id, why in done.left.items():
        step(visible(f"left {letter_id}: {why}"))


def visible(text: str, lines: bool = False) -> str:
    """Text that others wrote, with nothing in it that a terminal would obey; `lines`: several lines stay so."""
    return "".join(c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape").decode() for c in text)


def reconciled(report: Report) -> None:
    """What a pass of reconcile found."""
    piece = "the whole bucket" if report.full else "a piece of the bucket"
    console.print(f"{report.objects:,} object(s) looked at, {piece}")
    for kind, count in report.found.items():
        if count:
            console.print(Text.assemble((f"{count:>8,} ", "yellow"), kind.replace("_", " ")))
    for kind, what in report.named[:PLANNED]:
        console.print(Text(f"  {kind}: {what}"), soft_wrap=True)
    for dag, files in report.waiting.items():
        console.print(Text(f"  {files:,} file(s) wait for {dag}, which is paused; unpause it in Airflow"))
    if not any(report.found.values()):
        console.print("bucket, ledger and runs agree")
    elif not report.repaired:
        console.print("nothing was mended; without --dry-run it is")


def rows(columns: Sequence[str], values: Sequence[Sequence[Any]]) -> None:
    """A query's answer."""
    table = Table(box=None, pad_edge=False)
    shown = [["" if value is None else str(value) for value in row] for row in values[:MOST_ROWS]]
    widths = [max(map(len, column)) for column in zip(columns, *shown, strict=True)]
    narrow = sum(widths) + len(columns) > console.width
    for index, name in enumerate(columns):
        number = bool(values) and isinstance(values[0][index], int | float | Decimal)
        # Headings are mostly longer than what is below them; they break between their words first.
        title = re.sub(r"(?<=[^_])_", "_\n", name) if narrow else name
        table.add_column(Text(title), justify="right" if number else "left", overflow="fold")
    for row in shown:
        table.add_row(*map(Text, row))
    console.print(table)
    if len(values) > MOST_ROWS:
        console.print(f"... {len(values) - MOST_ROWS:,} more rows; --json prints all")


def topics(items: Iterable[Any]) -> None:
    """The table of `sluice topics`."""
    table = Table(box=None, pad_edge=False)
    for title, justify in (
        ("TOPIC", "left"), ("PARTITIONS", "right"), ("MESSAGES", "right"), ("GROUP", "left"), ("LAG", "right"),
    ):  # fmt: skip
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for item in items:
        groups = list(item.lag.items()) or [("", "")]
        for index, (group, lag) in enumerate(groups):
            first = (item.topic, str(item.partitions), f"{item.messages:,}") if index == 0 else ("", "", "")
            table.add_row(*first, group, str(lag))
    console.print(table)


def record(item: Any) -> dict[str, Any]:
    """A Kafka message as JSON has it; its value is an object where it is JSON itself."""
    value = (item.value or b"").decode("utf-8", errors="replace")
    try:
        decoded: Any = json.loads(value)
    except ValueError:
        decoded = value
    return {
        "topic": item.topic, "partition": item.partition, "offset": item.offset, "at": utc_millis(item.at),
        "key": (item.key or b"").decode("utf-8", errors="replace"), "value": decoded,
    }  # fmt: skip


def message(item: Any) -> None:
    """One Kafka message of `sluice topics --follow`."""
    shown = record(item)
    console.print(
        Text.assemble(
            (item.place, "cyan"), f" {shown['at']} ", (shown["key"], "bold"), " ",
            (item.value or b"").decode("utf-8", errors="replace"),
        ),
        soft_wrap=True,
    )  # fmt: skip


def key_values(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, aligned; no line is broken, so that a password can be copied whole."""
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        console.print(Text.assemble((name.ljust(width), "dim"), "  ", value), soft_wrap=True)
