"""Checks of contract files that need the repository around them: other contracts, and the transformations' code."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from contracts.checking import meant
from contracts.dataset import DatasetContract
from contracts.errors import UsageError
from contracts.loading import Problem, load_contract, problem_with, read_contract, wrong_references

_PACKAGE = "spark_jobs.transforms"


def chosen(folder: Path, targets: Sequence[str]) -> list[Path]:
    """The files that are meant: those named, those of the datasets named, or all of the folder.

    Raises:
        UsageError: a target is neither a file nor a dataset; names the datasets that there are.
    """
    return [_file(folder, target) for target in targets] if targets else sorted(folder.glob("*.yaml"))


def read(path: Path) -> DatasetContract:
    """A contract from a file that a person named.

    Raises:
        UsageError: there is no such file.
        ContractError: it is not valid.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}; a contract file was expected.")
    return load_contract(path)


def problems_of(paths: Sequence[Path], folder: Path, transforms: Path | None = None) -> list[Problem]:
    """All that is wrong with contract files; their paths as they were given.

    Args:
        folder: where the other contracts are, which may be referred to.
        transforms: where the modules of the transformations are; those of this installation by default.
    """
    transforms = transforms or _transforms_folder()
    # Of files that can be read; the others are told of when they are asked for.
    others = {path: contract for path in folder.glob("*.yaml") if (contract := read_contract(path)[0])}
    found = []
    for path in paths:
        contract, problems = read_contract(path)
        if contract is not None:
            problems = tuple(_around(path, contract, others, transforms))
        found += [replace(problem, file=str(path)) for problem in problems]
    return found


def _file(folder: Path, target: str) -> Path:
    named, own = Path(target), folder / f"{target}.yaml"
    if named.is_file():
        return named
    if own.is_file():
        return own
    known = {path.stem for path in folder.glob("*.yaml")}
    raise UsageError(f"{target!r} is neither a file nor a dataset{meant(target, known)}.")


def _around(
    path: Path, contract: DatasetContract, others: dict[Path, DatasetContract], transforms: Path
) -> Iterator[Problem]:
    twins = [
        other.name
        for other, its in others.items()
        if its.dataset == contract.dataset and other.resolve() != path.resolve() and other.parent == path.parent
    ]
    if twins:
        yield problem_with(path, "", f"{contract.dataset} is the dataset of {twins[0]} too; give one of both another")
    known = {its.dataset: its for its in others.values()}
    if wrong := wrong_references(contract, known):
        yield problem_with(path, "references", wrong)
    if wrong := _transforms_problem(contract, transforms):
        yield problem_with(path, "transforms", wrong)


def _transforms_folder() -> Path:
    # Without importing the module itself, which would import Spark.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"The package {_PACKAGE} is not there; run this in the project's own environment.")
    return Path(next(iter(spec.submodule_search_locations)))


def _transforms_problem(contract: DatasetContract, folder: Path) -> str:
    """What is wrong with the module of the transformations, as far as its text tells; empty when nothing is."""
    if contract.transforms is None:
        return ""
    module = f"{_PACKAGE}.{contract.transforms}"
    file = next((path for path in (folder / f"{contract.transforms}.py", folder / contract.transforms / "__init__.py")
                 if path.is_file()), None)  # fmt: skip
    if file is None:
        known = {path.stem for path in folder.glob("*.py")} - {"__init__", "loading"}
        return f"there is no module {module}{meant(contract.transforms, known)}"
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        return f"the module {module} is no Python: {error}"
    names = set(_names(tree))
    missing = [name for name in contract.transform_functions if name not in names]
    return f"the module {module} lacks {', '.join(missing)}, which this dataset needs" if missing else ""


def _names(tree: ast.Module) -> Iterator[str]:
    """What a module defines at its top, as far as its text tells."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name.asname or name.name for name in node.names)
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
