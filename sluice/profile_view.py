"""How a file's profile looks, in a terminal and as a page. No I/O but printing."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from contracts.drift import ColumnDrift, Drift, Level
from contracts.profile import ColumnProfile, Profile
from sluice.pictures import BARS, axis, commonest, shares, sketch
from sluice.render import console, visible

if TYPE_CHECKING:
    from sluice.profiles import ProfileFound

_STYLE = {Level.STEADY: "dim", Level.MOVED: "yellow", Level.DRIFTED: "red"}
WIDTH, HEIGHT = 180, 40
"""Of a histogram on the page, pixels."""
_REASON_BAR = 30
"""Characters of the longest bar of the rejects."""
_MOST_SHOWN = 5
"""Values of a text column on the page."""


def record(found: ProfileFound) -> dict[str, Any]:
    """The JSON of `sluice profile`."""
    drift, before = found.drift, found.before
    return {
        "profile": found.profile.model_dump(mode="json"),
        "before": {"key": before.key, "etag": before.etag} if before else None,
        "no_drift": found.no_drift,
        "drift": drift
        and {
            "rows": drift.rows,
            "rejected": drift.rejected,
            "columns": [column._asdict() | {"level": column.level} for column in drift.columns],
        },
    }


def show(found: ProfileFound) -> None:
    """Print a profile."""
    for part in _parts(found):
        console.print(part)


def _parts(found: ProfileFound) -> list[RenderableType]:
    profile, drift = found.profile, found.drift
    parts: list[RenderableType] = [
        Text.assemble((visible(f"{profile.bucket}/{profile.key}"), "bold"), f"  etag {profile.etag}"),
        Text(f"{profile.rows_in:,} rows: {profile.rows_accepted:,} accepted, {profile.rows_rejected:,} rejected"),
    ]
    parts += [Text(line) for line in _reason_lines(profile)]
    parts += [Text(""), _table(profile, {column.name: column for column in drift.columns} if drift else {}), Text("")]
    parts.append(_against(found, drift))
    return parts


def _reason_lines(profile: Profile) -> list[str]:
    most = max(profile.reasons.values(), default=0)
    wide = max(map(len, profile.reasons), default=0)
    ordered = sorted(profile.reasons.items(), key=lambda item: -item[1])
    return [f"  {code:<{wide}}  {'█' * max(1, round(rows / most * _REASON_BAR))} {rows:,}" for code, rows in ordered]


def _table(profile: Profile, drifts: dict[str, ColumnDrift]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title, right in (("COLUMN", False), ("TYPE", False), ("NULLS", True), ("MIN", True), ("MAX", True)):
        table.add_column(title, justify="right" if right else "left", overflow="ellipsis", no_wrap=True)
    table.add_column("DISTRIBUTION", no_wrap=True, overflow="ellipsis")
    table.add_column("DRIFT")
    for column in profile.columns:
        found = drifts.get(column.name)
        table.add_row(
            column.name,
            column.type,
            percent(column.nulls, profile.rows_accepted),
            *(Text(visible(bound or "")) for bound in (column.minimum, column.maximum)),
            Text(visible(sketch(column))),
            Text(_told(found), style=_STYLE[found.level]) if found and found.level else "",
        )
    return table


def _told(found: ColumnDrift) -> str:
    by = "" if found.distance is None else f" {found.distance:.2f}"
    return f"{found.level}{by}" + (f", nulls {found.nulls:+.0%}" if abs(found.nulls) >= 0.005 else "")


def _against(found: ProfileFound, drift: Drift | None) -> Text:
    if drift is None or found.before is None:
        return Text(f"Not held against the month before: {visible(found.no_drift)}.")
    return Text(f"Against {visible(f'{found.before.bucket}/{found.before.key}')}: {summary(drift)}")


def summary(drift: Drift) -> str:
    """A line: rows, rejects, and which columns are far from what they were."""
    rows = "" if drift.rows is None else f"{drift.rows:+.1%} rows, "
    parts = []
    for level in (Level.DRIFTED, Level.MOVED):
        names = [column.name for column in drift.columns if column.level is level]
        parts += [f"{level}: {', '.join(names)}"] if names else []
    return f"{rows}{drift.rejected:+.2%} rejected; {'; '.join(parts) or 'all columns are steady'}"


def percent(part: int, whole: int) -> str:
    """A share, so that a few are told from none."""
    if not part or not whole:
        return ""
    share = part / whole
    return "<0.1 %" if share < 0.001 else f"{share:.1%}".replace("%", " %")


def page(found: ProfileFound) -> str:
    """The page: HTML with nothing from elsewhere in it."""
    profile, drift = found.profile, found.drift
    drifts = {column.name: column for column in drift.columns} if drift else {}
    earlier = {column.name: column for column in found.before.columns} if found.before else {}
    most = max(profile.reasons.values(), default=1)
    return str(
        _template().render(
            profile=profile,
            before=found.before,
            no_drift=found.no_drift,
            drift=drift,
            summary=summary(drift) if drift else "",
            reasons=[
                {"code": code, "rows": rows, "width": 100 * rows / most}
                for code, rows in sorted(profile.reasons.items(), key=lambda item: -item[1])
            ],
            columns=[
                {
                    "column": column,
                    "nulls": percent(column.nulls, profile.rows_accepted),
                    "drift": drifts.get(column.name),
                    "picture": _picture(column, earlier.get(column.name)),
                    "values": commonest(column, _MOST_SHOWN),
                }
                for column in profile.columns
            ],
            width=WIDTH,
            height=HEIGHT,
        )
    )


def _picture(column: ColumnProfile, before: ColumnProfile | None) -> dict[str, Any] | None:
    """Bars, and the line of the month before, in the picture's pixels."""
    both = [column, before] if before and before.quantiles else [column]
    span = axis(*both) if column.quantiles and not column.values else None
    if span is None:
        return None
    heights = [shares(one.quantiles, *span) for one in both]
    most = max(max(found) for found in heights)
    wide = WIDTH / BARS
    tall = [[HEIGHT * share / most for share in found] for found in heights]
    bars = [
        {"x": wide * place, "y": HEIGHT - high, "width": max(1, wide - 1), "height": high}
        for place, high in enumerate(tall[0])
    ]
    steps = [(wide * (place + end), HEIGHT - high) for place, high in enumerate(tall[-1]) for end in (0, 1)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in steps) if len(tall) > 1 else ""
    return {"bars": bars, "line": line, "low": span[0], "high": span[1]}


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("sluice"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("profile.html")
