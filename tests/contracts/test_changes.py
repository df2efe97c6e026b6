"""What a changed contract means for readers, and for tables that are there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.changes import AddColumn, Change, Incompatible, WidenColumn, changes, evolutions, version_problem
from tests.contracts.variants import LOOKUP, REFERENCE, load, refers

PAYMENT = "      - name: payment\n        physicalType: int\n"
ZONE = "required: true\n        synonyms: [{synonym: PULocationID}]"
TRIPS = "{name: trips, physicalType: int}"

CASES: dict[str, tuple[tuple[tuple[str, str], ...], list[tuple[str, str, bool]], str]] = {
    # id: edits, changes as (kind, where, breaking), part of what is said
    "column-removed": (((PAYMENT, ""),), [("column_removed", "silver.payment", True)], "find none"),
    "column-renamed": (
        ((PAYMENT, PAYMENT.replace("payment", "paid_by") + "        synonyms: [{synonym: Payment}]\n"),),
        [("column_renamed", "silver.payment", True), ("source_changed", "silver.payment", False)], "paid_by now",
    ),
    "column-added": (((PAYMENT, PAYMENT + PAYMENT.replace("payment", "tip")),),
                     [("column_added", "silver.tip", False)], "earlier rows hold null"),
    "int-to-bigint": (((PAYMENT, PAYMENT.replace("int", "bigint")),), [("type_widened", "silver.payment", False)],
                      "without rewriting"),
    "float-to-double": ((("physicalType: float", "physicalType: double"),),
                        [("type_widened", "features.speed", False)], "float is double now"),
    "more-digits": ((("decimal(10,2)", "decimal(12,2)"),), [("type_widened", "silver.fare", False)], "widens"),
    "more-places": ((("decimal(10,2)", "decimal(12,4)"),), [("type_changed", "silver.fare", True)], "cannot become"),
    "int-to-smallint": (((PAYMENT, PAYMENT.replace("int", "smallint")),), [("type_changed", "silver.payment", False)],
                        "stored alike"),
    "int-to-string": (((TRIPS, "{name: trips, physicalType: string}"),), [("type_changed", "aggregate.trips", True)],
                      "int cannot become string"),
    "required-to-nullable": (((ZONE, ZONE.replace("required: true", "required: false")),),
                             [("column_nullable", "silver.zone", True)], "rely on no nulls"),
    "required-but-optional-in-files": (
        ((ZONE, ZONE + "\n        customProperties: [{property: optionalInFile, value: true}]"),),
        [("column_nullable", "silver.zone", True), ("source_changed", "silver.zone", False)], "rely on no nulls",
    ),
    "nullable-to-required": (((PAYMENT, PAYMENT + "        required: true\n"),),
                             [("column_required", "silver.payment", False)], "may be rejected"),
    "nulls-filled": (((PAYMENT, PAYMENT + "        customProperties: [{property: fillNull, value: 5}]\n"),),
                     [("column_required", "silver.payment", False), ("fill_null_changed", "silver.payment", False)],
                     "nothing stood for null, 5 does now"),
    "unit-changed": ((("mile/hour", "km/hour"),), [("unit_changed", "features.speed", True)], "means something else"),
    "unit-removed": (((", customProperties: [{property: unit, value: mile/hour}]", ""),),
                     [("unit_stated", "features.speed", False)], "no longer stated"),
    "aggregate-by": ((("value: day}", "value: trips}"), ("{name: speed, physicalType: float",
                      "{name: trips, physicalType: int}\n      - {name: speed, physicalType: float")),
                     [("column_added", "features.trips", False), ("aggregate_by_changed", "aggregateBy", True)],
                     "by day"),
    "table-renamed": ((("gold.rides_zone_hour", "gold.rides_day"),), [("table_renamed", "aggregate", True)], "now"),
    "rule-removed": ((("      - name: negative_fare\n        type: custom\n        engine: sparkSQL\n"
                       "        implementation: fare >= 0\n", ""),),
                     [("rule_removed", "rule.negative_fare", False)], "which rows are accepted"),
    "rule-added": ((("    quality:\n", "    quality:\n      - {name: early, type: custom, engine: sparkSQL, "
                     "severity: warn, implementation: year(started) > 2000}\n"),),
                   [("rule_added", "rule.early", False)], "warn where it fails"),
    "threshold": ((("value: 5000", "value: 500"),), [("threshold_changed", "rule.fare_absurd", False)],
                  "which rows are accepted: threshold was 5000, it is 500 now"),
    "condition": ((("fare >= 0", "fare > 0"),), [("rule_changed", "rule.negative_fare", False)], "another condition"),
    "number-that-became-a-threshold": (
        (("fare >= 0", "fare >= ${low}\n        customProperties: [{property: threshold, value: {low: 0}}]"),), [], "",
    ),
    "condition-laid-out-anew": ((("fare >= 0", "\n          fare\n          >= 0"),), [], ""),
    "severity": ((("fare >= 0", "fare >= 0\n        severity: warn"),),
                 [("severity_changed", "rule.negative_fare", False)], "warn"),
    "code-of-another-value": (
        ((PAYMENT, PAYMENT + "        customProperties: [{property: codes, value: {CSH: 2}}]\n"),),
        [("codes_changed", "silver.payment", False)], "csh",
    ),
    "strict": ((("schema:\n", "  - {property: strict, value: true}\nschema:\n"),),
               [("setting_changed", "strict", False)], "which files are accepted: False is True now"),
    "negation": (
        (("physicalName: silver.rides\n", "physicalName: silver.rides\n    customProperties: [{property: negation, "
          "value: {same: [zone], negated: [fare]}}]\n"),),
        [("setting_changed", "negation", False)], "which are accepted: nothing is",
    ),
    "owner": ((("{name: data-platform}", "{name: other}"),), [("setting_changed", "owner", False)], "other now"),
    "texts-for-people": ((("name: Rides\n", "name: All rides\ndescription: {purpose: more}\n"),), [], ""),
}  # fmt: skip


def _found(tmp_path: Path, *edits: tuple[str, str]) -> tuple[Change, ...]:
    return changes(load(tmp_path), load(tmp_path, *edits))


@pytest.mark.parametrize("case", CASES)
def test_change_is_named_and_judged(tmp_path: Path, case: str) -> None:
    edits, expected, said = CASES[case]
    found = _found(tmp_path, *edits)
    assert [(change.kind, change.where, change.breaking) for change in found] == expected
    assert any(said in change.why for change in found) or not expected


@pytest.mark.parametrize("case", CASES)
def test_contract_that_did_not_change_has_no_changes(tmp_path: Path, case: str) -> None:
    contract = load(tmp_path, *CASES[case][0])
    assert changes(contract, contract) == ()


def test_code_that_stands_for_another_value_changes_the_meaning_of_equal_numbers(tmp_path: Path) -> None:
    before, after = (
        load(tmp_path, (PAYMENT, PAYMENT + f"        customProperties: [{{property: codes, value: {{CSH: {n}}}}}]\n"))
        for n in (1, 2)
    )
    (change,) = changes(before, after)
    assert (change.kind, change.breaking) == ("code_changed", True)


def test_lookup_of_another_column_or_none_breaks_readers_and_a_new_one_does_not(tmp_path: Path) -> None:
    without, before, after = (
        load(tmp_path, *edits) for edits in ((), refers(), refers(LOOKUP.replace("by: zone", "by: payment")))
    )
    cases = [(without, before, "lookup_added"), (before, after, "lookup_changed"), (before, without, "lookup_removed")]
    for old, new, kind in cases:
        found = {(change.kind, change.where, change.breaking) for change in changes(old, new)}
        assert (kind, "references.zone_name", kind != "lookup_added") in found


def test_dataset_that_becomes_a_reference_loses_its_gold(tmp_path: Path) -> None:
    found = changes(load(tmp_path), load(tmp_path, text=REFERENCE))
    assert {"dataset_renamed", "gold_removed"} <= {change.kind for change in found if change.breaking}


@pytest.mark.parametrize(
    ("edit", "version", "said"),
    [
        ((PAYMENT, ""), "2.0.0", ""),
        ((PAYMENT, ""), "1.3.0", "2.0.0 was expected"),
        ((PAYMENT, ""), "1.2.0", "2.0.0 was expected"),
        (("value: 5000", "value: 500"), "1.3.0", ""),
        (("value: 5000", "value: 500"), "2.0.0", ""),
        (("value: 5000", "value: 500"), "1.2.1", "1.3.0 was expected"),
        (("value: 5000", "value: 500"), "1.2.0", "1.3.0 was expected"),
        (("value: 5000", "value: 500"), "0.9.0", "never falls"),
        (("name: Rides", "name: All rides"), "1.2.0", ""),
    ],
)
def test_version_rises_with_a_change(tmp_path: Path, edit: tuple[str, str], version: str, said: str) -> None:
    old, new = load(tmp_path), load(tmp_path, edit, ("version: 1.2.0", f"version: {version}"))
    problem = version_problem(old, new, changes(old, new))
    assert said in problem
    assert bool(problem) == bool(said)


def test_table_gains_and_widens_columns_and_keeps_those_that_the_contract_lost() -> None:
    present = {"a": "int", "gone": "string", "b": "decimal(10,2)", "small": "int", "list": "array<string>"}
    wanted = {"a": "bigint", "b": "decimal(12,2)", "new": "date", "small": "smallint", "list": "array<string>"}
    assert evolutions(present, wanted) == (
        WidenColumn("a", "int", "bigint"),
        WidenColumn("b", "decimal(10,2)", "decimal(12,2)"),
        AddColumn("new", "date"),
    )


def test_type_that_iceberg_does_not_widen_is_incompatible() -> None:
    assert evolutions({"a": "bigint"}, {"a": "int"}) == (Incompatible("a", "bigint", "int"),)


TABLES = st.dictionaries(
    st.sampled_from("abcd"), st.sampled_from(["int", "bigint", "smallint", "float", "double", "decimal(5,2)", "date"])
)


@given(TABLES, TABLES)
def test_table_that_was_evolved_needs_nothing_more(present: dict[str, str], wanted: dict[str, str]) -> None:
    steps = evolutions(present, wanted)
    if not any(isinstance(step, Incompatible) for step in steps):
        after = present | {step.column: step.type if isinstance(step, AddColumn) else step.new for step in steps}
        assert evolutions(after, wanted) == ()
