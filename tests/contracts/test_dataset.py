"""Dataset contracts."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml

from contracts.dataset import Completeness, Limits
from contracts.errors import ContractError, UnknownDataset
from contracts.loading import get_contract, load_contract, load_contracts

DATASETS = Path(__file__).parents[2] / "contracts" / "datasets"
TAXI = DATASETS / "nyc_yellow.yaml"


def test_every_contract_of_the_project_is_valid() -> None:
    assert load_contracts(DATASETS)["nyc_yellow"].rejects_table == "silver.nyc_yellow_rejects"


@pytest.mark.parametrize(
    ("key", "accepted"),
    [
        ("nyc_yellow/a.parquet", True),
        ("nyc_yellow/2025/ä +%.parquet", True),
        ("nyc_yellow/a.parquet\n", False),
        ("nyc_yellow/a.csv", False),
        ("nyc_yellow/_staging/a.parquet", False),
        ("nyc_yellow/.a.parquet", False),
        ("nyc_yellow_2/a.parquet", False),
        ("a.parquet", False),
        ("nyc_yellow/../taxi_zones/a.parquet", False),
        ("nyc_yellow/%2e%2e/taxi_zones/a.parquet", False),
    ],
)
def test_contract_accepts_keys_that_its_path_matches_in_full(key: str, accepted: bool) -> None:
    assert load_contract(TAXI).accepts(key) is accepted


@pytest.mark.parametrize(
    ("bucket", "key", "owned"),
    [
        pytest.param("bronze", "nyc_yellow/a.parquet", True, id="own"),
        pytest.param("bronze", "nyc_yellow/2025/as it was once.csv", True, id="of-an-older-path-pattern"),
        pytest.param("bronze", "nyc_yellow/50%25..parquet", True, id="percent-and-dots-that-climb-nowhere"),
        pytest.param("bronze", "taxi_zones/a.parquet", False, id="another-dataset"),
        pytest.param("bronze", "nyc_yellow_2/a.parquet", False, id="longer-name"),
        pytest.param("bronze", "nyc_yellow", False, id="no-folder"),
        pytest.param("bronze", "/nyc_yellow/a.parquet", False, id="absolute"),
        pytest.param("bronze", "nyc_yellow//a.parquet", False, id="empty-part"),
        pytest.param("bronze", "nyc_yellow/../taxi_zones/a.parquet", False, id="climbs"),
        pytest.param("bronze", "nyc_yellow/./a.parquet", False, id="dot"),
        pytest.param("bronze", "nyc_yellow/%2E%2e/taxi_zones/a.parquet", False, id="climbs-encoded"),
        pytest.param("bronze", "nyc_yellow/%252e%252e/taxi_zones/a.parquet", False, id="climbs-encoded-twice"),
        pytest.param("silver", "nyc_yellow/a.parquet", False, id="silver"),
        pytest.param("quarantine", "nyc_yellow/a.parquet", False, id="quarantine"),
        pytest.param("bronze/nyc_yellow", "nyc_yellow/a.parquet", False, id="folder-in-the-bucket's-name"),
    ],
)
def test_dataset_owns_the_objects_of_its_folder_in_bronze_alone(bucket: str, key: str, owned: bool) -> None:
    assert load_contract(TAXI).owns(bucket, key) is owned


def test_period_is_the_month_that_the_key_names() -> None:
    contract = load_contract(TAXI)
    period = contract.period_of("nyc_yellow/yellow_tripdata_2024-12.parquet")
    assert period is not None
    assert (period.start, period.end) == (datetime(2024, 12, 1), datetime(2025, 1, 1))
    assert contract.period_of("nyc_yellow/a.parquet") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"id": "With Space"}, "dataset", id="name"),
        pytest.param({"schema": []}, "'silver'", id="no-tables"),
        pytest.param({"customProperties": []}, "path", id="no-path"),
        pytest.param({"customProperties": [{"property": "path", "value": "("}]}, "not a valid", id="path-no-pattern"),
    ],
)
def test_contract_that_is_not_valid_names_file_and_field(tmp_path: Path, change: dict[str, object], said: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(TAXI.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(ContractError, match=r"bad\.yaml") as raised:
        load_contract(file)
    assert said in str(raised.value)


def _with(folder: Path, name: str, value: dict[str, object]) -> Path:
    document = yaml.safe_load(TAXI.read_text("utf-8"))
    kept = [item for item in document["customProperties"] if item["property"] != name]
    file = folder / f"{name}.yaml"
    file.write_text(
        yaml.safe_dump(document | {"customProperties": [*kept, {"property": name, "value": value}]}), "utf-8"
    )
    return file


def test_limit_that_a_contract_leaves_out_has_its_default(tmp_path: Path) -> None:
    limits = load_contract(_with(tmp_path, "limits", {"maxRows": 5})).limits
    assert limits == Limits(max_rows=5)
    assert limits.max_bytes == 4 * 1024**3


@pytest.mark.parametrize("limits", [{"maxRow": 5}, {"maxRows": 0}, {"maxRows": "many"}])
def test_limit_that_is_none_is_a_contract_error(tmp_path: Path, limits: dict[str, object]) -> None:
    with pytest.raises(ContractError, match=next(iter(limits))):
        load_contract(_with(tmp_path, "limits", limits))


WAITS: dict[str, object] = {"timeLimit": "PT6H", "onTimeLimit": "release"}


def test_dataset_waits_for_sets_only_where_its_contract_says_so(tmp_path: Path) -> None:
    assert load_contract(TAXI).completeness is None
    assert load_contract(_with(tmp_path, "completeness", WAITS)).completeness == Completeness(
        manifest="manifest.json", time_limit=timedelta(hours=6), on_time_limit="release"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"manifest": "a/b.json"}, "manifest"),
        ({"manifest": "_manifest.json"}, "manifest"),
        ({"manifest": ""}, "manifest"),
        ({"timeLimit": "PT0S"}, "timeLimit"),
        ({"timeLimit": "P999999D"}, "timeLimit"),
        ({"timeLimit": "soon"}, "timeLimit"),
        ({"onTimeLimit": "wait"}, "onTimeLimit"),
        ({"onTimeLimit": None}, "onTimeLimit"),
        ({"timelimit": "PT6H"}, "timelimit"),
    ],
)
def test_completeness_that_cannot_be_kept_is_a_contract_error(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises(ContractError, match=said):
        load_contract(_with(tmp_path, "completeness", WAITS | change))


@pytest.mark.parametrize(
    ("key", "manifest"),
    [
        ("nyc_yellow/manifest.parquet", True),
        ("nyc_yellow/2025/01/manifest.parquet", True),
        ("nyc_yellow/2025/a_manifest.parquet", False),
        ("nyc_yellow/manifest.parquet/a.parquet", False),
        ("nyc_yellow_2/manifest.parquet", False),
        ("manifest.parquet", False),
    ],
)
def test_manifest_is_known_by_its_name_and_is_no_data_file_whatever_the_path_says(
    tmp_path: Path, key: str, manifest: bool
) -> None:
    contract = load_contract(_with(tmp_path, "completeness", WAITS | {"manifest": "manifest.parquet"}))
    assert contract.is_manifest(key) is manifest
    assert not (manifest and contract.accepts(key))
    assert load_contract(TAXI).is_manifest(key) is False


def test_file_that_is_no_yaml_is_a_contract_error(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("id: [", "utf-8")
    with pytest.raises(ContractError, match="not YAML"):
        load_contracts(tmp_path)


def test_two_contracts_of_one_dataset_are_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(TAXI.read_text("utf-8"), "utf-8")
    with pytest.raises(ContractError, match=r"b\.yaml names the dataset nyc_yellow"):
        load_contracts(tmp_path)


def test_unknown_dataset_names_those_that_there_are() -> None:
    known = load_contracts(DATASETS)
    with pytest.raises(UnknownDataset, match=f"Known: {', '.join(sorted(known))}"):
        get_contract(known, "oders")
