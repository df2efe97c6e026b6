"""Airflow's configuration as environment variables, the same for its four parts and its bootstrap."""

from __future__ import annotations

import json
from typing import Any

from contracts.settings import HOST, PROJECT, Settings, load_settings

KAFKA_CONNECTION = "sluice_kafka"


def airflow_environment(settings: Settings) -> dict[str, str]:
    """What the api-server, scheduler, dag-processor and triggerer find in their environment.

    Holds passwords and keys: pass it as a process's environment, never on a command line or to a log.
    Start `scheduler` and `triggerer` with `--skip-serve-logs`: their log servers would listen on all
    addresses and no option says otherwise, while the api-server reads the same log folder anyway.
    """
    return {
        "AIRFLOW_HOME": str(settings.home / "airflow"),
        "SLUICE_HOME": str(settings.home),
        "PYTHONPATH": str(PROJECT),
        "PYTHONWARNINGS": "ignore",
        # Or the titles of its processes are written over the environment by which a stack finds its own.
        "SPT_NOENV": "1",
        **_core(settings),
        **_web(settings),
        **_pace(settings),
        **_connections(settings),
        **_encryption(settings),
    }


def _core(settings: Settings) -> dict[str, str]:
    return {
        **_executor(settings),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "airflow" / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "airflow" / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # The scheduler's plugin imports Spark's client before the workers are forked.
        "AIRFLOW__CORE__LAZY_LOAD_PLUGINS": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "5",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "AIRFLOW__CORE__FERNET_KEY": settings.airflow_fernet_key.get_secret_value(),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{settings.airflow_url}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": settings.postgres_url("airflow", "airflow", "postgresql+psycopg2"),
        "AIRFLOW__DATABASE__EXTERNAL_DB_MANAGERS": "airflow.providers.fab.auth_manager.models.db.FABDBManager",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(settings.home / "airflow" / "logs"),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(settings.ports.airflow_worker_log),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(settings.ports.airflow_triggerer_log),
    }


def _executor(settings: Settings) -> dict[str, str]:
    if settings.redis_url is None:
        return {
            # LocalExecutor, which waits for changes; the scheduler need not.
            "AIRFLOW__CORE__EXECUTOR": "sluice_listener.executor.NotifiedLocalExecutor",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0",
            # Each of them is a process that is forked at start; 32 by default.
            "AIRFLOW__CORE__PARALLELISM": "4",
        }
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
        # A task that no worker took for ten minutes is queued anew, and after two such times Airflow would fail it for
        # good, whatever its retries: files would end in quarantine because a worker was away for half an hour.
        "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "1000000",
        # Over all workers; how many tasks each takes at a time is the next one.
        "AIRFLOW__CORE__PARALLELISM": "64",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4",
        "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
        "AIRFLOW__CELERY__BROKER_URL": settings.redis_url,
        "AIRFLOW__CELERY__RESULT_BACKEND": settings.postgres_url("airflow", "airflow", "db+postgresql+psycopg2"),
        # A task of a worker that was killed is given to another after this many seconds; a day by default. No task of
        # ours is that long, and one that were would be given out twice, which the ledger's fence makes harmless.
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "7200",
    }


def _encryption(settings: Settings) -> dict[str, str]:
    if settings.ca_file is None:
        return {}
    plain = settings.model_copy(update={"ca_file": None}).postgres_url("airflow", "airflow", "postgresql+asyncpg")
    return {
        # Airflow would take the options of the other driver's URL over, and asyncpg has other names for them.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"{plain}?ssl=verify-full",
        "PGSSLROOTCERT": str(settings.ca_file),
    }


def _web(settings: Settings) -> dict[str, str]:
    return {
        "AIRFLOW__API__HOST": settings.listen,
        "AIRFLOW__API__PORT": str(settings.ports.airflow),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__BASE_URL": settings.airflow_page or settings.airflow_url,
        "AIRFLOW__API__INSTANCE_NAME": "Sluice",
        "AIRFLOW__API__SECRET_KEY": settings.airflow_secret_key.get_secret_value(),
        "AIRFLOW__API_AUTH__JWT_SECRET": settings.airflow_jwt_secret.get_secret_value(),
        "AIRFLOW__FAB__ENABLE_PROXY_FIX": "False",
    }


def _pace(settings: Settings) -> dict[str, str]:
    """Short waits where a file's way passes, long ones elsewhere."""
    return {
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "True",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST": HOST,
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(settings.ports.airflow_scheduler_health),
        # A killed scheduler's tasks are taken up by the next one within half a minute instead of 5 minutes.
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        # Kill -9 of the triggerer to the next message: 6 s with these two, 24 s by default (measured).
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
        # A new contract shows as a new DAG after this many seconds; parsing costs about 1 s of one core.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "20",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "60",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__PRINT_STATS_INTERVAL": "300",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def _connections(settings: Settings) -> dict[str, str]:
    if settings.airflow_secrets_backend is not None:
        backend, arguments = settings.airflow_secrets_backend, settings.airflow_secrets_backend_kwargs
    elif settings.airflow_connections_file is not None:
        backend = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
        arguments = json.dumps({"connections_file_path": str(settings.airflow_connections_file)})
    else:
        return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections(settings).items()}
    return {"AIRFLOW__SECRETS__BACKEND": backend, "AIRFLOW__SECRETS__BACKEND_KWARGS": arguments}


def connections(settings: Settings) -> dict[str, dict[str, Any]]:
    """Airflow's connections by their ids, in the form of its own JSON files; the one of Kafka holds a password."""
    login = settings.kafka_login("listener")
    kafka = {
        "bootstrap.servers": login.bootstrap,
        "security.protocol": login.protocol,
        **({} if login.ca_file is None else {"ssl.ca.location": str(login.ca_file)}),
        "sasl.mechanism": "PLAIN",
        "sasl.username": login.user,
        # By this name Airflow masks the value wherever it shows the connection.
        "sasl.password": login.password.get_secret_value(),
        "group.id": "sluice",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 2000,
        "reconnect.backoff.max.ms": 1000,
    }
    host, _, port = settings.spark_master_url.rpartition(":")
    return {
        KAFKA_CONNECTION: {"conn_type": "kafka", "extra": json.dumps(kafka)},
        "spark_default": {"conn_type": "spark", "host": host, "port": int(port)},
    }


if __name__ == "__main__":
    # For `airflow connections import`, see compose/setup_airflow_connections.sh.
    print(json.dumps(connections(load_settings())))
