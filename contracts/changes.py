"""Decision: what the change of a contract means for readers of its tables, and for tables that are there. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from contracts.dataset import Column, DatasetContract, Rule, Table
from contracts.spark_types import promotes, stored

_ACCEPTANCE = "changes which rows are accepted"
_FILES = "changes which files are accepted"
_SETTINGS = {
    "path": _FILES,
    "period": "changes the month that files stand for, and with it which rows are accepted",
    "strict": _FILES,
    "limits": _FILES,
    "negation": "changes which rows take each other back, and with it which are accepted",
    "transforms": "other code makes the values",
    "retention": "changes how long rows are kept",
    "keep_bronze": "changes how long files can be replayed",
    "keep_quarantine": "changes how long copies of refused files are kept",
    "on_delete": "changes what becomes of the rows of a deleted file",
    "on_quarantine": "changes what is kept of refused files",
    "completeness": "changes when files go to gold",
    "upkeep": "changes how far back tables can be read, or how their rows lie in files",
    "owner": "somebody else answers for the dataset",
}


@dataclass(frozen=True)
class Change:
    """One difference between two versions of a contract."""

    kind: str
    where: str
    """Table and column, rule, or key."""
    breaking: bool
    """Whether it can break what reads silver or gold."""
    why: str


@dataclass(frozen=True)
class AddColumn:
    """A column that a table is to gain; its earlier rows hold null."""

    column: str
    type: str


@dataclass(frozen=True)
class WidenColumn:
    """A column whose type Iceberg widens without rewriting files."""

    column: str
    old: str
    new: str


@dataclass(frozen=True)
class Incompatible:
    """A column whose type cannot become the contract's."""

    column: str
    old: str
    new: str


Step = AddColumn | WidenColumn | Incompatible


def evolutions(present: Mapping[str, str], wanted: Mapping[str, str]) -> tuple[Step, ...]:
    """What brings a table's columns to those of a contract, in the contract's order.

    Args:
        present: column to Spark type, as the table has them; those that the contract lacks stay.
        wanted: the same, of the contract.
    """
    steps: list[Step] = []
    for name, new in wanted.items():
        old = present.get(name)
        if old is None:
            steps.append(AddColumn(name, new))
        elif stored(old) != stored(new):
            steps.append((WidenColumn if promotes(old, new) else Incompatible)(name, old, new))
    return tuple(steps)


def changes(old: DatasetContract, new: DatasetContract) -> tuple[Change, ...]:
    """All that differs between two versions of a contract and matters to somebody; texts for people are left out."""
    return tuple(_changes(old, new))


def version_problem(old: DatasetContract, new: DatasetContract, found: Sequence[Change]) -> str:
    """What is wrong with the new version number; empty when nothing is.

    It rises with any change: the major number for a breaking one, the major or the minor otherwise.
    """
    before, after = _numbers(old), _numbers(new)
    breaking = any(change.breaking for change in found)
    rises = after[:1] > before[:1] if breaking else after[:2] > before[:2]
    if after < before:
        return f"version {new.version} is before {old.version}; a version never falls"
    if not found or rises:
        return ""
    expected = f"{before[0] + 1}.0.0" if breaking else f"{before[0]}.{before[1] + 1}.0"
    reason = "a breaking change" if breaking else "a change"
    return f"version {new.version} follows {old.version}, but {reason} was made; {expected} was expected"


def _changes(old: DatasetContract, new: DatasetContract) -> Iterator[Change]:
    if old.dataset != new.dataset:
        yield Change("dataset_renamed", "id", True, f"{old.dataset} is {new.dataset} now: keys and tables are others")
    yield from _table("silver", old.silver, new.silver)
    yield from _gold(old, new)
    yield from _rules(old.rules, new.rules)
    yield from _lookups(old, new)
    for name, why in _SETTINGS.items():
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield Change("setting_changed", name, False, f"{why}: {_shown(before)} is {_shown(after)} now")


def _gold(old: DatasetContract, new: DatasetContract) -> Iterator[Change]:
    if old.gold and new.gold:
        yield from _table("features", old.features, new.features)
        yield from _table("aggregate", old.aggregate, new.aggregate)
        if old.aggregate_by != new.aggregate_by:
            why = f"the aggregate is kept by {new.aggregate_by}, and by {old.aggregate_by} before: its rows are others"
            yield Change("aggregate_by_changed", "aggregateBy", True, why)
    elif old.gold:
        yield Change("gold_removed", "kind", True, "features and aggregate are written no more")
    elif new.gold:
        yield Change("gold_added", "kind", False, "features and aggregate are new")


def _lookups(old: DatasetContract, new: DatasetContract) -> Iterator[Change]:
    before, after = _sources(old), _sources(new)
    for name, source in before.items():
        if name not in after:
            why = f"{name} no longer comes from {source}: it is null, or something else"
            yield Change("lookup_removed", f"references.{name}", True, why)
        elif after[name] != source:
            why = f"{name} is {after[name]} now, it was {source}: equal values mean different things"
            yield Change("lookup_changed", f"references.{name}", True, why)
    for name in sorted(set(after) - set(before)):
        why = f"{name} is {after[name]}; rows that gold has get it when they are written again"
        yield Change("lookup_added", f"references.{name}", False, why)


def _sources(contract: DatasetContract) -> dict[str, str]:
    """Column of gold to what it holds of which reference."""
    return {
        name: f"{lookup.dataset}.{column} by {lookup.by} = {lookup.key}"
        for lookup in contract.references
        for name, column in lookup.columns.items()
    }


def _table(role: str, old: Table, new: Table) -> Iterator[Change]:
    if old.name != new.name:
        yield Change("table_renamed", role, True, f"{old.name} is {new.name} now, and its readers find nothing new")
    before, after = ({column.name: column for column in table.columns} for table in (old, new))
    renamed = {name: to for name in before if name not in after for to in _successors(name, before, after)}
    for name, column in before.items():
        where = f"{role}.{name}"
        if name in after:
            yield from _column(where, column, after[name])
        elif name in renamed:
            yield Change("column_renamed", where, True, f"it is {renamed[name]} now; queries for {name} find none")
            yield from _column(where, column, after[renamed[name]])
        else:
            yield Change("column_removed", where, True, f"queries for {name} find none, or nulls in new rows")
    for name in after:
        if name not in before and name not in renamed.values():
            yield Change("column_added", f"{role}.{name}", False, "earlier rows hold null; nobody reads it yet")


def _successors(name: str, before: Mapping[str, Column], after: Mapping[str, Column]) -> list[str]:
    """New columns that files may still call by the old name."""
    return [column.name for column in after.values() if column.name not in before and name in column.source_names]


def _column(where: str, old: Column, new: Column) -> Iterator[Change]:
    if old.type != new.type:
        yield _type(where, old.type, new.type)
    if old.unit != new.unit:
        if old.unit and new.unit:
            why = f"{old.unit} is {new.unit} now: the same number means something else"
            yield Change("unit_changed", where, True, why)
        else:
            why = f"the unit {old.unit or new.unit} is {'no longer' if old.unit else 'now'} stated"
            yield Change("unit_stated", where, False, why)
    if old.never_null and not new.never_null:
        why = "it may be null now, which breaks readers that rely on no nulls"
        yield Change("column_nullable", where, True, why)
    elif new.never_null and not old.never_null:
        yield Change(
            "column_required", where, False, "it is never null now; rows or files without a value may be rejected"
        )
    elif old.required != new.required:
        yield Change("column_required" if new.required else "column_nullable", where, False, _ACCEPTANCE)
    yield from _values(where, old, new)
    if (old.source_names, old.optional_in_file, old.optional_with, old.derived) != (
        new.source_names,
        new.optional_in_file,
        new.optional_with,
        new.derived,
    ):
        yield Change("source_changed", where, False, f"{_FILES}, or where the column's values come from")


def _type(where: str, old: str, new: str) -> Change:
    if stored(old) == stored(new):
        return Change("type_changed", where, False, f"{old} is {new} now, stored alike; {_ACCEPTANCE}")
    if promotes(old, new):
        return Change("type_widened", where, False, f"{old} is {new} now; Iceberg widens it without rewriting files")
    why = f"{old} cannot become {new} in an Iceberg table; int to bigint, float to double, decimals to more digits can"
    return Change("type_changed", where, True, why)


def _values(where: str, old: Column, new: Column) -> Iterator[Change]:
    others = sorted(code for code, value in old.codes.items() if new.codes.get(code, value) != value)
    if others:
        why = f"{', '.join(others)} of files stands for another value now: equal numbers mean different things"
        yield Change("code_changed", where, True, why)
    if differing := sorted(set(old.codes) ^ set(new.codes)):
        yield Change("codes_changed", where, False, f"{', '.join(differing)}: {_ACCEPTANCE}")
    if old.fill_null != new.fill_null:
        why = f"{_shown(old.fill_null)} stood for null, {_shown(new.fill_null)} does now"
        yield Change("fill_null_changed", where, False, why)


def _rules(old: Sequence[Rule], new: Sequence[Rule]) -> Iterator[Change]:
    before, after = ({rule.code: rule for rule in rules} for rules in (old, new))
    for code, rule in before.items():
        if code not in after:
            yield Change("rule_removed", f"rule.{code}", False, f"{_ACCEPTANCE}: fewer are rejected")
        else:
            yield from _rule(f"rule.{code}", rule, after[code])
    for code, rule in after.items():
        if code not in before:
            yield Change("rule_added", f"rule.{code}", False, f"{_ACCEPTANCE}: {rule.severity} where it fails")
    shared = [code for code in before if code in after]
    if shared != [code for code in after if code in before]:
        yield Change("rules_reordered", "rules", False, "the first rule that fails gives the reason, so reasons change")


def _rule(where: str, old: Rule, new: Rule) -> Iterator[Change]:
    differs = old.condition.split() != new.condition.split()
    for name in old.thresholds:
        before, after = old.thresholds[name], new.thresholds.get(name)
        if differs and after is not None and before != after:
            yield Change("threshold_changed", where, False, f"{_ACCEPTANCE}: {name} was {before}, it is {after} now")
    if differs and old.template.split() != new.template.split():
        yield Change("rule_changed", where, False, f"{_ACCEPTANCE}: another condition")
    if (old.severity, old.max_share) != (new.severity, new.max_share):
        why = (
            f"{_ACCEPTANCE}: {old.severity} above a share of {old.max_share}, {new.severity} above {new.max_share} now"
        )
        yield Change("severity_changed", where, False, why)


def _numbers(contract: DatasetContract) -> tuple[int, ...]:
    return tuple(int(part) for part in contract.version.split("."))


def _shown(value: object) -> str:
    return "nothing" if value in (None, "", ()) else str(value)
