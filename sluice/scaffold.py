"""Begins a dataset: a contract, its transformations and their test, which hold together from the start."""

from __future__ import annotations

import io
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import BinaryIO

import yaml

from contracts.errors import UsageError
from contracts.landing import is_csv
from contracts.settings import PROJECT
from contracts.spark_types import parse_type

__all__ = ["PROJECT", "Files", "scaffold", "write_files"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST = 40
# A name as long as this leaves a line of code room for two.
_LONGEST_COLUMN = 32
_TIMES = ("timestamp_ntz", "timestamp", "date")
_CSV_BYTES = 8 * 1024 * 1024
"""Of a CSV that its types are guessed from."""


@dataclass(frozen=True)
class Field:
    """A column that the scaffold begins with."""

    name: str
    type: str
    called: str = ""
    """Its name in the file, where that is another."""
    required: bool = False


@dataclass(frozen=True)
class Files:
    """The texts of a new dataset."""

    name: str
    contract: str
    transforms: str
    test: str


_BEGINNING = (
    Field("id", "bigint", required=True),
    Field("event_time", "timestamp_ntz", required=True),
    Field("amount", "decimal(10,2)"),
)


def scaffold(name: str, title: str = "", source: Path | None = None) -> Files:
    """The files of a new dataset.

    Args:
        name: of the dataset; small letters, digits and `_`.
        source: a parquet file whose columns and types the contract is to have, or a CSV, whose types are guessed from
            its first 8 MiB; three columns to begin with otherwise.

    Raises:
        UsageError: the name cannot be one, or the file is not there, neither of both, or without a usable column.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} cannot be a dataset's name: a small letter, then small letters, digits and _, "
            f"{_LONGEST} at most, and no keyword of Python, for example orders."
        )
    fields, left_out = (_BEGINNING, ()) if source is None else _columns(source)
    time = next((item for item in fields if item.type in _TIMES), None)
    kept_by = time or fields[0]
    # A row without it would be in features, and in no row of the aggregate.
    fields = [replace(item, required=item.required or item == kept_by) for item in fields]
    taken = {item.name for item in fields}
    by, added = kept_by.name, ""
    if time is not None and time.type != "date":
        by = added = _free(f"{re.sub(r'_?(datetime|timestamp|time|at)$', '', time.name) or time.name}_date", taken)
    count = _free("row_count", {by})
    values = {
        "name": name,
        "title": _quoted(title or name.replace("_", " ").capitalize()),
        "by": by,
        "by_yaml": _plain(by),
        "count": count,
        "silver": "\n".join(_silver(item) for item in fields),
        "left_out": "".join(f"\n      # Not taken over: {_quoted(line)}." for line in left_out),
        "rule": _rule(time, fields[0]),
        "features": "\n".join(
            f"      - {{name: {_plain(item)}, physicalType: '{kind}'}}"
            for item, kind in [*((field.name, field.type) for field in fields), *([(added, "date")] if added else [])]
        ),
        "by_type": "date" if added else next(item.type for item in fields if item.name == by),
        "adds": f"with `{added}: date` added" if added else "as it is",
        "feature": f'df.withColumn("{added}", F.to_date("{time.name}"))' if added and time else "df",
        "row": f'{{"{time.name}": "2025-01-15{"" if time.type == "date" else " 17:30:00"}"}}' if time else "{}",
    }
    return Files(name, *(text.substitute(values) for text in (_CONTRACT, _TRANSFORMS, _TEST)))


def write_files(files: Files, contracts: Path, project: Path) -> list[Path]:
    """Write the files of a new dataset: its contract to `contracts`, its code and test into the project.

    Raises:
        UsageError: one of them is there already; nothing was written.
    """
    texts = {
        contracts / f"{files.name}.yaml": files.contract,
        project / "spark_jobs" / "transforms" / f"{files.name}.py": files.transforms,
        project / "tests" / "spark_jobs" / f"test_{files.name}.py": files.test,
    }
    there = [str(path) for path in texts if path.exists()]
    if there:
        raise UsageError(f"{', '.join(there)} is there already, and is not overwritten. Choose another name.")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        # x: whoever was faster keeps the file.
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    return list(texts)


@dataclass(frozen=True)
class _Local:
    """A file as the footer's reader wants it."""

    file: BinaryIO

    def get_range(self, bucket: str, key: str, offset: int, length: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(length)


def _columns(source: Path) -> tuple[Sequence[Field], Sequence[str]]:
    """A file's columns as a contract can have them, and what is said of those that it cannot."""
    from spark_jobs.footers import read_footer

    if not source.is_file():
        raise UsageError(f"There is no file {source}; a parquet file or a CSV was expected after --from.")
    try:
        with io.BytesIO(_beginning(source)) if is_csv(source.name) else source.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            found = read_footer(_Local(file), "", str(source), size).columns
    except ValueError as error:
        raise UsageError(f"{source} is no parquet file that can be read: {error} A CSV is called .csv.") from error
    fields: dict[str, Field] = {}
    left_out = []
    for column in found:
        # A count of nanoseconds is taken for a moment.
        kind = {"nanos": "timestamp_ntz", "nested": column.kind}.get(column.kind, column.type)
        try:
            kind = parse_type(kind or column.kind)
        except ValueError:
            why = "the file has no value of it" if column.kind == "null" else kind or column.kind
            left_out.append(f"{column.name} ({why})")
            continue
        name = _free(_column_name(column.name), set(fields))
        fields[name] = Field(name, kind, "" if name == column.name.casefold() else column.name)
    if not fields:
        raise UsageError(f"{source} has no column that a contract can have: {', '.join(left_out) or 'it has none'}.")
    return list(fields.values()), left_out


def _beginning(source: Path) -> bytes:
    """The first lines of a CSV that parse, as parquet, with the types that their values look like."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    try:
        with pa_csv.open_csv(
            str(source),
            pa_csv.ReadOptions(block_size=_CSV_BYTES),
            pa_csv.ParseOptions(invalid_row_handler=lambda row: "skip"),
        ) as lines:
            first = lines.read_next_batch()
            # A blank around a name is none of it on landing either.
            names = [name.strip() for name in first.schema.names]
    except (pa.ArrowException, OSError, StopIteration, UnicodeDecodeError) as error:
        raise UsageError(f"{source} is no CSV that can be read: {error}. A header and a line were expected.") from error
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_batches([first]).rename_columns(names), sink)
    return sink.getvalue()


def _column_name(name: str) -> str:
    """A file's column in the contract's style: `PULocationID` is `pu_location_id`."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    plain = re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")
    return (plain if plain[:1].isalpha() else f"column_{plain}".strip("_"))[:_LONGEST_COLUMN].strip("_")


def _free(name: str, taken: set[str] | Mapping[str, object]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _quoted(text: str) -> str:
    return str(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))).strip()


def _plain(name: str) -> str:
    """A column's name as YAML reads it back: `no` and `on` alone are no texts."""
    return name if yaml.safe_load(name) == name else _quoted(name)


def _silver(field: Field) -> str:
    lines = [f"      - name: {_plain(field.name)}", f"        physicalType: {field.type}"]
    lines += ["        required: true"] if field.required else []
    lines += [f"        synonyms: [{{synonym: {_quoted(field.called)}}}]"] if field.called else []
    return "\n".join([*lines, "        description: Say what it is."])


def _rule(time: Field | None, first: Field) -> str:
    if time is None:
        return _RULE.substitute(
            code=f"no_{first.name}", condition=f"{first.name} is not null", threshold="", what=f"It has a {first.name}."
        )
    return _RULE.substitute(
        code="year_absurd",
        condition=f"year({time.name}) between $${{first}} and $${{last}}".replace("$$", "$"),
        threshold="\n          - {property: threshold, value: {first: 2000, last: 2100}}",
        what="Beyond these years a clock was wrong.",
    )


_RULE = Template("""\
      - name: $code
        type: custom
        engine: sparkSQL
        implementation: $condition
        severity: warn
        customProperties:$threshold
          - {property: source, value: Say where the rule comes from.}
        description: $what""")

_CONTRACT = Template("""\
# Every key: docs/contracts.md. Check with: sluice contract check $name
apiVersion: v3.1.0
kind: DataContract
id: $name
name: $title
version: 1.0.0
status: draft
team:
  name: data-platform
description:
  purpose: Say what the rows are, and what they are for.
customProperties:
  - {property: path, value: '(?:[^/]+/)*[^/]+\\.parquet'}
  - {property: period, value: '(?P<year>\\d{4})-(?P<month>0[1-9]|1[0-2])'}
  - {property: aggregateBy, value: $by_yaml}
  - {property: onDelete, value: keep}

schema:
  - name: silver
    physicalName: silver.$name
    description: One row a row that passed every rule.
    properties:$left_out
$silver
    quality:
      # A good row fulfils the condition. A row that does not is rejected, or with `warn` kept and counted.
$rule

  - name: features
    physicalName: gold.${name}_features
    description: One row a silver row, with features.
    properties:
$features

  - name: aggregate
    physicalName: gold.${name}_by_$by
    description: One row a $by.
    properties:
      - {name: $by_yaml, physicalType: '$by_type'}
      - {name: $count, physicalType: bigint, description: How many rows it has.}
""")

_TRANSFORMS = Template('''\
"""What is done to the rows of $name. Pure functions: no session, no files."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def clean(df: DataFrame) -> DataFrame:
    """Tidy silver rows; rows and columns stay the same.

    Args:
        df: the silver columns of the contract, with its types.
    """
    return df


def features(df: DataFrame) -> DataFrame:
    """Add the features of each row.

    Args:
        df: silver rows, cleaned and accepted.

    Returns:
        One row each, $adds; all columns are kept.
    """
    return $feature


def aggregate(df: DataFrame) -> DataFrame:
    """How many rows there are of each `$by`.

    Args:
        df: feature rows; for each value of `$by` that is there, all of them.

    Returns:
        One row a value, with `$count: bigint`.
    """
    return df.groupBy("$by").agg(F.count("*").alias("$count"))
''')

_TEST = Template('''\
"""The transformations of $name, on rows that are made here."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession

from contracts.loading import load_contract
from contracts.settings import load_settings
from spark_jobs.transforms import $name as transforms

CONTRACT = load_contract(load_settings().contracts_dir / "$name.yaml")
ROW = $row


def silver(spark: SparkSession, *rows: dict[str, str]) -> DataFrame:
    """Silver rows of values written as text; a column that is left out is null."""
    columns = CONTRACT.silver.columns
    values = [tuple(row.get(column.name) for column in columns) for row in rows]
    text = spark.createDataFrame(values, ", ".join(f"{column.name} string" for column in columns))
    return text.select(*(text[column.name].cast(column.type) for column in columns))


def test_clean_keeps_rows_and_columns(spark: SparkSession) -> None:
    rows = silver(spark, ROW, ROW)
    cleaned = transforms.clean(rows)
    assert (cleaned.dtypes, cleaned.count()) == (rows.dtypes, 2)


def test_features_have_every_column_of_the_contract(spark: SparkSession) -> None:
    types = dict(transforms.features(silver(spark, ROW)).dtypes)
    assert {column.name: types.get(column.name) for column in CONTRACT.features.columns} == {
        column.name: column.type for column in CONTRACT.features.columns
    }


def test_aggregate_counts_the_rows_and_has_the_columns_of_the_contract(spark: SparkSession) -> None:
    counted = transforms.aggregate(transforms.features(silver(spark, ROW, ROW)))
    assert dict(counted.dtypes) == {column.name: column.type for column in CONTRACT.aggregate.columns}
    assert [row["$count"] for row in counted.collect()] == [2]
''')
