"""What has to hold between the columns, rules and tables of one contract. Pure; finds all that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Generic, TypeVar

from contracts.conditions import names_in
from contracts.dataset import COPY, NEGATED, RESERVED_NAMES, Column, Lookup, Negation, Rule, Severity
from contracts.marks import Finding, Loc
from contracts.spark_types import fits

KNOWN_TO_RULES = ("_period_start", "_period_end", COPY, NEGATED)
"""Names that a condition may use beside silver's columns."""
GOLD_TABLES = ("features", "aggregate")
_ALIKE = 0.85

T = TypeVar("T")


@dataclass(frozen=True)
class Placed(Generic[T]):
    """A part of a contract, and where its file says what."""

    value: T
    loc: Loc
    places: Mapping[str, Loc] = field(default_factory=dict)
    """Field of the part to its own place."""

    def where(self, name: str) -> Loc:
        """The place of a field, or of the whole part where the file does not have it."""
        return self.places.get(name, self.loc)


@dataclass(frozen=True)
class PlacedTable:
    """A table, as far as it can be read."""

    name: Placed[str]
    columns: Sequence[Placed[Column]]
    column_names: frozenset[str]
    """Of all columns, those that cannot be read too."""


@dataclass(frozen=True)
class Draft:
    """The parts of a contract that can be read; those that cannot are found wrong already."""

    dataset: str
    tables: Mapping[str, PlacedTable]
    """By `silver`, `features`, `aggregate`."""
    rules: Sequence[Placed[Rule]]
    aggregate_by: Placed[str] | None = None
    references: Placed[tuple[Lookup, ...]] | None = None
    negation: Placed[Negation] | None = None


def cross_check(draft: Draft) -> Iterator[Finding]:
    """All that is wrong between parts that are each right by themselves."""
    for role, table in draft.tables.items():
        yield from _table_name(draft.dataset, role, draft.tables)
        yield from _repeated(table.columns)
        yield from _own_names(table.columns)
    if silver := draft.tables.get("silver"):
        for column in silver.columns:
            yield from _column(column, silver.column_names)
        yield from _shared_names(silver.columns)
        yield from _rules(draft.rules, silver.column_names, draft.negation is not None)
        yield from _negation(draft.negation, silver)
    yield from _aggregate_by(draft)
    yield from _references(draft)


def _table_name(dataset: str, role: str, tables: Mapping[str, PlacedTable]) -> Iterator[Finding]:
    name = tables[role].name
    expected = {"silver": f"silver.{dataset}", "features": f"gold.{dataset}_features"}.get(role)
    if role != "aggregate":
        if name.value != expected:
            yield Finding(name.loc, f"{name.value!r} is not the {role} table's name, {expected!r} was expected")
        return
    start = f"gold.{dataset}_"
    if not name.value.startswith(start) or name.value in (start, f"{start}features"):
        yield Finding(name.loc, f"{name.value!r} is not the aggregate's name, {start + 'zone_hour'!r} or the like was "
                                f"expected")  # fmt: skip


def _repeated(columns: Sequence[Placed[Column]]) -> Iterator[Finding]:
    seen: set[str] = set()
    for column in columns:
        if column.value.name in seen:
            yield Finding(column.where("name"), f"the table has two columns {column.value.name!r}; rename one")
        seen.add(column.value.name)


def _own_names(columns: Sequence[Placed[Column]]) -> Iterator[Finding]:
    for column in columns:
        name = column.value.name
        if not name.startswith("_"):
            continue
        if name in RESERVED_NAMES or name.startswith("_bad_"):
            yield Finding(column.where("name"), f"{name!r} is a name that the jobs use themselves; rename the column")
        elif not column.value.derived:
            yield Finding(column.where("name"), f"{name!r}: a name begins with _ only where the column is derived")


def _shared_names(columns: Sequence[Placed[Column]]) -> Iterator[Finding]:
    owners: dict[str, str] = {}
    for column in columns:
        if column.value.derived:
            continue
        for name in column.value.source_names:
            owner = owners.setdefault(name, column.value.name)
            if owner != column.value.name:
                yield Finding(
                    _place_of_name(column, name),
                    f"{name!r} is a name of {owner} in files already; a file's column can stand for one column",
                )


def _place_of_name(column: Placed[Column], name: str) -> Loc:
    for index, item in enumerate(column.value.earlier):
        if item.name and item.name.casefold() == name:
            return (*column.where("earlier"), index, "name")
    for index, synonym in enumerate(column.value.synonyms):
        if synonym.casefold() == name:
            return (*column.where("synonyms"), index, "synonym")
    return column.where("name")


def _column(placed: Placed[Column], known: frozenset[str]) -> Iterator[Finding]:
    column = placed.value
    if column.fill_null is not None and not fits(column.fill_null, column.type):
        yield Finding(placed.where("fill_null"), f"{column.fill_null!r} does not fit {column.type}")
    for text, value in column.codes.items():
        if not fits(value, column.type):
            yield Finding(placed.where("codes"), f"{value!r}, for the code {text!r}, does not fit {column.type}")
    for name in column.optional_with:
        if name == column.name or name not in known:
            reason = "is the column itself" if name == column.name else "is no column of silver"
            yield Finding(placed.where("optional_with"), f"{name!r} {reason}{meant(name, known - {column.name})}")
    if column.optional_in_file and column.optional_with:
        yield Finding(placed.where("optional_with"), "optionalInFile lets any file lack the column; keep one of both")
    if column.derived:
        for name in ("synonyms", "earlier", "codes", "optional_in_file", "optional_with"):
            if getattr(column, name):
                yield Finding(placed.where(name), "files are not searched for a derived column, so this says nothing")


def _negation(placed: Placed[Negation] | None, silver: PlacedTable) -> Iterator[Finding]:
    if placed is None:
        return
    derived = {column.value.name for column in silver.columns if column.value.derived}
    seen: set[str] = set()
    for part in ("same", "negated"):
        for index, name in enumerate(getattr(placed.value, part)):
            loc = (*placed.loc, part, index)
            if name not in silver.column_names:
                yield Finding(loc, f"{name!r} is no column of silver{meant(name, silver.column_names)}")
            elif name in derived:
                yield Finding(loc, f"{name!r} is derived; columns of the file alone tell which rows belong together")
            elif name in seen:
                yield Finding(loc, f"{name!r} is named twice; a column is either the same or negated")
            seen.add(name)


def _rules(rules: Sequence[Placed[Rule]], columns: frozenset[str], negation: bool) -> Iterator[Finding]:
    seen = {f"{check}_{name}" for check in ("bad", "null") for name in columns}
    known = columns | set(KNOWN_TO_RULES)
    for placed in rules:
        rule = placed.value
        if rule.code in seen:
            yield Finding(placed.where("code"), f"the code {rule.code!r} is taken; a reason has one meaning")
        seen.add(rule.code)
        used = names_in(rule.condition)
        if not used & known:
            yield Finding(placed.where("condition"), f"the condition {rule.condition!r} names no column of silver")
        if NEGATED in used and not negation:
            yield Finding(placed.where("condition"), f"{NEGATED} needs the property 'negation' of the silver table")
        if rule.severity is Severity.WARN:
            # Warnings are counted in the table, which has no more than its columns.
            for name in sorted(used & set(KNOWN_TO_RULES)):
                said = f"{name} is known to rules that reject or refuse, not to warnings"
                yield Finding(placed.where("condition"), said)
        for name in sorted(used - known):
            # Not each unknown name is wrong: it may be a keyword, a type or a unit.
            if get_close_matches(name, columns, 1, _ALIKE):
                yield Finding(placed.where("condition"), f"{name!r} is no column of silver{meant(name, columns)}")
        if rule.max_share and rule.severity is not Severity.REFUSE:
            yield Finding(placed.where("max_share"), "maxShare goes with the severity `refuse` alone")


def _aggregate_by(draft: Draft) -> Iterator[Finding]:
    if draft.aggregate_by is None:
        return
    for role in ("features", "aggregate"):
        table = draft.tables.get(role)
        if table is not None and draft.aggregate_by.value not in table.column_names:
            name = draft.aggregate_by.value
            yield Finding(draft.aggregate_by.loc, f"{name!r} is no column of {role}{meant(name, table.column_names)}")
            return


def _references(draft: Draft) -> Iterator[Finding]:
    if draft.references is None:
        return
    taken: set[str] = set()
    for index, lookup in enumerate(draft.references.value):
        loc = (*draft.references.loc, index)
        if lookup.dataset == draft.dataset:
            yield Finding((*loc, "dataset"), f"{lookup.dataset!r} is the dataset itself; name another one")
        yield from _lookup(lookup, loc, draft.tables)
        for name in sorted(taken & set(lookup.columns)):
            yield Finding((*loc, "columns"), f"{name!r} comes from another lookup already; it can hold one value")
        taken |= set(lookup.columns)


def _lookup(lookup: Lookup, loc: Loc, tables: Mapping[str, PlacedTable]) -> Iterator[Finding]:
    names = {role: table.column_names for role, table in tables.items()}
    silver, gold = names.get("silver", frozenset()), {role: names[role] for role in GOLD_TABLES if role in names}
    if lookup.by not in silver:
        yield Finding((*loc, "by"), f"{lookup.by!r} is no column of silver{meant(lookup.by, silver)}")
    known = frozenset().union(*gold.values())
    for name in lookup.columns:
        if name in silver:
            yield Finding((*loc, "columns", name), f"{name!r} is a column of silver already; give it another name")
        elif name not in known:
            said = f"{name!r} is no column of features or aggregate{meant(name, known)}"
            yield Finding((*loc, "columns", name), said)
    counted = gold.get("aggregate", frozenset())
    if lookup.by not in counted and (shared := sorted(counted & set(lookup.columns))):
        said = f"the aggregate has {shared[0]!r}, but not {lookup.by!r}, by which that is looked up"
        yield Finding((*loc, "by"), said)


def meant(name: str, known: frozenset[str] | set[str]) -> str:
    """The end of a message about a name that is not known: the nearest one that is, or all of them."""
    near = get_close_matches(name, sorted(known), 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known)) or 'none'}"
