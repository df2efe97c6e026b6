"""Contract files: every key of ours, and what is said where, when something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import loading, reading
from contracts.dataset import Earlier, Limits, Negation, Severity
from contracts.errors import ContractError
from contracts.loading import load_contract, load_contracts, read_contract
from contracts.settings import PROJECT
from tests.contracts.variants import LOOKUP, REFERENCE, SMALL, changed, line_of, load, refers

FARE = "        customProperties: [{property: unit, value: USD}]"
PAYMENT = "      - name: payment\n        physicalType: int\n"
DERIVED = "      - {name: _odd, physicalType: int, customProperties: [{property: derived, value: true}]}\n"
SILVER = "    physicalName: silver.rides\n"


def negation(value: str) -> str:
    """The silver table's own lines, with the property in one."""
    return f"{SILVER}    customProperties: [{{property: negation, value: {value}}}]\n"


THRESHOLD = "        customProperties: [{property: threshold, value: 5000}]"


def test_column_has_its_earlier_names_and_types_and_the_codes_of_earlier_files(tmp_path: Path) -> None:
    own = """\
        customProperties:
          - property: earlier
            value: [{until: 2009-12, name: Payment_Type, type: STRING}, {until: 2010-12, type: string}]
          - {property: codes, value: {' Cash': 2, 'credit ': 1, 3: 3}}
          - {property: optionalWith, value: [fare, started]}
"""
    column = load(tmp_path, (PAYMENT, PAYMENT + own)).silver.columns[1]
    assert column.earlier == (
        Earlier(until="2009-12", name="Payment_Type", type="string"),
        Earlier(until="2010-12", type="string"),
    )
    assert column.source_names == ("payment", "payment_type")
    assert column.codes == {"cash": 2, "credit": 1, "3": 3}
    assert column.optional_with == ("fare", "started")


def test_rule_has_its_thresholds_in_the_condition_and_its_severity(tmp_path: Path) -> None:
    rule = load(
        tmp_path,
        ("fare <= ${threshold}", "fare between ${least} and ${most}\n        severity: refuse"),
        (THRESHOLD, "        customProperties: [{property: threshold, value: {least: -1, most: 2.5}}, "
                    "{property: maxShare, value: 0.1}, {property: source, value: the dictionary}]"),
    ).rules[0]  # fmt: skip
    assert rule.condition == "fare between (-1) and 2.5D"
    assert rule.template == "fare between ${least} and ${most}"
    assert (rule.severity, rule.max_share, rule.source) == (Severity.REFUSE, 0.1, "the dictionary")
    assert rule.thresholds == {"least": -1, "most": 2.5}


def test_rule_rejects_and_a_contract_is_not_strict_unless_it_says_so(tmp_path: Path) -> None:
    contract = load(tmp_path)
    assert {rule.severity for rule in contract.rules} == {Severity.REJECT}
    assert (contract.strict, contract.retention, contract.limits.max_rejected_share) == (False, None, 1)


@pytest.mark.parametrize(
    ("value", "unit", "days"),
    [(30, "d", 30), (1, "month", 31), (6, "months", 183), (7, "y", 2557), (0.5, "years", 183)],
)
def test_retention_is_days_and_never_less_than_what_was_said(
    tmp_path: Path, value: float, unit: str, days: int
) -> None:
    own = f"{{property: retention, value: {value}, unit: {unit}}}"
    sla = f"slaProperties: [{{property: latency, value: 4, unit: h}}, {own}]"
    assert load(tmp_path, ("schema:\n", f"{sla}\nschema:\n")).retention == days


def test_files_stay_in_bronze_and_quarantine_for_ever_unless_the_contract_says_how_long(tmp_path: Path) -> None:
    contract = load(tmp_path)
    assert (contract.keep_bronze, contract.keep_quarantine) == (None, None)
    sla = """slaProperties:
  - {property: retention, value: 7, unit: y}
  - {property: retention, value: 2, unit: y, element: silver.started}
  - {property: retention, value: 6, unit: months, element: bronze}
  - {property: retention, value: 0.5, unit: d, element: quarantine}
"""
    contract = load(tmp_path, ("schema:\n", f"{sla}schema:\n"))
    assert (contract.retention, contract.keep_bronze, contract.keep_quarantine) == (2557, 183, 1)


def test_silver_says_how_a_file_takes_a_row_back(tmp_path: Path) -> None:
    contract = load(tmp_path, (SILVER, negation("{same: [zone, started], negated: [fare]}")))
    assert contract.negation == Negation(same=("zone", "started"), negated=("fare",))
    assert load(tmp_path).negation is None


def test_rule_may_ask_for_repeats_and_for_rows_that_are_taken_back(tmp_path: Path) -> None:
    taken_back = (SILVER, negation("{same: [zone], negated: [fare]}"))
    rules = load(tmp_path, taken_back, ("fare >= 0", "not _negated and _copy = 0")).rules
    assert rules[1].condition == "not _negated and _copy = 0"


def test_name_of_a_derived_column_may_begin_with_an_underscore(tmp_path: Path) -> None:
    columns = load(tmp_path, (PAYMENT, PAYMENT + DERIVED)).silver.columns
    assert [(column.name, column.derived) for column in columns][2] == ("_odd", True)


def test_custom_property_of_another_vendor_is_not_ours_to_judge(tmp_path: Path) -> None:
    assert load(tmp_path, ("schema:\n", "  - {property: color, value: red, vendor: acme}\nschema:\n"))


def test_reference_has_silver_alone_and_says_so_when_asked_for_gold(tmp_path: Path) -> None:
    contract = load(tmp_path, text=REFERENCE)
    assert (contract.kind, contract.gold, contract.transforms) == ("reference", None, None)
    assert contract.transform_functions == ("clean",)
    for part in ("features", "aggregate", "aggregate_by"):
        with pytest.raises(ContractError, match="zones is a reference dataset"):
            getattr(contract, part)


def test_gold_looks_up_columns_of_a_reference_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "zones.yaml").write_text(REFERENCE, "utf-8")
    (tmp_path / "rides.yaml").write_text(changed(*refers()), "utf-8")
    contracts = load_contracts(tmp_path)
    (lookup,) = contracts["rides"].references
    assert (lookup.table, lookup.key, lookup.by, lookup.columns) == (
        "silver.zones",
        "zone",
        "zone",
        {"zone_name": "name"},
    )
    assert {name: contract.last_layer for name, contract in contracts.items()} == {"rides": "gold", "zones": "silver"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("dataset: zones", "dataset: zone", "'zone' is no dataset; did you mean 'zones'"),
        ("dataset: zones", "dataset: others", "'others' is of the kind 'trips'"),
        ("key: zone", "key: zones", "'zones' is no column of silver.zones; did you mean 'zone'"),
        ("zone_name: name", "zone_name: nam", "'nam' is no column of silver.zones; did you mean 'name'"),
        ("by: zone", "by: fare", r"fare is decimal\(10,2\), but zone of silver.zones is int"),
        ("zone_name: name", "zone_name: zone", "features.zone_name is string, but zone of silver.zones is int"),
    ],
    ids=["no-dataset", "no-reference", "no-key", "no-column", "type-of-the-key", "type-of-the-column"],
)
def test_lookup_that_its_reference_cannot_answer_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "zones.yaml").write_text(REFERENCE, "utf-8")
    (tmp_path / "others.yaml").write_text(SMALL.replace("rides", "others"), "utf-8")
    (tmp_path / "rides.yaml").write_text(changed(*refers(LOOKUP.replace(old, new))), "utf-8")
    with pytest.raises(ContractError, match=rf"contract of rides.*references: .*{said}"):
        load_contracts(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "field", "said"),
    [
        ("dataset: zones", "dataset: rides", "[0].dataset", "'rides' is the dataset itself"),
        ("by: zone", "by: zones", "[0].by", "'zones' is no column of silver; did you mean 'zone'"),
        ("zone_name: name", "fare: name", "[0].columns.fare", "'fare' is a column of silver already"),
        ("zone_name: name", "zone_nam: name", "[0].columns.zone_nam", "did you mean 'zone_name'"),
        ("zone_name: name", "trips: name", "[0].by", "the aggregate has 'trips', but not 'zone'"),
        (LOOKUP, f"{LOOKUP}, {LOOKUP}", "[1].columns", "'zone_name' comes from another lookup already"),
        ("by: zone", "on: zone", "[0].by", "it is missing"),
    ],
    ids=["itself", "no-column", "silvers-own", "in-no-table", "not-in-the-aggregate", "twice", "on"],
)
def test_lookup_that_the_contract_itself_cannot_hold_is_refused(
    tmp_path: Path, old: str, new: str, field: str, said: str
) -> None:
    (tmp_path / "rides.yaml").write_text(changed(*refers(LOOKUP.replace(old, new))), "utf-8")
    contract, problems = read_contract(tmp_path / "rides.yaml")
    assert contract is None
    found = {problem.field: problem.message for problem in problems}
    assert said in found[f"customProperties.references{field}"]


OWN = "  - {property: aggregateBy, value: day}\n"
WRONG: dict[str, tuple[tuple[str, str], str, str, str]] = {
    # id: edit, part of the line, field, part of the message
    "name-of-two-columns": (
        ("synonyms: [{synonym: PULocationID}]", "synonyms: [{synonym: Fare}]"),
        "- name: fare\n", "schema.silver.properties.fare.name", "'fare' is a name of zone",
    ),
    "earlier-name-of-two-columns": (
        (PAYMENT, PAYMENT + "        customProperties:\n"
         "          - {property: earlier, value: [{until: 2009-12, name: PULOCATIONID}]}\n"),
        "PULOCATIONID", "schema.silver.properties.payment.customProperties.earlier[0].name", "is a name of zone",
    ),
    "earlier-without-name-and-type": (
        (PAYMENT, PAYMENT + "        customProperties: [{property: earlier, value: [{until: 2009-12}]}]\n"),
        "until", "schema.silver.properties.payment.customProperties.earlier[0]", "at least one was expected",
    ),
    "earlier-until-no-month": (
        (PAYMENT, PAYMENT + "        customProperties: [{property: earlier, value: [{until: 2009-13, name: x}]}]\n"),
        "until", "schema.silver.properties.payment.customProperties.earlier[0].until", "not '2009-13'",
    ),
    "earlier-type": (
        (PAYMENT, PAYMENT + "        customProperties: [{property: earlier, value: [{until: 2009-12, type: text}]}]\n"),
        "until", "schema.silver.properties.payment.customProperties.earlier[0].type", "did you mean string",
    ),
    "codes-of-another-type": (
        (PAYMENT, PAYMENT + "        customProperties: [{property: codes, value: {CSH: 1.5}}]\n"),
        "CSH", "schema.silver.properties.payment.customProperties.codes", "1.5, for the code 'csh', does not fit int",
    ),
    "code-that-yaml-takes-for-a-boolean": (
        (PAYMENT, PAYMENT + "        customProperties: [{property: codes, value: {No: 3}}]\n"),
        "No: 3", "schema.silver.properties.payment.customProperties.codes", "put it into quotes",
    ),
    "code-twice": (
        (PAYMENT, PAYMENT + "        customProperties: [{property: codes, value: {a: 3, ' A': 4}}]\n"),
        "codes", "schema.silver.properties.payment.customProperties.codes", "'a' is there twice",
    ),
    "optional-with-unknown": (
        (PAYMENT, PAYMENT + "        customProperties: [{property: optionalWith, value: [fares]}]\n"),
        "optionalWith", "schema.silver.properties.payment.customProperties.optionalWith", "did you mean 'fare'",
    ),
    "optional-with-itself": (
        (PAYMENT, PAYMENT + "        customProperties: [{property: optionalWith, value: [payment]}]\n"),
        "optionalWith", "schema.silver.properties.payment.customProperties.optionalWith", "is the column itself",
    ),
    "derived-and-looked-for": (
        ("required: true\n        synonyms: [{synonym: PULocationID}]",
         "synonyms: [{synonym: PULocationID}]\n        customProperties: [{property: derived, value: true}]"),
        "PULocationID", "schema.silver.properties.zone.synonyms", "derived",
    ),
    "fill-null-of-another-type": (
        (PAYMENT, PAYMENT + "        customProperties: [{property: fillNull, value: none}]\n"),
        "fillNull", "schema.silver.properties.payment.customProperties.fillNull", "'none' does not fit int",
    ),
    "fill-null-cut": (
        (FARE, "        customProperties: [{property: fillNull, value: 0.005}]"),
        "fillNull", "schema.silver.properties.fare.customProperties.fillNull", "does not fit decimal(10,2)",
    ),
    "type": (
        ("physicalType: timestamp_ntz", "physicalType: datetime"),
        "datetime", "schema.silver.properties.started.physicalType", "did you mean timestamp_ntz",
    ),
    "nested-type": (
        ("physicalType: timestamp_ntz", "physicalType: array<int>"),
        "array<int>", "schema.silver.properties.started.physicalType", "not a column's type",
    ),
    "digits": (
        ("physicalType: decimal(10,2)", "physicalType: decimal(2,10)"),
        "decimal(2,10)", "schema.silver.properties.fare.physicalType", "no decimal",
    ),
    "column-twice": (
        ("- name: started", "- name: payment"), "- name: payment\n        physicalType: timestamp_ntz",
        "schema.silver.properties.payment.name", "two columns 'payment'",
    ),
    "column-without-type": (
        ("      - name: payment\n        physicalType: int\n", "      - name: payment\n"),
        "- name: payment", "schema.silver.properties.payment.physicalType", "valid string, not None",
    ),
    "custom-property-misspelt": (
        ("property: unit, value: USD", "property: units, value: USD"),
        "units", "schema.silver.properties.fare.customProperties.units", "did you mean 'unit'",
    ),
    "own-property-misspelt": (
        (OWN, OWN + "  - {property: strikt, value: true}\n"),
        "strikt", "customProperties.strikt", "did you mean 'strict'",
    ),
    "own-property-twice": (
        (OWN, OWN + "  - {property: path, value: '.*'}\n"), "value: '.*'", "customProperties.path", "there twice",
    ),
    "property-of-silver-in-gold": (
        ("property: unit, value: mile/hour", "property: fillNull, value: 0"),
        "fillNull", "schema.features.properties.speed.customProperties.fillNull", "no property here",
    ),
    "key-of-the-standard-misspelt": (
        ("required: true\n        synonyms", "requird: true\n        synonyms"),
        "requird", "schema.silver.properties.zone.requird", "did you mean 'required'",
    ),
    "key-of-the-team-misspelt": (
        ("team: {name: data-platform}", "team: {nam: data-platform}"), "nam: data", "team.nam", "did you mean 'name'",
    ),
    "key-twice": (
        ("version: 1.2.0", "version: 1.2.0\nname: Trips"), "name: Trips", "name", "twice, first in line 4",
    ),
    "rule-twice": (
        ("- name: negative_fare", "- name: fare_absurd"), "- name: fare_absurd\n        type: custom\n        engine: "
        "sparkSQL\n        implementation: fare >= 0", "schema.silver.quality.fare_absurd.name", "taken",
    ),
    "rule-named-as-a-check-of-ours": (
        ("- name: negative_fare", "- name: null_fare"), "null_fare", "schema.silver.quality.null_fare.name", "taken",
    ),
    "rule-without-column": (
        ("fare >= 0", "1 = 1 and 'fare' = 'fare'"),
        "1 = 1", "schema.silver.quality.negative_fare.implementation", "names no column of silver",
    ),
    "rule-with-a-misspelt-column": (
        ("fare >= 0", "fare >= 0 and starrted is not null"),
        "starrted", "schema.silver.quality.negative_fare.implementation", "did you mean 'started'",
    ),
    "rule-with-an-unknown-threshold": (
        ("${threshold}", "${most}"), "${most}", "schema.silver.quality.fare_absurd.implementation", "${most} is not",
    ),
    "rule-with-an-unused-threshold": (
        ("${threshold}", "5000"), "fare <= 5000", "schema.silver.quality.fare_absurd.implementation", "has no place",
    ),
    "threshold-as-text": (
        ("value: 5000", "value: '5000'"), "'5000'", "schema.silver.quality.fare_absurd.customProperties.threshold",
        "a number was expected",
    ),
    "severity": (
        ("${threshold}", "${threshold}\n        severity: error"),
        "severity", "schema.silver.quality.fare_absurd.severity", "'reject', 'warn' or 'refuse'",
    ),
    "warning-of-what-the-table-does-not-hold": (
        ("${threshold}", "${threshold} and _copy = 0\n        severity: warn"),
        "_copy = 0", "schema.silver.quality.fare_absurd.implementation", "not to warnings",
    ),
    "share-without-refuse": (
        (THRESHOLD, THRESHOLD[:-1] + ", {property: maxShare, value: 0.1}]"),
        "maxShare", "schema.silver.quality.fare_absurd.customProperties.maxShare", "alone",
    ),
    "share-above-1": (
        (THRESHOLD, THRESHOLD[:-1] + ", {property: maxShare, value: 10}]"),
        "maxShare", "schema.silver.quality.fare_absurd.customProperties.maxShare", "less than or equal to 1, not 10",
    ),
    "rule-of-another-engine": (
        ("sparkSQL\n        implementation: fare >= 0", "soda\n        implementation: fare >= 0"),
        "soda", "schema.silver.quality.negative_fare.engine", "'sparkSQL' was expected",
    ),
    "aggregate-by": (
        ("value: day}", "value: days}"), "days", "customProperties.aggregateBy",
        "no column of features; did you mean 'day'",
    ),
    "silver-table": (
        ("silver.rides", "silver.ride"), "silver.ride", "schema.silver.physicalName", "'silver.rides' was expected",
    ),
    "features-table": (
        ("gold.rides_features", "gold.features"),
        "gold.features", "schema.features.physicalName", "'gold.rides_features' was expected",
    ),
    "aggregate-table": (
        ("gold.rides_zone_hour", "gold.zone_hour"), "gold.zone_hour", "schema.aggregate.physicalName", "or the like",
    ),
    "aggregate-table-of-the-features": (
        ("gold.rides_zone_hour", "gold.rides_features "),
        "gold.rides_features \n", "schema.aggregate.physicalName", "or the like",
    ),
    "path": (("'.+[.]parquet'", "'('"), "'('", "customProperties.path", "is no regular expression"),
    "period": (
        ("(?P<month>[0-9]{2})", "([0-9]{2})"), "P<year>", "customProperties.period", "lacks the group month",
    ),
    "limit": (
        (OWN, OWN + "  - property: limits\n    value: {maxRejectedShare: 2}\n"),
        "maxRejectedShare", "customProperties.limits.maxRejectedShare", "not 2",
    ),
    "version": (("version: 1.2.0", "version: v1"), "version: v1", "version", "should match"),
    "negation-of-no-column": (
        (SILVER, negation("{same: [zones], negated: [fare]}")),
        "property: negation", "schema.silver.customProperties.negation.same[0]", "did you mean 'zone'",
    ),
    "negation-of-one-column-twice": (
        (SILVER, negation("{same: [zone, fare], negated: [fare]}")),
        "property: negation", "schema.silver.customProperties.negation.negated[0]", "'fare' is named twice",
    ),
    "negation-of-nothing": (
        (SILVER, negation("{same: [], negated: [fare]}")),
        "property: negation", "schema.silver.customProperties.negation.same", "at least 1 item",
    ),
    "negation-misspelt": (
        (SILVER, SILVER + "    customProperties: [{property: negations, value: {same: [zone], negated: [fare]}}]\n"),
        "negations", "schema.silver.customProperties.negations", "did you mean 'negation'",
    ),
    "negation-that-no-table-says": (
        ("fare >= 0", "not _negated"),
        "_negated", "schema.silver.quality.negative_fare.implementation", "needs the property 'negation'",
    ),
    "underscore-of-a-column-that-files-have": (
        ("- name: started", "- name: _started"), "_started", "schema.silver.properties._started.name", "derived",
    ),
    "name-of-the-jobs-own": (
        (PAYMENT, PAYMENT + DERIVED.replace("_odd", "_row")),
        "_row", "schema.silver.properties._row.name", "the jobs use themselves",
    ),
    "retention": (
        ("schema:\n", "slaProperties:\n  - {property: retention, value: 1, unit: weeks}\nschema:\n"),
        "weeks", "slaProperties.retention.unit", "d, months or y was expected",
    ),
    "retention-of-nothing": (
        ("schema:\n", "slaProperties:\n  - {property: retention, value: 1, unit: d, element: bronce}\nschema:\n"),
        "bronce", "slaProperties.retention.element", "did you mean 'bronze'?",
    ),
    "retention-twice": (
        ("schema:\n", "slaProperties:\n  - {property: retention, value: 1, unit: d, element: bronze}\n"
                      "  - {property: retention, value: 2, unit: d, element: bronze}\nschema:\n"),
        "value: 2", "slaProperties.retention.element", "how long files stay in bronze is said twice",
    ),
    "template-of-the-download": (
        (OWN, OWN + "  - property: download\n    value: {dag: x, file: 'a_{yaer}.parquet'}\n"),
        "yaer", "customProperties.download.file", "{month:02d} were expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_problem_is_told_with_line_and_field(tmp_path: Path, case: str) -> None:
    edit, part, field, said = WRONG[case]
    text = changed(edit)
    (tmp_path / "bad.yaml").write_text(text, "utf-8")
    contract, problems = read_contract(tmp_path / "bad.yaml")
    assert contract is None
    (problem,) = problems
    assert (problem.line, problem.field) == (line_of(text, part), field)
    assert said in problem.message
    assert str(problem).startswith(f"bad.yaml:{problem.line}: {field}: ")


REFERENCE_WRONG = {
    "gold": ("schema:\n", "schema:\n  - {name: features, physicalName: gold.zones_features}\n", "schema.features.name"),
    "lookups": (
        "schema:\n",
        f"  - {{property: references, value: [{LOOKUP}]}}\nschema:\n",
        "customProperties.references",
    ),
    "aggregate-by": (
        "schema:\n",
        "  - {property: aggregateBy, value: zone}\nschema:\n",
        "customProperties.aggregateBy",
    ),
}


@pytest.mark.parametrize("case", REFERENCE_WRONG)
def test_reference_with_parts_of_gold_is_a_contract_error(tmp_path: Path, case: str) -> None:
    old, new, field = REFERENCE_WRONG[case]
    (tmp_path / "bad.yaml").write_text(changed((old, new), text=REFERENCE), "utf-8")
    (problem,) = read_contract(tmp_path / "bad.yaml")[1]
    assert problem.field == field


def test_all_problems_of_a_file_are_told_in_the_order_of_its_lines(tmp_path: Path) -> None:
    edits = [WRONG[case][0] for case in ("key-twice", "own-property-misspelt", "type", "severity", "aggregate-table")]
    (tmp_path / "bad.yaml").write_text(changed(*edits), "utf-8")
    problems = read_contract(tmp_path / "bad.yaml")[1]
    assert [problem.field for problem in problems] == [
        "name",
        "customProperties.strikt",
        "schema.silver.properties.started.physicalType",
        "schema.silver.quality.fare_absurd.severity",
        "schema.aggregate.physicalName",
    ]
    with pytest.raises(ContractError) as raised:
        load_contract(tmp_path / "bad.yaml")
    assert [item["line"] for item in raised.value.context["problems"]] == [item.line for item in problems]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", 1),
        (b"- a\n- b\n", 1),
        (b"id: a\nname: [", 3),
        (b"id: a\nname: \xff", 1),
        (b"id: a\nname: \x00", 1),
        (b"id: a\nversion: 2009-02-31\n", 2),
        (b"id: a\nname: !!python/object:os.system x\n", 2),
        (b"id: a\n---\nid: b\n", 2),
        (b"id: &a [*a]\n", 1),
        (b"? [a, b]\n: c\n", 1),
    ],
    ids=["empty", "list", "open", "not-utf-8", "nul", "no-day", "python", "two-documents", "circle", "list-as-key"],
)
def test_file_that_is_no_contract_at_all_has_problems_and_a_line(tmp_path: Path, data: bytes, line: int) -> None:
    (tmp_path / "bad.yaml").write_bytes(data)
    contract, problems = read_contract(tmp_path / "bad.yaml")
    assert contract is None
    assert problems[0].line == line


def _paths(node: object, at: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [at, *(path for key, value in inner for path in _paths(value, (*at, key)))]


PLACES = [path for path in _paths(yaml.safe_load(SMALL)) if path]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_any_value_at_any_place_is_taken_or_told_with_a_line(
    tmp_path: Path, place: tuple[object, ...], value: object
) -> None:
    document = yaml.safe_load(SMALL)
    node = document
    for part in place[:-1]:
        node = node[part]
    node[place[-1]] = value
    text = yaml.safe_dump(document, allow_unicode=False)
    (tmp_path / "any.yaml").write_text(text, "utf-8")
    contract, problems = read_contract(tmp_path / "any.yaml")
    assert (contract is None) == bool(problems)
    assert all(1 <= problem.line <= text.count("\n") + 1 and problem.field for problem in problems)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60), at=st.integers(0, len(SMALL)), cut=st.integers(0, 40))
def test_any_bytes_in_a_contract_are_taken_or_told(tmp_path: Path, data: bytes, at: int, cut: int) -> None:
    text = SMALL.encode()
    (tmp_path / "any.yaml").write_bytes(text[:at] + data + text[at + cut :])
    contract, problems = read_contract(tmp_path / "any.yaml")
    assert (contract is None) == bool(problems)


@pytest.mark.parametrize("text", ["page", "module"])
def test_every_key_of_ours_is_explained(text: str) -> None:
    page = (PROJECT / "docs" / "contracts.md").read_text("utf-8")
    explained = page if text == "page" else str(loading.__doc__)
    limits = [item.alias for item in Limits.model_fields.values()]
    keys = {*reading.OF_DATASET, *reading.OF_SILVER, *reading.OF_RULE, *limits}
    assert {str(key) for key in keys if f"`{key}`" not in explained} == set()
