"""Who may do what in Postgres: each role tries it on a real server, bootstrapped and migrated as a stack's is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from consumers.migrate import migrate
from contracts.settings import Settings
from sluice.postgres_server import bootstrap_databases
from tests.servers import running_postgres, settings_in

pytestmark = pytest.mark.services

READ_LEDGER = "select * from ledger.files"
MAKE_IN_LEDGER = "create table ledger.mine (a int)"
READ_CATALOG = "select * from public.iceberg_tables"
WRITE_CATALOG = "update public.iceberg_tables set metadata_location = 's3://elsewhere'"
MAKE_IN_PUBLIC = "create table public.mine (a int)"
MAKE_ROLE = "create role mine superuser"
READ_FILE = "select pg_read_file('/etc/passwd')"
RUN_PROGRAM = "copy (select 1) to program 'true'"
READ_PASSWORDS = "select rolpassword from pg_authid"
MAKE_SCHEMA = "create schema mine"
CONNECT = "select 1"
IN_LAKE = (
    *(READ_LEDGER, MAKE_IN_LEDGER, READ_CATALOG, WRITE_CATALOG, MAKE_IN_PUBLIC),
    *(MAKE_ROLE, READ_FILE, RUN_PROGRAM, READ_PASSWORDS, MAKE_SCHEMA),
)
DATABASES = ("postgres", "template1", "airflow", "lake")
ROLES = ("ledger", "catalog", "reader", "airflow")
ALLOWED = {
    "ledger": {READ_LEDGER, MAKE_IN_LEDGER},
    "catalog": {READ_CATALOG, WRITE_CATALOG, MAKE_IN_PUBLIC},
    "reader": {READ_CATALOG},
}


@pytest.fixture(scope="module")
def server(server_home: Path) -> Iterator[Settings]:
    """A server with the ledger's tables and a catalog's."""
    settings = settings_in(server_home)
    with running_postgres(settings):
        bootstrap_databases(settings)
        migrate(settings.postgres_url("ledger", "lake"))
        with psycopg.connect(settings.postgres_url("catalog", "lake")) as link:
            link.execute("create table public.iceberg_tables (metadata_location text)")
        bootstrap_databases(settings)
        yield settings


def _tries(settings: Settings, role: str, database: str, statement: str) -> type[psycopg.Error] | None:
    """The error that a statement ends with; nothing that it does stays."""
    try:
        with psycopg.connect(settings.postgres_url(role, database), connect_timeout=10) as link:
            link.execute(statement)
            link.rollback()
    except psycopg.Error as error:
        return type(error)
    return None


@pytest.mark.parametrize("role", ALLOWED)
def test_role_may_do_what_its_part_needs_in_the_lake_and_nothing_else(server: Settings, role: str) -> None:
    told = {statement: _tries(server, role, "lake", statement) for statement in IN_LAKE}
    assert {statement for statement, error in told.items() if error is None} == ALLOWED[role]
    assert {error for error in told.values() if error} == {psycopg.errors.InsufficientPrivilege}


@pytest.mark.parametrize("role", ROLES)
def test_role_gets_into_its_own_database_alone(server: Settings, role: str) -> None:
    told = {database: _tries(server, role, database, CONNECT) for database in DATABASES}
    own = "airflow" if role == "airflow" else "lake"
    assert {database for database, error in told.items() if error is None} == {own}


def test_nobody_signs_in_with_another_role_s_password(server: Settings) -> None:
    wrong = server.model_copy(update={"catalog_password": server.ledger_password})
    assert _tries(wrong, "catalog", "lake", CONNECT) is psycopg.OperationalError


def test_server_s_log_never_has_a_password_even_of_a_statement_that_fails(server: Settings) -> None:
    superuser = server.postgres_url("sluice", "postgres")
    with psycopg.connect(superuser, autocommit=True) as link:
        link.execute("alter system set log_statement = 'all'")
        link.execute("select pg_reload_conf()")
        bootstrap_databases(server)
        link.execute("alter system reset log_statement")
        link.execute("select pg_reload_conf()")
    log = (server.home / "postgres.log").read_text()
    assert "alter role" in log
    held = {"ledger_password", "catalog_password", "reader_password", "airflow_db_password", "postgres_password"}
    assert not [name for name in held if getattr(server, name).get_secret_value() in log]
