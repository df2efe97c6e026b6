"""Backups of a stack's databases, on a real Postgres and a real MinIO; the servers around them are not started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from consumers.migrate import migrate
from contracts.errors import UsageError
from contracts.settings import SECRETS_FILE, Settings
from ingest.bootstrap import bootstrap_store
from ingest.store import store_for
from sluice import backup, stack
from sluice.postgres_server import bootstrap_databases
from sluice.secrets import write_private
from tests.servers import running_minio, running_postgres, settings_in

pytestmark = pytest.mark.services

METADATA = "silver/trips/metadata/v1.json"
SNAPSHOT = "silver/trips/metadata/snap-7.avro"
PASSWORDS = "SLUICE_LEDGER_PASSWORD=x\nSLUICE_POSTGRES_PASSWORD=postgres-for-tests\nSLUICE_AIRFLOW_FERNET_KEY=old=\n"
OTHER = "SLUICE_POSTGRES_PASSWORD=of-this-cluster\nSLUICE_AIRFLOW_FERNET_KEY=new=\n"
BEFORE = f"{SECRETS_FILE}.before-restore"


@dataclass
class StandingStack:
    """A stack whose storage runs anyway: only its Postgres client is real."""

    settings: Settings
    done: list[str] = field(default_factory=list)

    def start_storage(self, say: object) -> Settings:
        self.done.append("start_storage")
        return self.settings

    def up(self, say: object) -> Settings:
        self.done.append("up")
        return self.settings

    def down(self, say: object) -> None:
        self.done.append("down")

    postgres_client = staticmethod(stack.postgres_client)


@pytest.fixture(scope="module")
def settings(server_home: Path) -> Iterator[Settings]:
    contracts = server_home / "contracts"
    contracts.mkdir()
    (contracts / "trips.yaml").write_text("as it was", "utf-8")
    found = settings_in(server_home).model_copy(update={"contracts_dir": contracts})
    write_private(server_home / SECRETS_FILE, PASSWORDS)
    with running_postgres(found), running_minio(found):
        bootstrap_store(found.model_copy(update={"contracts_dir": Settings().contracts_dir}))
        bootstrap_databases(found)
        migrate(found.postgres_url("ledger", "lake"))
        with psycopg.connect(found.postgres_url("catalog", "lake")) as link:
            link.execute("create table iceberg_tables (table_namespace text, table_name text, metadata_location text)")
            link.execute("insert into iceberg_tables values ('silver', 'trips', %s)", (f"s3a://{METADATA}",))
        with psycopg.connect(found.postgres_url("airflow", "airflow")) as link:
            link.execute("create table dag_run (run_id text)")
            link.execute("insert into dag_run values ('one')")
        store = store_for(found, "root")
        described = {
            "current-snapshot-id": 7,
            "snapshots": [{"snapshot-id": 7, "manifest-list": f"s3a://{SNAPSHOT}"}],
        }
        store.put_bytes("silver", METADATA.partition("/")[2], json.dumps(described).encode())
        store.put_bytes("silver", SNAPSHOT.partition("/")[2], b"manifests")
        yield found


@pytest.fixture
def taken(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backup of the stack as it is."""
    monkeypatch.setattr(backup, "load_settings", lambda: settings)
    monkeypatch.delenv("SLUICE_SECRETS_FILE", raising=False)
    return backup.back_up(StandingStack(settings), settings, tmp_path, print)  # type: ignore[arg-type]


def rows(settings: Settings, role: str, database: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(settings.postgres_url(role, database)) as link:
        return link.execute(statement).fetchall()


def test_backup_is_for_its_owner_alone_and_reads_back(taken: Path) -> None:
    manifest = backup.read(taken)
    assert dict(manifest.tables) == {"silver.trips": f"s3a://{METADATA}"}
    assert set(manifest.files) == {"airflow.dump", "lake.dump", SECRETS_FILE, "contracts/trips.yaml"}
    assert taken.stat().st_mode & 0o777 == 0o700
    assert (taken / "airflow.dump").stat().st_mode & 0o777 == 0o600
    assert (taken / SECRETS_FILE).stat().st_mode & 0o777 == 0o600


def test_restore_brings_both_databases_back_with_their_owners_and_grants(settings: Settings, taken: Path) -> None:
    with psycopg.connect(settings.postgres_url("airflow", "airflow")) as link:
        link.execute("insert into dag_run values ('after the backup')")
    with psycopg.connect(settings.postgres_url("ledger", "lake")) as link:
        link.execute("drop table ledger.files cascade")
    said: list[str] = []
    (settings.contracts_dir / "trips.yaml").write_text("changed", "utf-8")
    standing = StandingStack(settings)
    backup.restore(standing, taken, said.append)  # type: ignore[arg-type]
    assert standing.done == ["start_storage", "up"], "the passwords are the same, so nothing need be stopped"
    assert rows(settings, "airflow", "airflow", "select run_id from dag_run") == [("one",)]
    assert rows(settings, "ledger", "lake", "select count(*) from ledger.files") == [(0,)]
    assert rows(settings, "reader", "lake", "select table_name from iceberg_tables") == [("trips",)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        rows(settings, "reader", "lake", "select * from ledger.files")
    assert any("trips.yaml is not as it was" in line for line in said)


@pytest.fixture
def other_passwords(settings: Settings, taken: Path) -> Iterator[Path]:
    """The stack's file of passwords, which were made anew after the backup."""
    path = settings.home / SECRETS_FILE
    before = path.read_text("utf-8")
    write_private(path, OTHER)
    yield path
    write_private(path, before)
    (settings.home / BEFORE).unlink(missing_ok=True)


def test_restore_brings_the_passwords_back_but_not_the_one_that_the_cluster_was_made_with(
    settings: Settings, taken: Path, other_passwords: Path
) -> None:
    standing = StandingStack(settings)
    backup.restore(standing, taken, print)  # type: ignore[arg-type]
    assert standing.done == ["start_storage", "down", "start_storage", "up"]
    assert other_passwords.read_text("utf-8") == PASSWORDS.replace("postgres-for-tests", "of-this-cluster")
    for path in (other_passwords, settings.home / BEFORE):
        assert path.stat().st_mode & 0o777 == 0o600
    assert (settings.home / BEFORE).read_text("utf-8") == OTHER


def test_second_restore_neither_stops_the_servers_nor_loses_the_passwords_before_the_first(
    settings: Settings, taken: Path, other_passwords: Path
) -> None:
    backup.restore(StandingStack(settings), taken, print)  # type: ignore[arg-type]
    with other_passwords.open("a") as file:
        file.write("SLUICE_REDIS_PASSWORD=made-by-the-start\n")
    standing = StandingStack(settings)
    backup.restore(standing, taken, print)  # type: ignore[arg-type]
    assert "down" not in standing.done
    assert (settings.home / BEFORE).read_text("utf-8") == OTHER


def test_restore_to_a_stack_without_passwords_takes_the_backup_s(settings: Settings, taken: Path) -> None:
    path = settings.home / SECRETS_FILE
    path.unlink()
    standing = StandingStack(settings)
    try:
        backup.restore(standing, taken, print)  # type: ignore[arg-type]
        assert path.read_text("utf-8") == PASSWORDS
    finally:
        write_private(path, PASSWORDS)
    assert standing.done == ["down", "start_storage", "up"]
    assert not (settings.home / BEFORE).exists()


def test_restore_leaves_the_passwords_when_a_table_s_files_are_gone(
    settings: Settings, taken: Path, other_passwords: Path
) -> None:
    store, (bucket, _, key) = store_for(settings, "root"), METADATA.partition("/")
    body = store.get_bytes(bucket, key, limit=10_000)
    store._client.remove_object(bucket, key)
    standing = StandingStack(settings)
    try:
        with pytest.raises(UsageError, match="is not in MinIO"):
            backup.restore(standing, taken, print)  # type: ignore[arg-type]
    finally:
        store.put_bytes(bucket, key, body)
    assert standing.done == ["start_storage"]
    assert other_passwords.read_text("utf-8") == OTHER
    assert not (settings.home / BEFORE).exists()


@pytest.mark.parametrize("lost", [METADATA, SNAPSHOT])
def test_restore_changes_nothing_when_a_table_s_files_are_gone(settings: Settings, taken: Path, lost: str) -> None:
    store, (bucket, _, key) = store_for(settings, "root"), lost.partition("/")
    body = store.get_bytes(bucket, key, limit=10_000)
    store._client.remove_object(bucket, key)
    try:
        with pytest.raises(UsageError, match=r"silver\.trips had at this backup, is not in MinIO"):
            backup.restore(StandingStack(settings), taken, print)  # type: ignore[arg-type]
    finally:
        store.put_bytes(bucket, key, body)
    assert rows(settings, "airflow", "airflow", "select run_id from dag_run")


def test_damaged_or_unfinished_backup_is_refused(taken: Path) -> None:
    (taken / "lake.dump").write_bytes(b"other")
    with pytest.raises(UsageError, match=r"lake\.dump is missing or is not what the backup wrote"):
        backup.read(taken)
    (taken / backup.MANIFEST).unlink()
    with pytest.raises(UsageError, match="is not a complete backup"):
        backup.read(taken)


def test_backup_into_a_folder_that_cannot_be_made_says_so(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be made"):
        backup.back_up(StandingStack(settings), settings, tmp_path / "file", print)  # type: ignore[arg-type]
