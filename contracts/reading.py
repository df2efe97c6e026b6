"""Takes the values of a contract file apart: into the models, and into all that is wrong with them. No I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from contracts.checking import GOLD_TABLES, Draft, Placed, PlacedTable, cross_check, meant
from contracts.conditions import fill_in
from contracts.dataset import Column, DatasetContract, Gold, Negation, Rule, Table
from contracts.marks import Finding, Loc, Marked
from contracts.standard import against_standard, sentence

OF_DATASET = {
    "path": "path", "period": "period", "kind": "kind", "transforms": "transforms", "aggregateBy": "aggregate_by",
    "strict": "strict", "references": "references", "onQuarantine": "on_quarantine", "onDelete": "on_delete",
    "launch": "launch", "maxBatchFiles": "max_batch_files", "limits": "limits", "completeness": "completeness",
    "download": "download", "upkeep": "upkeep",
}  # fmt: skip
OF_SILVER = {
    "earlier": "earlier", "codes": "codes", "optionalInFile": "optional_in_file", "optionalWith": "optional_with",
    "derived": "derived", "fillNull": "fill_null", "unit": "unit",
}  # fmt: skip
OF_GOLD = {"unit": "unit"}
OF_SILVER_TABLE = {"negation": "negation"}
OF_RULE = {"threshold": "threshold", "source": "source", "maxShare": "max_share"}
_KEPT = {"bronze": "keep_bronze", "quarantine": "keep_quarantine"}
"""Bucket that a `retention` names as its element to the model's field."""
_DAYS = {"d": 1.0, "day": 1.0, "days": 1.0, "m": 365.25 / 12, "month": 365.25 / 12, "months": 365.25 / 12,
         "y": 365.25, "yr": 365.25, "year": 365.25, "years": 365.25}  # fmt: skip
_MOST_TIME = 100_000
_THRESHOLD = re.compile(r"[A-Za-z_]\w*")
# Stands in for a table that cannot be read, so that the rest of the contract can be looked at.
_NO_TABLE = Table(name="silver.none", columns=(Column(name="none", type="int"),))

M = TypeVar("M", bound=BaseModel)


def read_values(document: Marked) -> tuple[DatasetContract | None, list[Finding]]:
    """The contract, and all that is wrong with it; the contract is None where that is anything."""
    values = document.values
    if not isinstance(values, dict):
        return None, [Finding((), "it is no Open Data Contract: keys with values were expected")]
    standard = list(against_standard(values))
    reader = _Reader()
    contract = reader.contract(values)
    # Both look at some values; the standard's word on a place is enough.
    told = {item.loc for item in standard}
    findings = [*document.repeated, *standard, *(item for item in reader.findings if item.loc not in told)]
    return (None if findings else contract), findings


class _Reader:
    """Takes a contract apart, and notes all that is wrong on the way."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._negation: Placed[Negation] | None = None

    def contract(self, values: dict[Any, Any]) -> DatasetContract | None:
        custom = self._custom(values, (), OF_DATASET)
        raw = {name: item.value for name, item in custom.items()}
        is_reference = raw.get("kind") == "reference"
        tables = self._tables(values, is_reference)
        rules = self._rules(values)
        places = {
            **{field: ("customProperties", name) for name, field in OF_DATASET.items()},
            **{name: item.loc for name, item in custom.items()},
            "dataset": ("id",), "version": ("version",), "title": ("name",), "owner": ("team", "name"),
        }  # fmt: skip
        aggregate_by = raw.pop("aggregate_by", None)
        if is_reference and "aggregate_by" in custom:
            self._note(custom["aggregate_by"].loc, "a reference has no aggregate; leave this out")
        elif is_reference and "references" in custom:
            self._note(custom["references"].loc, "a reference has no gold, so it looks nothing up; leave this out")
        elif not is_reference and not isinstance(aggregate_by, str):
            self._note(places["aggregate_by"], "the name of a column of the features was expected")
        team = values.get("team")
        raw |= {
            "dataset": values.get("id"),
            "version": values.get("version"),
            "title": values.get("name") or "",
            "owner": (team.get("name") if isinstance(team, dict) else None) or "",
            **self._retention(values),
            "silver": self._table(tables, "silver"),
            "rules": tuple(item.value for item in rules),
            "negation": self._negation.value if self._negation else None,
        }
        if not is_reference:
            raw.setdefault("transforms", values.get("id"))
            raw["gold"] = Gold(
                features=self._table(tables, "features"),
                aggregate=self._table(tables, "aggregate"),
                aggregate_by=str(aggregate_by),
            )
        contract = self._model(DatasetContract, raw, (), places)
        by = Placed(aggregate_by, places["aggregate_by"]) if isinstance(aggregate_by, str) else None
        self.findings += cross_check(
            Draft(
                dataset=str(values.get("id")),
                tables=tables,
                rules=rules,
                aggregate_by=by,
                references=Placed(contract.references, places["references"]) if contract and contract.gold else None,
                negation=self._negation,
            )
        )
        return contract

    def _note(self, loc: Loc, message: str) -> None:
        self.findings.append(Finding(loc, message))

    def _model(self, kind: type[M], raw: Mapping[str, Any], loc: Loc, places: Mapping[str, Loc]) -> M | None:
        try:
            return kind.model_validate(raw)
        except ValidationError as error:
            for item in error.errors(include_url=False):
                field, *rest = item["loc"] or ("",)
                self._note((*places.get(str(field), loc), *rest), sentence(item))
            return None

    def _custom(self, node: dict[Any, Any], loc: Loc, known: Mapping[str, str]) -> dict[str, Placed[Any]]:
        """Our own properties of a part of the contract, by the names of the models' fields."""
        found: dict[str, Placed[Any]] = {}
        for index, item in parts(node, "customProperties"):
            name, here = item.get("property"), (*loc, "customProperties", index)
            if item.get("vendor"):
                continue
            if not isinstance(name, str):
                self._note(here, "a custom property without `property`, its name")
            elif name not in known:
                self._note(here, f"{name!r} is no property here{meant(name, set(known))}")
            elif known[name] in found:
                self._note(here, f"the property {name!r} is there twice; keep one")
            else:
                found[known[name]] = Placed(item.get("value"), (*here, "value"))
        return found

    def _tables(self, values: dict[Any, Any], is_reference: bool) -> dict[str, PlacedTable]:
        tables: dict[str, PlacedTable] = {}
        wanted = ("silver",) if is_reference else ("silver", *GOLD_TABLES)
        for index, node in parts(values, "schema"):
            role, loc = node.get("name"), ("schema", index)
            if not isinstance(role, str) or role not in wanted:
                reason = "a reference has silver alone" if role in GOLD_TABLES else f"expected {', '.join(wanted)}"
                self._note((*loc, "name"), f"the schema has an object named {role!r}; {reason}")
            elif role in tables:
                self._note((*loc, "name"), f"the schema has two objects named {role!r}; keep one")
            else:
                tables[role] = self._placed_table(node, loc, role)
        for role in wanted:
            if role not in tables:
                there = ", ".join(map(repr, tables)) or "none"
                self._note(("schema",), f"the schema has no object named {role!r}; it has {there}")
        return tables

    def _placed_table(self, node: dict[Any, Any], loc: Loc, role: str) -> PlacedTable:
        if role != "silver" and node.get("quality"):
            self._note((*loc, "quality"), "rules are kept on silver alone; put them there")
        own = self._custom(node, loc, OF_SILVER_TABLE if role == "silver" else {})
        if "negation" in own:
            self._read_negation(own["negation"])
        columns = []
        for index, item in parts(node, "properties"):
            column = self._column(item, (*loc, "properties", index), OF_SILVER if role == "silver" else OF_GOLD)
            columns += [column] if column else []
        if not list(parts(node, "properties")):
            self._note((*loc, "properties"), "a table needs columns")
        name = node.get("physicalName")
        return PlacedTable(
            name=Placed(name if isinstance(name, str) else "", (*loc, "physicalName")),
            columns=columns,
            column_names=frozenset(str(item.get("name")) for _, item in parts(node, "properties")),
        )

    def _read_negation(self, given: Placed[Any]) -> None:
        negation = self._model(
            Negation, given.value, given.loc, {name: (*given.loc, name) for name in Negation.model_fields}
        )
        self._negation = Placed(negation, given.loc) if negation else None

    def _column(self, node: dict[Any, Any], loc: Loc, known: Mapping[str, str]) -> Placed[Column] | None:
        if node.get("quality"):
            self._note((*loc, "quality"), "rules stand in the table's `quality`, not in a column's")
        custom = self._custom(node, loc, known)
        places = {
            "name": (*loc, "name"),
            "type": (*loc, "physicalType"),
            "required": (*loc, "required"),
            "synonyms": (*loc, "synonyms"),
            **{name: item.loc for name, item in custom.items()},
        }
        raw = {
            "name": node.get("name"),
            "type": node.get("physicalType"),
            "required": bool(node.get("required")),
            "synonyms": tuple(str(item.get("synonym")) for _, item in parts(node, "synonyms")),
            "description": str(node.get("description") or ""),
            **{name: item.value for name, item in custom.items()},
        }
        column = self._model(Column, raw, loc, places)
        return Placed(column, loc, places) if column else None

    def _table(self, tables: Mapping[str, PlacedTable], role: str) -> Table:
        """A table, or what stands in for it once something is found wrong with it."""
        found = tables.get(role)
        if found is None or not found.columns:
            return _NO_TABLE
        raw = {"name": found.name.value, "columns": tuple(item.value for item in found.columns)}
        try:
            return Table.model_validate(raw)
        except ValidationError:
            # The cross-check tells the name that was expected.
            return _NO_TABLE

    def _rules(self, values: dict[Any, Any]) -> list[Placed[Rule]]:
        rules = []
        for place, node in parts(values, "schema"):
            if node.get("name") != "silver":
                continue
            for index, item in parts(node, "quality"):
                rule = self._rule(item, ("schema", place, "quality", index))
                rules += [rule] if rule else []
        return rules

    def _rule(self, node: dict[Any, Any], loc: Loc) -> Placed[Rule] | None:
        custom = self._custom(node, loc, OF_RULE)
        places = {
            "code": (*loc, "name"),
            "condition": (*loc, "implementation"),
            "severity": (*loc, "severity"),
            **{name: item.loc for name, item in custom.items()},
        }
        for key, value in (("type", "custom"), ("engine", "sparkSQL")):
            if node.get(key) != value:
                self._note((*loc, key), f"{node.get(key)!r} is not kept here, {value!r} was expected")
        template = node.get("implementation")
        if not isinstance(template, str):
            self._note(places["condition"], "a condition in Spark SQL was expected")
            return None
        thresholds = self._thresholds(custom.get("threshold"))
        if thresholds is None:
            return None
        try:
            condition = fill_in(template, thresholds)
        except ValueError as error:
            self._note(places["condition"], str(error))
            return None
        raw: dict[str, Any] = {
            "code": node.get("name"),
            "condition": condition,
            "template": template,
            "thresholds": thresholds,
            "description": str(node.get("description") or ""),
            **({"severity": node["severity"]} if node.get("severity") is not None else {}),
            **{name: custom[name].value for name in ("source", "max_share") if name in custom},
        }
        rule = self._model(Rule, raw, loc, places)
        return Placed(rule, loc, places) if rule else None

    def _thresholds(self, given: Placed[Any] | None) -> dict[str, int | float] | None:
        """Names to numbers; None where something is wrong with them."""
        if given is None:
            return {}
        named: dict[Any, Any] = {"threshold": given.value}
        if isinstance(given.value, dict):
            named = given.value
        wrong = False
        for name, number in named.items():
            loc = (*given.loc, str(name)) if isinstance(given.value, dict) else given.loc
            if not isinstance(name, str) or not _THRESHOLD.fullmatch(name):
                self._note(loc, f"{name!r} is no name of a threshold: letters, digits and _ were expected")
                wrong = True
            elif isinstance(number, bool) or not isinstance(number, int | float) or not _finite(number):
                self._note(loc, f"{number!r} is no threshold; a number was expected")
                wrong = True
        return None if wrong else named

    def _retention(self, values: dict[Any, Any]) -> dict[str, int]:
        """Days of the rows and of the files, by the model's fields; what nothing is said of is left out."""
        found: dict[str, int] = {}
        tables = {str(table.get("name")) for _, table in parts(values, "schema")}
        for index, item in parts(values, "slaProperties"):
            if item.get("property") != "retention":
                continue
            loc, value, unit = ("slaProperties", index), item.get("value"), item.get("unit")
            element = str(item.get("element") or "")
            # By the standard an element is a table or a column of it: that is about the rows.
            field = "retention" if not element or element.split(".")[0] in tables else _KEPT.get(element)
            if field is None:
                self._note(
                    (*loc, "element"), f"{element!r} is nothing that is kept{meant(element, set(_KEPT) | tables)}"
                )
            elif field in _KEPT.values() and field in found:
                self._note((*loc, "element"), f"how long files stay in {element} is said twice; once was expected")
            elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MOST_TIME:
                self._note((*loc, "value"), f"{value!r} is no time; a number from 0 to {_MOST_TIME:,} was expected")
            elif str(unit).lower() not in _DAYS:
                self._note((*loc, "unit"), f"{unit!r} is no unit of retention; d, months or y was expected")
            else:
                # Rounded up: nothing is to go before its time.
                found.setdefault(field, math.ceil(value * _DAYS[str(unit).lower()]))
        return found


def parts(node: Mapping[Any, Any], key: str) -> Iterator[tuple[int, dict[Any, Any]]]:
    """The items of a list of a contract; the standard's own check tells of what is none."""
    found = node.get(key)
    for index, item in enumerate(found if isinstance(found, list) else ()):
        if isinstance(item, dict):
            yield index, item


def _finite(number: float) -> bool:
    return isinstance(number, int) or math.isfinite(number)
