"""What each part of the stack in containers is given."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from contracts.settings import SECRETS_FILE, Settings
from sluice.containers import PARTS, main, write_secrets
from sluice.secrets import SECRETS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders as `init` finds them; nobody is given to anyone, which takes root and the containers' users."""
    monkeypatch.setattr("sluice.containers._own", lambda *arguments: None)
    monkeypatch.setenv("SLUICE_KAFKA_ADDRESS", "kafka:9092")
    for part in PARTS:
        (tmp_path / part).mkdir()
    return tmp_path


def values(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text("utf-8").splitlines())


def test_each_part_gets_its_own_secrets_and_no_more(folder: Path) -> None:
    write_secrets(folder)
    everything = values(folder / "operator" / SECRETS_FILE)
    assert {name.removeprefix("SLUICE_").lower() for name in everything} == set(SECRETS)
    for name, part in PARTS.items():
        if not part.settings or name == "operator":
            continue
        held = values(folder / name / SECRETS_FILE)
        assert held == {key: value for key, value in everything.items() if key in held}
        assert {key.removeprefix("SLUICE_").lower() for key in held} == set(part.settings) - {"spark_remote"}


def test_only_bootstrap_and_the_operator_have_the_keys_of_the_house(folder: Path) -> None:
    write_secrets(folder)
    everything = values(folder / "operator" / SECRETS_FILE)
    for name in ("SLUICE_POSTGRES_PASSWORD", "SLUICE_MINIO_ROOT_PASSWORD", "SLUICE_KAFKA_ADMIN_PASSWORD"):
        holders = {
            path.parent.name for path in folder.rglob("*") if path.is_file() and everything[name] in path.read_text()
        }
        assert holders - {"operator", "bootstrap"} <= {"postgres", "minio", "kafka"}


def test_a_second_start_changes_no_file(folder: Path) -> None:
    write_secrets(folder)
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}
    write_secrets(folder)
    after = {path: path.read_bytes() for path in before}
    assert after == {path: content for path, (content, _) in before.items()}
    kept = [path for path in before if path.parent.name != "operator"]
    assert all(path.stat().st_ino == before[path][1] for path in kept)


def test_files_are_for_their_owner_alone(folder: Path) -> None:
    write_secrets(folder)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o600}


def test_containers_reach_their_files_whatever_the_umask_was(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_secrets(tmp_path)
    finally:
        os.umask(before)
    for name, part in PARTS.items():
        if part.uid is not None:
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o711, name


def test_the_address_of_a_spark_elsewhere_goes_to_those_who_reach_it(folder: Path) -> None:
    write_secrets(folder)
    path = folder / "operator" / SECRETS_FILE
    address = "sc://spark.example.com:443/;token=abc"
    path.write_text(path.read_text("utf-8") + f"SLUICE_SPARK_REMOTE={address}\n", "utf-8")
    write_secrets(folder)
    holders = {found.parent.name for found in folder.rglob(SECRETS_FILE) if address in found.read_text("utf-8")}
    assert holders == {"operator", "airflow", "spark-connect"}
    part = Settings(_env_file=folder / "airflow" / SECRETS_FILE)  # type: ignore[call-arg]
    assert part.spark_connect_secret_url == address


def test_airflow_s_connections_are_in_a_file_of_its_own_form(folder: Path) -> None:
    write_secrets(folder)
    found = json.loads((folder / "airflow" / "connections.json").read_text("utf-8"))
    assert set(found) == {"sluice_kafka", "spark_default"}
    assert json.loads(found["sluice_kafka"]["extra"])["bootstrap.servers"] == "kafka:9092"


@pytest.mark.parametrize("words", [[], ["nobody"], ["router", "more"]])
def test_a_word_that_names_no_service_is_told_the_ones_that_are(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert "init|postgres" in capsys.readouterr().err
