"""Profiles of a batch's files: one look at their rows in silver, by DuckDB.

Not by Spark: that is the stages'. DuckDB reads the same data files in the task's own process, which gives way to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from contracts.dataset import Column, DatasetContract
from contracts.errors import NotRunning, ServiceUnavailable
from contracts.markers import CommitMarker, SourceResult, marker_key, parse_marker
from contracts.profile import MOST_VALUES, STEPS, ColumnProfile, Profile, profile_key
from contracts.settings import Settings
from ingest.store import Store
from spark_jobs.duck import Duck
from spark_jobs.lake import SOURCE_KEY, Lake, LakeTable, source_id

SAMPLE = 200_000
"""Rows of a file, about, that tell its quantiles and values; of so many a share is a third of a percent off."""
FILES_AT_ONCE = 200
"""A row of the answer holds what there is to say of all columns of a file."""
SAMPLED_AT_ONCE = 1_000_000
"""Sampled rows of a query: DuckDB holds each of their numbers, 8 bytes, until it has the quantiles."""
MARKER_BYTES = 64 * 1024**2
MEMORY = "1GB"
_NUMBERS = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal")
_WHOLE = ("tinyint", "smallint", "int", "bigint")
_VALUES = ("string", "boolean", *_WHOLE)
_NESTED = ("array", "map", "struct", "binary")


def run(settings: Settings, lake: Lake, store: Store, contract: DatasetContract, batch_id: str) -> list[Profile]:
    """Make and keep the profiles of the files that a batch brought into silver; none where it committed nothing.

    Raises:
        ServiceUnavailable: try again; the same profiles are written once more.
        ObjectGone: the batch has no commit marker (yet), or a later commit's upkeep removed a data file; try again.
    """
    table = lake.table(contract.silver.name)
    commit = table.commit_of(batch_id) if table else None
    if table is None or commit is None:
        return []
    key = marker_key(contract.silver.name, commit.snapshot_id, batch_id)
    marker = parse_marker(store.get_bytes("silver", key, MARKER_BYTES))
    profiles = list(_profiles(settings, table, contract, marker, commit.snapshot_id))
    for profile in profiles:
        place = profile_key(contract.dataset, source_id(profile.key), profile.etag)
        store.put_bytes("silver", place, profile.model_dump_json().encode(), "application/json")
    return profiles


def _profiles(
    settings: Settings, table: LakeTable, contract: DatasetContract, marker: CommitMarker, snapshot_id: int
) -> Iterator[Profile]:
    taken = [source for source in marker.sources if source.refused is None and not source.deleted]
    for sources in portions(taken):
        found = _look(settings, table, contract, sources, snapshot_id)
        for source in sources:
            yield Profile(
                bucket=source.bucket,
                key=source.key,
                etag=source.etag,
                dataset=contract.dataset,
                snapshot_id=snapshot_id,
                made_at=datetime.now(UTC),
                rows_in=source.rows_in,
                rows_accepted=source.rows_accepted,
                rows_rejected=source.rows_rejected,
                reasons=source.reasons,
                columns=found.get(source.key, ()),
            )


def portions(sources: Sequence[SourceResult]) -> Iterator[list[SourceResult]]:
    """The files in their order, as many at once as one query has the memory for, but one at least."""
    portion: list[SourceResult] = []
    sampled = 0
    for source in sources:
        rows = min(source.rows_accepted, SAMPLE)
        if portion and (len(portion) == FILES_AT_ONCE or sampled + rows > SAMPLED_AT_ONCE):
            yield portion
            portion, sampled = [], 0
        portion.append(source)
        sampled += rows
    if portion:
        yield portion


def _look(
    settings: Settings,
    table: LakeTable,
    contract: DatasetContract,
    sources: Sequence[SourceResult],
    snapshot_id: int,
) -> dict[str, tuple[ColumnProfile, ...]]:
    """Key to what the columns of a file's rows hold, by one query; files without rows are left out."""
    columns = contract.silver.columns
    # A share of each file's own: by one for all, a small file beside a large one would be told of by a row or none.
    shares = {source.key: min(1.0, SAMPLE / source.rows_accepted) for source in sources if source.rows_accepted}
    if not shares:
        return {}
    asked = [f"{told} as {what}_{place}" for place, one in enumerate(columns) for what, told in _asked_of(one).items()]
    try:
        with Duck(settings, ["httpfs"]) as duck:
            duck.run(f"set threads = 1; set memory_limit = '{MEMORY}'; set preserve_insertion_order = false")
            duck.run("select setseed(0)")  # a task that is tried again takes the same rows
            duck.table("wanted", {"key": list(shares), "share": list(shares.values())})
            duck.view("rows_of_files", table.paths_of(snapshot_id, list(shares)))
            # Names of columns are the contract's; keys and values of files are in no statement.
            names, found = duck.run(
                f"select {SOURCE_KEY}, count(*) as rows, {', '.join(asked)} "  # noqa: S608
                f"from (select rows_of_files.*, random() < wanted.share as _sampled from rows_of_files "
                f"join wanted on {SOURCE_KEY} = wanted.key) group by {SOURCE_KEY}"
            )
    except NotRunning as error:
        raise ServiceUnavailable(f"Data files of {contract.silver.name} could not be read. {error.message}") from error
    rows = [dict(zip(names, row, strict=True)) for row in found]
    return {
        row[SOURCE_KEY]: tuple(_profile_of(column, row, place) for place, column in enumerate(columns)) for row in rows
    }


def _asked_of(column: Column) -> dict[str, str]:
    """What to ask of a column: a name to an aggregate in DuckDB's SQL."""
    values = f'"{column.name}"'
    asked = {"there": f"count({values})"}
    if not column.type.startswith(_NESTED):
        asked |= {"minimum": f"min({values})::varchar", "maximum": f"max({values})::varchar"}
    if column.type.startswith(_NUMBERS):
        steps = [step / STEPS for step in range(STEPS + 1)]
        # NaN and infinities have no place on an axis, and JSON has no number for them.
        asked["quantiles"] = (
            f"quantile_disc({values}::double, {steps}) filter (_sampled and isfinite({values}::double))"
        )
    if column.type.startswith(_VALUES):
        counts = f"map_entries(histogram({values}::varchar) filter (_sampled))"
        ordered = f"list_sort(list_transform({counts}, lambda one: {{'n': one.value, 'v': one.key}}), 'DESC')"
        asked["values"] = f"{ordered}[:{MOST_VALUES + 1}]"
        asked["counted"] = f"count({values}) filter (_sampled)"
    return asked


def _profile_of(column: Column, row: dict[str, Any], place: int) -> ColumnProfile:
    told = {name.rpartition("_")[0]: value for name, value in row.items() if name.endswith(f"_{place}")}
    counts = {one["v"]: one["n"] for one in told.get("values") or ()}
    # Whole numbers of more values are no codes.
    codes = len(counts) <= MOST_VALUES or not column.type.startswith(_WHOLE)
    return ColumnProfile(
        name=column.name,
        type=column.type,
        unit=column.unit,
        nulls=row["rows"] - told["there"],
        minimum=told.get("minimum"),
        maximum=told.get("maximum"),
        quantiles=tuple(told.get("quantiles") or ()),
        values=dict(list(counts.items())[:MOST_VALUES]) if codes else {},
        counted=told.get("counted", 0) if codes else 0,
    )
