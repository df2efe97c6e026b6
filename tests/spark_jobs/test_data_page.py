"""docs/data.md says what the contracts of the taxi trips say."""

from __future__ import annotations

import pytest

from contracts.dataset import Column
from contracts.loading import load_contracts
from contracts.settings import PROJECT

LINES = (PROJECT / "docs" / "data.md").read_text("utf-8").splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES if line.startswith("| `")]
CONTRACTS = load_contracts(PROJECT / "contracts" / "datasets")


@pytest.mark.parametrize("dataset", ["nyc_yellow", "nyc_green"])
def test_page_has_every_column_with_its_type_and_unit_and_says_when_it_is_null(dataset: str) -> None:
    contract = CONTRACTS[dataset]
    for table in (contract.silver, contract.features, contract.aggregate):
        for column in table.columns:
            assert any(row[:3] == _first_cells(column) and all(row[3:]) for row in ROWS), (table.name, column.name)


@pytest.mark.parametrize("dataset", ["nyc_yellow", "nyc_green"])
def test_page_has_every_rule_with_its_severity_thresholds_and_source(dataset: str) -> None:
    for rule in CONTRACTS[dataset].rules:
        thresholds = ", ".join(f"{name} = {value}" for name, value in rule.thresholds.items())
        found = [row for row in ROWS if row[0] == f"`{rule.code}`"]
        assert [(row[1], row[3]) for row in found] == [(rule.severity, thresholds)], rule.code
        assert all(found[0][index] for index in (2, 4)), rule.code
        assert rule.source, rule.code
        assert rule.description, rule.code


def test_page_names_no_rule_or_column_that_no_contract_has() -> None:
    contracts = CONTRACTS.values()
    tables = [table for c in contracts for table in (c.silver, *((c.features, c.aggregate) if c.gold else ()))]
    known = {column.name for table in tables for column in table.columns}
    known |= {rule.code for contract in CONTRACTS.values() for rule in contract.rules}
    assert {row[0].strip("`") for row in ROWS} <= known


def _first_cells(column: Column) -> list[str]:
    return [f"`{column.name}`", column.type, column.unit]
