"""Make Airflow's tables, what tells of changes in them, and its two users.

Safe to repeat; run it before any part of Airflow starts.
Run as a script, with the environment that Airflow's parts get (`sluice.airflow_config`).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from contracts.settings import Settings, load_settings

if TYPE_CHECKING:
    from pydantic import SecretStr

SERVICE_ROLE = "SluiceListener"
# Making or noting a run needs `can_edit` on the DAG too: Airflow checks both.
SERVICE_PERMISSIONS = frozenset(
    {
        ("can_read", "DAGs"),
        ("can_edit", "DAGs"),
        ("can_read", "DAG Runs"),
        ("can_create", "DAG Runs"),
        ("can_edit", "DAG Runs"),
        # Where the clock was ahead, tasks wait for a time to come.
        ("can_read", "Task Instances"),
        ("can_edit", "Task Instances"),
        # Airflow gives this one to every role at each start; without it here the two would take turns.
        ("can_read", "Website"),
    }
)

NEWS = """
CREATE OR REPLACE FUNCTION sluice_tell_scheduler() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.state IS DISTINCT FROM OLD.state THEN
        PERFORM pg_notify('sluice_scheduler', '');
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER sluice_tell_scheduler AFTER INSERT OR UPDATE OF state ON dag_run
    FOR EACH ROW EXECUTE FUNCTION sluice_tell_scheduler();
CREATE OR REPLACE TRIGGER sluice_tell_scheduler AFTER INSERT OR UPDATE OF state ON task_instance
    FOR EACH ROW EXECUTE FUNCTION sluice_tell_scheduler();
"""
"""Has Postgres tell of each run or task that is new or in another state, for `sluice_listener.executor`."""


def migrate(settings: Settings) -> None:
    """Create or upgrade the tables of Airflow and of its auth manager, and have their changes told of."""
    from airflow.utils.db import initdb

    initdb()
    with psycopg.connect(settings.postgres_url("airflow", "airflow")) as connection:
        connection.execute(NEWS)


def make_users(settings: Settings) -> None:
    """Make the admin and the service user, each with the password of the settings.

    The service user's role holds `SERVICE_PERMISSIONS` and nothing else.
    """
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as builder:
        security = builder.sm
        if security.find_role("Admin") is None or not security.find_role("Admin").permissions:
            security.sync_roles()
        _make_role(security)
        _make_user(security, settings.airflow_admin_user, settings.airflow_admin_password, "Admin")
        _make_user(security, settings.airflow_service_user, settings.airflow_service_password, SERVICE_ROLE)


def _make_role(security: Any) -> None:
    role = security.add_role(SERVICE_ROLE)
    for permission in list(role.permissions):
        if (permission.action.name, permission.resource.name) not in SERVICE_PERMISSIONS:
            security.remove_permission_from_role(role, permission)
    held = {(permission.action.name, permission.resource.name) for permission in role.permissions}
    for action, resource in sorted(SERVICE_PERMISSIONS - held):
        security.add_permission_to_role(role, security.create_permission(action, resource))


def _make_user(security: Any, name: str, password: SecretStr, role: str) -> None:
    user = security.find_user(username=name)
    if user is None:
        user = security.add_user(
            name, name, "Sluice", f"{name}@localhost", security.find_role(role), password.get_secret_value()
        )
        if not user:
            raise RuntimeError(f"Airflow did not make its user {name!r}; its own log above says why.")
    elif not security.check_password(name, password.get_secret_value()):
        security.reset_password(user.id, password.get_secret_value())


def state_wanted(settings: Settings) -> str:
    """A digest of everything this script brings about; it differs when there is something to do."""
    parts = (
        *(version(name) for name in ("apache-airflow", "apache-airflow-providers-fab")),
        *(f"{action} {resource}" for action, resource in sorted(SERVICE_PERMISSIONS)),
        NEWS,
        settings.airflow_admin_user,
        settings.airflow_admin_password.get_secret_value(),
        settings.airflow_service_user,
        settings.airflow_service_password.get_secret_value(),
    )
    key = settings.airflow_secret_key.get_secret_value().encode()
    return "sluice bootstrap " + hmac.new(key, "\0".join(parts).encode(), hashlib.sha256).hexdigest()


def state_found(settings: Settings) -> str | None:
    """The digest that the last complete run left as the database's comment."""
    with psycopg.connect(settings.postgres_url("airflow", "airflow")) as connection:
        row = connection.execute(
            "select shobj_description(oid, 'pg_database') from pg_database where datname = current_database()"
        ).fetchone()
    return row[0] if row else None


def record_state(settings: Settings, state: str) -> None:
    """Leave the digest as the database's comment, so that it goes when the database goes."""
    with psycopg.connect(settings.postgres_url("airflow", "airflow")) as connection:
        statement = sql.SQL("comment on database {} is {}")
        connection.execute(statement.format(sql.Identifier("airflow"), sql.Literal(state)))


def main() -> None:
    """Entry point. Nothing to do takes 0.5 s; Airflow's own imports and checks would take 6 s (measured)."""
    settings = load_settings()
    wanted = state_wanted(settings)
    if state_found(settings) == wanted:
        return
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"
    (settings.home / "airflow").mkdir(mode=0o700, parents=True, exist_ok=True)
    migrate(settings)
    make_users(settings)
    record_state(settings, wanted)


if __name__ == "__main__":
    main()
