"""The guide to a new dataset: its first commands do what it says, one after another. Later ones need a stack."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts.loading import load_contract
from contracts.settings import PROJECT
from sluice import contract_check, scaffold
from sluice.cli import app
from tests.documents import inline_code, shell_lines

GUIDE = PROJECT / "docs" / "adding-a-dataset.md"
LINES = shell_lines(GUIDE)
MADE, NEW, CHECK = LINES[:3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the guide's first commands are run, in place of the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.setenv("SLUICE_CONTRACTS_DIR", str(tmp_path / "contracts"))
    monkeypatch.setattr(scaffold, "PROJECT", tmp_path)
    monkeypatch.setattr(contract_check, "_transforms_folder", lambda: tmp_path / "spark_jobs" / "transforms")
    assert MADE.startswith("python -m ingest.generator ")
    subprocess.run([sys.executable, *shlex.split(MADE)[1:]], env={"PYTHONPATH": str(PROJECT)}, check=True)
    for line in (NEW, CHECK):
        assert line.startswith("sluice contract ")
        done = CliRunner().invoke(app, shlex.split(line)[1:])
        assert done.exit_code == 0, done.output
    return tmp_path


def test_first_commands_of_the_guide_make_the_columns_that_it_goes_through(project: Path) -> None:
    file = project / "contracts" / "my_fhv.yaml"
    made = {column.name: column for column in load_contract(file).silver.columns}
    for name in ("p_ulocation_id", "drop_off_datetime"):
        assert any(f"`{name}`, synonym `{made[name].synonyms[0]}`" in line for line in GUIDE.read_text().splitlines())
    assert made["p_ulocation_id"].type == "double"
    assert [name for name, column in made.items() if column.required] == ["pickup_datetime"]
    assert '# Not taken over: "SR_Flag (the file has no value of it)"' in file.read_text()
    assert load_contract(file).accepts("my_fhv/fhv_2020-04.parquet")
    assert f"gold.{file.stem}_by_pickup_date" == load_contract(file).aggregate.name


def test_rules_that_the_guide_names_are_those_of_the_finished_contract() -> None:
    contract = load_contract(PROJECT / "contracts" / "datasets" / "nyc_fhv.yaml")
    assert {rule.code for rule in contract.rules} <= set(inline_code(GUIDE))
    assert sum(column.optional_in_file for column in contract.silver.columns) == 5
