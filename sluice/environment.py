"""The environment that a user's own tools need to reach a stack."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from contracts.settings import Settings


def user_environment(settings: Settings) -> dict[str, str]:
    """Variables for S3 clients (as the ingest user) and readers of the tables, and the logins of the two consoles."""
    endpoint = settings.s3_url
    key, secret = settings.ingest_access_key, settings.ingest_secret_key.get_secret_value()
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": settings.s3_region,
        "AWS_DEFAULT_REGION": settings.s3_region,
        **_lake(settings),
        "MC_HOST_sluice": endpoint.replace("://", f"://{key}:{secret}@", 1),
        **_trust(settings),
        "SLUICE_HOME": str(settings.home),
        **({"SLUICE_STACK": settings.stack} if settings.stack != "processes" else {}),
        **({"SLUICE_PORT_BASE": str(settings.port_base)} if settings.port_base is not None else {}),
        "SLUICE_AIRFLOW_URL": settings.airflow_page or settings.airflow_url,
        "SLUICE_AIRFLOW_ADMIN_USER": settings.airflow_admin_user,
        "SLUICE_AIRFLOW_ADMIN_PASSWORD": settings.airflow_admin_password.get_secret_value(),
        "SLUICE_MINIO_CONSOLE_URL": settings.minio_console_url,
        "SLUICE_MINIO_ROOT_USER": settings.minio_root_user,
        "SLUICE_MINIO_ROOT_PASSWORD": settings.minio_root_password.get_secret_value(),
    }


def _lake(settings: Settings) -> dict[str, str]:
    """PyIceberg's catalog `lake`, as the user who may read silver and gold, and the warm Spark server.

    The names are PyIceberg's: two underscores stand for a dot, one for a hyphen.
    """
    url = settings.postgres_url("reader", "lake").replace("postgresql://", "postgresql+psycopg://", 1)
    of_catalog = {
        "TYPE": "sql",
        "URI": url,
        # The reader may make no tables, and they are there.
        "INIT_CATALOG_TABLES": "false",
        "S3__ENDPOINT": settings.s3_url,
        "S3__ACCESS_KEY_ID": settings.reader_access_key,
        "S3__SECRET_ACCESS_KEY": settings.reader_secret_key.get_secret_value(),
        "S3__REGION": settings.s3_region,
    }
    catalog = {f"PYICEBERG_CATALOG__LAKE__{name}": value for name, value in of_catalog.items()}
    # Not SPARK_REMOTE: with that set, `spark-submit` no longer works.
    # The token of a server elsewhere is not ours to show.
    spark = settings.spark_connect_secret_url if settings.spark_remote is None else settings.spark_connect_url
    return catalog | {"SLUICE_SPARK_CONNECT_URL": spark}


def _trust(settings: Settings) -> dict[str, str]:
    """Whose certificates S3 clients of AWS and Spark's client take."""
    if settings.ca_file is None:
        return {}
    # Not SSL_CERT_FILE: with that set, the shell's other tools trust no site of the world any more.
    names = ("SLUICE_CA_FILE", "AWS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
    return dict.fromkeys(names, str(settings.ca_file))


def shell_exports(variables: Mapping[str, str]) -> str:
    """The variables as lines for a POSIX shell's `eval`."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
