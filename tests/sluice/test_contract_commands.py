"""`sluice contract check`, `new` and `diff`."""

from __future__ import annotations

import ast
import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from contracts.errors import UsageError
from contracts.loading import load_contract
from contracts.settings import PROJECT
from sluice import scaffold as scaffold_module
from sluice.cli import app
from sluice.contract_check import problems_of
from sluice.scaffold import scaffold, write_files
from tests.contracts.variants import LOOKUP, REFERENCE, SMALL, changed, line_of, refers


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets"
    folder.mkdir()
    return folder


@pytest.fixture
def run(tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.setenv("SLUICE_CONTRACTS_DIR", str(datasets))
    monkeypatch.setattr(scaffold_module, "PROJECT", tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["contract", *arguments])


def put(folder: Path, name: str, *edits: tuple[str, str], text: str = SMALL) -> Path:
    file = folder / name
    file.write_text(changed(*edits, text=text), "utf-8")
    return file


def test_every_contract_of_the_project_passes_the_check() -> None:
    folder = PROJECT / "contracts" / "datasets"
    assert problems_of(sorted(folder.glob("*.yaml")), folder) == []


def test_check_without_a_name_looks_at_all_and_exits_0_when_they_are_fine(
    run: Callable[..., Any], datasets: Path
) -> None:
    put(datasets, "rides.yaml")
    put(datasets, "zones.yaml", text=REFERENCE)
    shown = run("check")
    assert (shown.exit_code, shown.output.strip()) == (0, "2 contract(s) checked, no problem(s)")


def test_check_prints_file_line_and_field_of_every_problem_and_exits_2(run: Callable[..., Any], datasets: Path) -> None:
    file = put(datasets, "rides.yaml", ("timestamp_ntz", "datetime"), ("version: 1.2.0", "version: 1"))
    shown = run("check", "rides")
    assert shown.exit_code == 2
    lines = shown.output.splitlines()
    assert lines[0].startswith(f"{file}:5: version: ")
    number = line_of(file.read_text("utf-8"), "datetime\n    quality")
    assert lines[1].startswith(f"{file}:{number}: schema.silver.properties.started.physicalType: 'datetime' is not a ")
    assert lines[2].strip() == "1 contract(s) checked, 2 problem(s)"


def test_check_as_json_is_a_list_of_problems(run: Callable[..., Any], datasets: Path, tmp_path: Path) -> None:
    file = put(tmp_path, "elsewhere.yaml", ("value: day}", "value: dai}"))
    shown = run("check", str(file), "--json")
    assert shown.exit_code == 2
    (problem,) = json.loads(shown.output)
    assert set(problem) == {"file", "line", "field", "message"}
    assert (problem["file"], problem["field"]) == (str(file), "customProperties.aggregateBy")
    put(datasets, "rides.yaml")
    assert json.loads(run("check", "--json").output) == []


def test_check_of_a_dataset_that_there_is_not_names_the_nearest(run: Callable[..., Any], datasets: Path) -> None:
    put(datasets, "rides.yaml")
    shown = run("check", "ride")
    assert shown.exit_code == 2
    assert "'ride' is neither a file nor a dataset; did you mean 'rides'?" in shown.output


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        ("nyc_taxy", None, "there is no module spark_jobs.transforms.nyc_taxy; did you mean 'nyc_taxi'?"),
        ("own", "def clean(df): ...\nfrom x import features\n", "lacks aggregate, which"),
        ("own", "def clean(df:\n", "is no Python"),
    ],
    ids=["no-module", "no-function", "no-python"],
)
def test_check_looks_at_the_code_of_the_transformations_without_running_it(
    datasets: Path, tmp_path: Path, value: str, code: str | None, said: str
) -> None:
    file = put(datasets, "rides.yaml", ("transforms, value: nyc_taxi", f"transforms, value: {value}"))
    folder = tmp_path / "transforms"
    folder.mkdir()
    (folder / "nyc_taxi.py").write_text("", "utf-8")
    if code is not None:
        (folder / f"{value}.py").write_text(code, "utf-8")
    (problem,) = problems_of([file], datasets, folder)
    assert (problem.line, problem.field) == (11, "customProperties.transforms")
    assert said in problem.message


def test_check_imports_no_spark() -> None:
    code = (
        "import sys; from pathlib import Path; from sluice.contract_check import problems_of as check;"
        "folder = Path('contracts/datasets'); check(sorted(folder.glob('*.yaml')), folder);"
        "sys.exit('pyspark' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0


def test_check_finds_two_files_of_one_dataset_and_references_that_are_not_there(datasets: Path) -> None:
    own = refers(LOOKUP.replace("zones", "zonez"))
    files = [put(datasets, "a.yaml", *own), put(datasets, "b.yaml"), put(datasets, "zones.yaml", text=REFERENCE)]
    found = [(Path(problem.file).name, problem.field, problem.message) for problem in problems_of(files, datasets)]
    assert found == [
        ("a.yaml", "id", "rides is the dataset of b.yaml too; give one of both another"),
        ("a.yaml", "customProperties.references", "'zonez' is no dataset; did you mean 'zones'?"),
        ("b.yaml", "id", "rides is the dataset of a.yaml too; give one of both another"),
    ]


def test_diff_lists_changes_and_exits_1_where_one_breaks_readers(run: Callable[..., Any], tmp_path: Path) -> None:
    old = put(tmp_path, "old.yaml")
    new = put(tmp_path, "new.yaml", ("mile/hour", "km/hour"), ("version: 1.2.0", "version: 2.0.0"))
    shown = run("diff", str(old), str(new))
    assert shown.exit_code == 1
    assert shown.output.startswith("  breaking   unit_changed features.speed: mile/hour is km/hour now")
    answer = json.loads(run("diff", str(old), str(new), "--json").output)
    assert (answer["compatible"], answer["problems"]) == (False, [])
    assert answer["changes"] == [
        {"kind": "unit_changed", "where": "features.speed", "breaking": True, "why": answer["changes"][0]["why"]}
    ]


@pytest.mark.parametrize(("version", "code"), [("1.3.0", 0), ("1.2.0", 2)])
def test_diff_of_compatible_contracts_exits_0_once_the_version_rose(
    run: Callable[..., Any], tmp_path: Path, version: str, code: int
) -> None:
    old = put(tmp_path, "old.yaml")
    new = put(tmp_path, "new.yaml", ("decimal(10,2)", "decimal(12,2)"), ("version: 1.2.0", f"version: {version}"))
    shown = run("diff", str(old), str(new), "--json")
    assert shown.exit_code == code
    assert json.loads(shown.output)["compatible"] is True


def test_diff_of_what_is_no_contract_exits_2(run: Callable[..., Any], tmp_path: Path) -> None:
    old = put(tmp_path, "old.yaml")
    assert run("diff", str(old), str(tmp_path / "gone.yaml")).exit_code == 2
    (tmp_path / "bad.yaml").write_text("id: [", "utf-8")
    shown = run("diff", str(old), str(tmp_path / "bad.yaml"))
    assert shown.exit_code == 2
    assert "bad.yaml:1:" in shown.output or "bad.yaml:2:" in shown.output


FILE = pa.table(
    {
        "VendorID": pa.array([1], pa.int32()),
        "lpepPickup_Datetime": pa.array([datetime(2025, 1, 1)], pa.timestamp("us")),
        "PULocationID": pa.array([7], pa.int64()),
        "Fare Amt.": pa.array([Decimal("1.50")], pa.decimal128(10, 2)),
        "No": pa.array(["x"]),
        "row_count": pa.array([1.5]),
        "2nd": pa.array([True]),
        "ehail_fee": pa.nulls(1),
        "parts": pa.array([[1]]),
        "raw": pa.array([b"x"]),
        "x" * 60: pa.array([1], pa.int8()),
    }
)
SOURCES: dict[str, pa.Table | None] = {
    "none": None,
    "taxi": FILE,
    "no-time": FILE.select(["No", "VendorID"]),
    "day": pa.table({"day": pa.array([date(2025, 1, 1)]), "day_date": pa.array(["x"])}),
    "counted-by": pa.table({"row_count": pa.array([1])}),
}


def _made(folder: Path, case: str) -> tuple[Path, list[Path]]:
    """The folder of the contracts, and the files that were made."""
    source = None
    if (table := SOURCES[case]) is not None:
        source = folder / "file.parquet"
        pq.write_table(table, source)
    return folder / "contracts", write_files(
        scaffold("orders", "Orders: \"all\" – 'of' them", source), folder / "contracts", folder
    )


@pytest.mark.parametrize("case", SOURCES)
def test_new_dataset_passes_the_check_and_the_linter_as_it_is(tmp_path: Path, case: str) -> None:
    folder, (contract, transforms, test) = _made(tmp_path, case)
    assert problems_of([contract], folder, transforms.parent) == []
    for file, place in ((transforms, "spark_jobs/transforms"), (test, "tests/spark_jobs")):
        for command in (["check"], ["format", "--check"]):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *command, "--stdin-filename", f"{place}/{file.name}", "-"],
                input=file.read_text("utf-8"), capture_output=True, text=True, cwd=PROJECT, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout


def test_new_dataset_has_the_columns_and_types_of_a_file_and_names_what_it_left_out(tmp_path: Path) -> None:
    _, (file, _, _) = _made(tmp_path, "taxi")
    contract = load_contract(file)
    assert {column.name: (column.type, column.synonyms) for column in contract.silver.columns} == {
        "vendor_id": ("int", ("VendorID",)),
        "lpep_pickup_datetime": ("timestamp_ntz", ("lpepPickup_Datetime",)),
        "pu_location_id": ("bigint", ("PULocationID",)),
        "fare_amt": ("decimal(10,2)", ("Fare Amt.",)),
        "no": ("string", ()),
        "row_count": ("double", ()),
        "column_2nd": ("boolean", ("2nd",)),
        "x" * 32: ("tinyint", ("x" * 60,)),
    }
    assert contract.aggregate_by == "lpep_pickup_date"
    text = file.read_text("utf-8")
    left_out = ("ehail_fee (the file has no value of it)", "parts (nested)", "raw (binary)")
    assert all(f'# Not taken over: "{name}' in text for name in left_out)
    assert yaml.safe_load(text)["name"] == "Orders: \"all\" – 'of' them"


def test_new_dataset_takes_a_csv_and_the_types_that_its_values_look_like(tmp_path: Path) -> None:
    csv = tmp_path / "file.csv.gz"
    lines = (
        'base, "pickup_datetime",zone,fare,shared',
        "B00477,2020-04-24 08:20:17.000000,264,1.5,",
        "too,few",
        '"B01259",2020-04-24 08:26:59.000000,,2,',
    )
    csv.write_bytes(gzip.compress("\n".join(lines).encode()))
    file, *_ = write_files(scaffold("orders", source=csv), tmp_path / "contracts", tmp_path)
    contract = load_contract(file)
    assert {column.name: column.type for column in contract.silver.columns} == {
        "base": "string",
        "pickup_datetime": "timestamp_ntz",
        "zone": "bigint",
        "fare": "double",
    }
    assert 'Not taken over: "shared (the file has no value of it)"' in file.read_text("utf-8")


@pytest.mark.parametrize("case", SOURCES)
def test_column_that_the_aggregate_is_kept_by_is_required_and_no_row_is_without_it(tmp_path: Path, case: str) -> None:
    _, (file, _, _) = _made(tmp_path, case)
    contract = load_contract(file)
    by, columns = contract.aggregate_by, contract.silver.columns
    (source,) = [c for c in columns if c.name == by] or [c for c in columns if c.type.startswith("timestamp")]
    assert source.required


def test_test_of_a_new_dataset_tests_all_three_transformations(tmp_path: Path) -> None:
    _, (_, transforms, test) = _made(tmp_path, "none")
    names = [node.name for node in ast.parse(transforms.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]
    assert names == ["clean", "features", "aggregate"]
    assert all(f"transforms.{name}(" in test.read_text("utf-8") for name in names)


def test_new_writes_three_files_and_overwrites_none(run: Callable[..., Any], datasets: Path, tmp_path: Path) -> None:
    shown = run("new", "orders", "--json")
    assert shown.exit_code == 0
    files = [Path(path) for path in json.loads(shown.output)["files"]]
    assert files == [
        datasets / "orders.yaml",
        tmp_path / "spark_jobs" / "transforms" / "orders.py",
        tmp_path / "tests" / "spark_jobs" / "test_orders.py",
    ]
    files[0].unlink()
    files[1].write_text("mine", "utf-8")
    shown = run("new", "orders")
    assert shown.exit_code == 2
    assert "orders.py" in shown.output
    assert not files[0].exists()
    assert files[1].read_text("utf-8") == "mine"


@pytest.mark.parametrize("name", ["Orders", "9lives", "a-b", "../up", "class", "x" * 41, ""])
def test_new_refuses_a_name_that_no_dataset_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a dataset's name"):
        scaffold(name)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("file.parquet", None, "There is no file"),
        ("file.parquet", b"", "is no parquet file"),
        ("file.parquet", b"a,b\n1,2\n", r"A CSV is called \.csv"),
        ("file.csv", b"", "is no CSV"),
        ("file.csv", b"PAR1\x00\xff\n\xff", "is no CSV"),
        ("file.csv.gz", b"a,b\n1,2\n", "is no CSV"),
    ],
)
def test_new_from_what_cannot_be_read_says_so(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        scaffold("orders", source=file)


def test_new_from_a_file_without_a_usable_column_says_so(tmp_path: Path) -> None:
    pq.write_table(FILE.select(["raw", "parts"]), tmp_path / "file.parquet")
    with pytest.raises(UsageError, match=r"raw \(binary\), parts \(nested\)"):
        scaffold("orders", source=tmp_path / "file.parquet")
