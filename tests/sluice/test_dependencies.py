"""The arrows between our packages point one way, and each outside system has one module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.settings import PROJECT

ALLOWED = {
    "contracts": set(),
    "ingest": {"contracts"},
    "consumers": {"contracts", "ingest"},
    "spark_jobs": {"contracts", "ingest"},
    "sluice": {"contracts", "ingest", "consumers", "spark_jobs"},
}
ONLY_IN = {
    "kafka": "consumers/broker.py",
    "duckdb": "spark_jobs/duck.py",
    "supervisor": "sluice/supervisor.py",
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _modules() -> list[Path]:
    return [path for package in ALLOWED for path in sorted((PROJECT / package).rglob("*.py"))]


@pytest.mark.parametrize("package", ALLOWED)
def test_package_imports_only_what_stands_below_it(package: str) -> None:
    wrong = [
        f"{path.relative_to(PROJECT)} imports {name}"
        for path in sorted((PROJECT / package).rglob("*.py"))
        for name in _imports(path)
        if name.partition(".")[0] in set(ALLOWED) - ALLOWED[package] - {package}
    ]
    assert wrong == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_of_an_outside_system_is_imported_by_one_module(library: str) -> None:
    users = {
        str(path.relative_to(PROJECT))
        for path in _modules()
        if any(name.partition(".")[0] == library for name in _imports(path))
    }
    assert users == {ONLY_IN[library]}


def test_no_dataset_is_named_in_code_outside_its_contract_and_transformation() -> None:
    datasets = [path.stem for path in (PROJECT / "contracts" / "datasets").glob("*.yaml")]
    assert datasets
    # The sample generator makes the files of these datasets and no others; its table is the one place that names them.
    table = PROJECT / "ingest" / "eras.py"
    folders = [*(PROJECT / package for package in ALLOWED), PROJECT / "airflow"]
    naming = [
        str(path.relative_to(PROJECT))
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        if "transforms" not in path.parts
        and path != table
        and any(dataset in _code_strings(path) for dataset in datasets)
    ]
    assert naming == []


def _code_strings(path: Path) -> str:
    """All names and strings of a module but for its docstrings and help texts, which may give examples."""
    tree = ast.parse(path.read_text("utf-8"))
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            texts.append(node.value)
        elif isinstance(node, ast.Name):
            texts.append(node.id)
    return "\n".join(texts)
