"""Decision: which column of a file stands for which column of a contract. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contracts.dataset import Column
from contracts.states import Reason
from spark_jobs.footers import FileColumn

_NUMERIC = frozenset({"tinyint", "smallint", "int", "bigint", "float", "double", "decimal"})
_TIMES = frozenset({"date", "timestamp", "timestamp_ntz", "nanos"})


UNPARSED = "_unparsed"
"""See `ingest.csv_files`."""


@dataclass(frozen=True)
class Refusal:
    """Why a file as a whole does not get in."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class Layout:
    """The columns of a file as its scan needs them. Files of one layout are read together."""

    columns: tuple[FileColumn, ...]
    """Those that Spark can read, in the file's order."""
    sources: tuple[tuple[str, int], ...]
    """Contract column to the index in `columns` that stands for it; columns that the file lacks are left out."""
    unreadable: tuple[str, ...] = ()
    """Names of columns with values of types that Spark does not know; no contract column is among them."""
    empty: tuple[str, ...] = ()
    """Contract columns which the file may not lack, and has without a type: each of their values is null."""

    @property
    def extras(self) -> tuple[FileColumn, ...]:
        """Those that no contract column names."""
        named = {index for _, index in self.sources}
        return tuple(
            column for index, column in enumerate(self.columns) if index not in named and column.name != UNPARSED
        )

    @property
    def unparsed(self) -> FileColumn | None:
        """The column that holds the text of lines which did not parse when a CSV landed."""
        return next((column for column in self.columns if (column.name, column.type) == (UNPARSED, "string")), None)

    @property
    def ddl(self) -> str:
        """The schema that Spark is to read the files with."""
        return ", ".join(f"{quoted(column.name)} {column.type}" for column in self.columns)

    def source_of(self, name: str) -> FileColumn | None:
        """The file's column for a contract column."""
        index = dict(self.sources).get(name)
        return None if index is None else self.columns[index]


def match_columns(columns: Sequence[Column], found: Sequence[FileColumn], strict: bool = False) -> Layout | Refusal:
    """Find each contract column in a file, by its name, a synonym or an earlier name, and whatever the case.

    Derived columns are not looked for. A column may be lacking where the contract says so: always, or only where the
    file has certain others.

    Args:
        strict: a column of the file that no contract column names refuses the file.
    """
    if not found:
        return Refusal(Reason.NO_COLUMNS, "The file is valid parquet with 0 columns.")
    names = Counter(column.name.casefold() for column in found)
    repeated = sorted({column.name for column in found if names[column.name.casefold()] > 1})
    if repeated:
        return Refusal(Reason.DUPLICATE_COLUMNS, f"Column names that differ by case at most: {', '.join(repeated)}.")
    readable = tuple(column for column in found if column.type is not None)
    by_name = {column.name.casefold(): column for column in found}
    sought = [column for column in columns if not column.derived]
    hits = {column.name: [by_name[name] for name in column.source_names if name in by_name] for column in sought}
    missing, twice, wrong, sources, empty = [], [], [], [], []
    for column in sought:
        there = hits[column.name]
        if not there:
            missing += [] if _may_lack(column, hits) else [_named(column)]
        elif len(there) > 1:
            twice.append(f"{column.name} is there as {' and as '.join(hit.name for hit in there)}")
        elif there[0].kind == "null":
            empty += [] if _may_lack(column, hits) else [column.name]
        elif not castable(there[0], column.type):
            wrong.append(f"{there[0].name} is {_told(there[0])}, {column.type} was expected")
        else:
            sources.append((column.name, readable.index(there[0])))
    if missing:
        present = ", ".join(sorted(column.name for column in found)) or "none"
        return Refusal(Reason.MISSING_COLUMNS, f"Missing: {', '.join(missing)}. Present: {present}.")
    if twice:
        return Refusal(Reason.DUPLICATE_COLUMNS, f"{'; '.join(twice)}.")
    if wrong:
        return Refusal(Reason.WRONG_TYPES, f"{'; '.join(wrong)}.")
    unreadable = tuple(column.name for column in found if column.type is None and column.kind != "null")
    layout = Layout(readable, tuple(sources), unreadable, tuple(empty))
    if strict and (unknown := _unknown(sought, found)):
        return Refusal(Reason.UNKNOWN_COLUMNS, f"Unknown: {', '.join(unknown)}.")
    return layout


def castable(column: FileColumn, target: str) -> bool:
    """Whether values of a file's column can be values of a contract type at all."""
    if column.kind in ("nested", "time"):
        return False
    raw = "nanos" if column.kind == "nanos" else _family(column.type or column.kind)
    wanted = _family(target)
    if wanted == "string":
        return column.type is not None
    if wanted in _NUMERIC:
        return raw in _NUMERIC or raw == "string"
    if wanted in _TIMES:
        return raw in _TIMES or raw == "string"
    return raw in (wanted, "string")


def quoted(name: str) -> str:
    """A column's name as Spark's parsers take it, whatever it holds."""
    return "`" + name.replace("`", "``") + "`"


def _unknown(columns: Sequence[Column], found: Sequence[FileColumn]) -> list[str]:
    known = {name for column in columns for name in column.source_names} | {UNPARSED}
    return sorted(column.name for column in found if column.name.casefold() not in known)


def _may_lack(column: Column, hits: Mapping[str, Sequence[FileColumn]]) -> bool:
    """Whether a file may be without a column, given what it has for each of the others."""
    in_place = column.optional_with
    return column.optional_in_file or (bool(in_place) and all(hits.get(name) for name in in_place))


def _named(column: Column) -> str:
    """A missing column, with what could be there in its place."""
    return f"{column.name} (or {' and '.join(column.optional_with)})" if column.optional_with else column.name


def _told(column: FileColumn) -> str:
    if column.kind in ("nested", "time"):
        return column.kind
    return column.type or "of a type that Spark does not read"


def _family(kind: str) -> str:
    return kind.split("(")[0].strip()
