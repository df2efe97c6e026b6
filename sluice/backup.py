"""Backups of what is not in MinIO: Airflow's database, ledger and catalog, passwords, contracts. And their return.

The tables' files stay where they are. A backup's catalog names the files of its moment, so it can be restored as long
as upkeep keeps their snapshots; `restore` looks before it changes anything. What came to bronze after the backup is
unknown to the restored ledger, and `reconcile` brings it to gold again, once: the restored catalog lacks its rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict, ValidationError

from contracts.errors import ServiceUnavailable, UsageError
from contracts.settings import PROJECT, SECRETS_FILE, Settings, load_settings, secrets_file
from ingest.store import Store, store_for
from sluice.postgres_server import bootstrap_databases
from sluice.secrets import write_private
from sluice.stacks import Stack
from sluice.status import Say

# Airflow first: a run that the ledger knows and Airflow does not is started again, but not the other way round.
DATABASES = ("airflow", "lake")
MANIFEST = "manifest.json"
_MOST_METADATA_BYTES = 256 * 2**20
_SUPERUSER = "SLUICE_POSTGRES_PASSWORD"


class Manifest(BaseModel):
    """What a backup holds."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    """One that this code does not know is refused."""
    taken: datetime
    tables: Mapping[str, str]
    """Iceberg table to the location of its metadata file."""
    files: Mapping[str, str]
    """File of the backup to its SHA-256."""


def back_up(stack: Stack, settings: Settings, folder: Path, say: Say) -> Path:
    """Write a backup of a running stack into a new folder below `folder`, whose files have mode 0600.

    Returns:
        The new folder, named by the moment (UTC).

    Raises:
        ServiceUnavailable: Postgres does not answer, or `pg_dump` failed.
        UsageError: the folder cannot be written to.
    """
    taken = datetime.now(UTC)
    target = folder / f"sluice-{taken:%Y%m%dT%H%M%SZ}"
    try:
        target.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise UsageError(f"{target} cannot be made: {error.strerror}.") from error
    for database in DATABASES:
        _dump(stack, settings, database, target / f"{database}.dump")
        say(f"{database} is dumped")
    write_private(target / SECRETS_FILE, secrets_file(settings.home).read_text("utf-8"))
    shutil.copytree(settings.contracts_dir, target / "contracts", ignore=shutil.ignore_patterns("__pycache__"))
    files = sorted(path for path in target.rglob("*") if path.is_file())
    manifest = Manifest(
        taken=taken,
        tables=_tables(settings),
        files={str(path.relative_to(target)): _digest(path) for path in files},
    )
    # Last: a folder without it is a backup that was not completed.
    write_private(target / MANIFEST, manifest.model_dump_json(indent=2))
    return target


def read(folder: Path) -> Manifest:
    """A backup's manifest, after each file was compared with it.

    Raises:
        UsageError: it is none, it is not complete, or a file is not what was written.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"{folder} is not a complete backup: it has no readable {MANIFEST}.") from error
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.is_file() or _digest(path) != digest:
            raise UsageError(f"{path} is missing or is not what the backup wrote; take another backup.")
    return manifest


def restore(stack: Stack, folder: Path, say: Say) -> Settings:
    """Put a backup back: databases and passwords are replaced, the whole stack is started.

    Passwords that are replaced stay beside the new ones, as `secrets.env.before-restore`.

    Contracts are not touched; where they differ from the backup's, `say` tells.

    Raises:
        UsageError: the backup is damaged, or a table's files of that moment are gone from MinIO.
        ServiceUnavailable: a server does not come up, or `pg_restore` failed.
    """
    manifest = read(folder)
    _return_passwords(stack, load_settings(), folder, manifest, say)
    settings = stack.start_storage(say)
    _require_files(store_for(settings, "root"), manifest)
    for database in DATABASES:
        _drop(settings, database)
    bootstrap_databases(settings)
    for database in DATABASES:
        _load(stack, settings, database, folder / f"{database}.dump")
        say(f"{database} is as it was at {manifest.taken:%Y-%m-%d %H:%M:%S} UTC")
    for path in sorted((folder / "contracts").glob("*.yaml")):
        now = settings.contracts_dir / path.name
        if not now.is_file() or now.read_bytes() != path.read_bytes():
            say(f"contract {path.name} is not as it was; the backup's is {path}")
    return stack.up(say)


def _return_passwords(stack: Stack, settings: Settings, folder: Path, manifest: Manifest, say: Say) -> None:
    """Without the old keys nobody could read what Airflow has encrypted; every server starts with the old passwords."""
    path, backed_up = secrets_file(settings.home), (folder / SECRETS_FILE).read_text("utf-8")
    now = path.read_text("utf-8") if path.is_file() else None
    wanted = backed_up if now is None else _with_superuser_of(now, backed_up)
    # Those that the backup does not know yet were added by a start, maybe of a restore before that did not succeed.
    if now is not None and _values(wanted).items() <= _values(now).items():
        return
    if now is not None:
        # Under the passwords that the servers have: where MinIO is another one, those are all there is to its data.
        _require_files(store_for(stack.start_storage(say), "root"), manifest)
    stack.down(say)
    if now is not None:
        write_private(path.with_name(f"{path.name}.before-restore"), now)
    write_private(path, wanted)
    say("the backup's passwords are in place")


def _with_superuser_of(now: str, backed_up: str) -> str:
    """The backup's passwords, but for that of Postgres' superuser.

    A cluster keeps the one that it was made with; all others are set anew by the bootstrap.
    """
    superuser = {_SUPERUSER: _values(now)[_SUPERUSER]} if _SUPERUSER in _values(now) else {}
    return "".join(f"{name}={value}\n" for name, value in (_values(backed_up) | superuser).items())


def _values(secrets: str) -> dict[str, str]:
    lines = (line.partition("=") for line in secrets.splitlines() if "=" in line)
    return {name: value for name, _, value in lines}


def _dump(stack: Stack, settings: Settings, database: str, path: Path) -> None:
    argv, environment = stack.postgres_client(settings, "pg_dump")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        done = subprocess.run(
            [*argv, "--format=custom", database],
            cwd=PROJECT, env=environment, stdout=output, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    if done.returncode:
        raise ServiceUnavailable(f"pg_dump of {database} failed: {done.stderr.decode(errors='replace')[-600:]}")


def _load(stack: Stack, settings: Settings, database: str, path: Path) -> None:
    argv, environment = stack.postgres_client(settings, "pg_restore")
    with path.open("rb") as dump:
        done = subprocess.run(
            [*argv, "--clean", "--if-exists", "--exit-on-error", f"--dbname={database}"],
            cwd=PROJECT, env=environment, stdin=dump, capture_output=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise ServiceUnavailable(f"pg_restore of {database} failed: {done.stderr.decode(errors='replace')[-600:]}")


def _drop(settings: Settings, database: str) -> None:
    url = settings.postgres_url(settings.postgres_superuser, "postgres")
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as link:
            link.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database)))
    except psycopg.OperationalError as error:
        raise ServiceUnavailable(f"Postgres does not answer: {error}") from error


def _tables(settings: Settings) -> dict[str, str]:
    with psycopg.connect(settings.postgres_url("catalog", "lake"), connect_timeout=5) as link:
        rows = link.execute("select table_namespace, table_name, metadata_location from iceberg_tables").fetchall()
    return {f"{namespace}.{name}": location for namespace, name, location in sorted(rows)}


def _require_files(store: Store, manifest: Manifest) -> None:
    """Raise `UsageError` unless each table's metadata and the list of its current snapshot's files are there."""
    for table, location in manifest.tables.items():
        metadata = _object(location)
        if store.stat(*metadata) is None:
            raise _files_gone(table, location)
        described = json.loads(store.get_bytes(*metadata, limit=_MOST_METADATA_BYTES))
        current = described.get("current-snapshot-id")
        for snapshot in described.get("snapshots", ()):
            if snapshot["snapshot-id"] == current and store.stat(*_object(snapshot["manifest-list"])) is None:
                raise _files_gone(table, snapshot["manifest-list"])


def _files_gone(table: str, location: str) -> UsageError:
    return UsageError(
        f"{location}, which {table} had at this backup, is not in MinIO: upkeep has let go of its snapshot, or MinIO "
        "is another one. Restore a younger backup, or begin with an empty stack and `sluice reconcile --full`."
    )


def _object(location: str) -> tuple[str, str]:
    found = urlparse(location)
    return found.netloc, found.path.lstrip("/")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
