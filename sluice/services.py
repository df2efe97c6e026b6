"""The servers of a stack: how each is started, and how one sees that it does its job.

`command` is pure: settings in, command and environment out. Secrets go into the environment of the one
process that needs them, or into files of mode 0600; never onto a command line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contracts.settings import HOST, Settings
from ingest.notifications import notification_environment
from sluice import install, kafka_server, postgres_server
from sluice.airflow_config import airflow_environment
from sluice.secrets import write_private
from sluice.spark_home import spark_environment


@dataclass(frozen=True)
class Command:
    """What to execute, and with which environment beyond the inherited one."""

    argv: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    """System user to become first; only Postgres needs it, and only when started by root."""


@dataclass(frozen=True)
class Service:
    """One supervised process."""

    name: str
    wave: int
    """Services of a wave start together, once all of the wave before are healthy."""
    command: Callable[[Settings], Command]
    port: str
    """The field of `Ports` that tells that it listens."""
    page: str = ""
    """Path of the page that a person opens; empty when it has none."""
    prepare: Callable[[Settings], None] | None = None
    """Makes what the process needs before its first start; safe to repeat."""


def _java(settings: Settings) -> str:
    java = install.find_java()
    return str(java.home) if java else os.environ.get("JAVA_HOME", "")


def _minio(settings: Settings) -> Command:
    ports, data = settings.ports, settings.home / "minio"
    return Command(
        [
            str(install.minio_binary(settings.cache)), "server", str(data / "data"), "--quiet",
            "--address", f"{settings.listen}:{ports.minio}",
            "--console-address", f"{settings.listen}:{ports.minio_console}",
        ],
        {
            "MINIO_ROOT_USER": settings.minio_root_user,
            "MINIO_ROOT_PASSWORD": settings.minio_root_password.get_secret_value(),
            "MINIO_SITE_REGION": settings.s3_region,
            "MINIO_UPDATE": "off",
            **notification_environment(settings, data / "events"),
        },
    )  # fmt: skip


def _kafka(settings: Settings) -> Command:
    return Command(kafka_server.argv(settings, _java(settings), install.LOGGING))


def _postgres(settings: Settings) -> Command:
    return Command(postgres_server.argv(settings), user=postgres_server.system_user())


def _spark_environment(settings: Settings) -> dict[str, str]:
    return {
        **spark_environment(settings.cache),
        "JAVA_HOME": _java(settings),
        "SPARK_LOCAL_IP": settings.listen,
        "SPARK_PUBLIC_DNS": settings.own_address,
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_NO_DAEMONIZE": "1",
        "SPARK_LOCAL_DIRS": str(settings.home / "spark" / "local"),
        "PYSPARK_PYTHON": sys.executable,
    }


def _spark_daemon_options(settings: Settings, **options: object) -> str:
    properties = (f'"-D{name}={value}"' for name, value in {**settings.spark_page_conf, **options}.items())
    return " ".join((*install.QUICK_JVM, *properties))


def _spark_credentials(settings: Settings) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": settings.spark_access_key,
        "AWS_SECRET_ACCESS_KEY": settings.spark_secret_key.get_secret_value(),
        "AWS_REGION": settings.s3_region,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def master_state(settings: Settings) -> Path:
    """Folder in which Spark's master keeps which workers and applications it has."""
    return settings.home / "spark" / "master"


def _spark_master(settings: Settings) -> Command:
    ports = settings.ports
    # A master that was killed must know the warm server's application again, or it never gets another executor. It
    # waits for those that it knew, and gives nothing out meanwhile: by default a minute for one that is gone.
    options = {
        "spark.deploy.recoveryMode": "FILESYSTEM",
        "spark.deploy.recoveryDirectory": master_state(settings),
        "spark.deploy.recoveryTimeout": "10s",
    }
    environment = _spark_environment(settings)
    return Command(
        [
            f"{environment['SPARK_HOME']}/bin/spark-class", "org.apache.spark.deploy.master.Master",
            "--host", settings.own_address, "--port", str(ports.spark_master),
            "--webui-port", str(ports.spark_master_ui),
        ],
        environment | {"SPARK_MASTER_OPTS": _spark_daemon_options(settings, **options)},
    )  # fmt: skip


def _spark_worker(settings: Settings) -> Command:
    ports = settings.ports
    options = {"spark.worker.cleanup.enabled": "true", "spark.worker.cleanup.appDataTtl": 86400}
    environment = _spark_environment(settings)
    # The warm server holds its cores for good; as many again are offered to spark-submit applications.
    # Any free port: a master that comes back after the worker greets the one that it knew at its old address. A new
    # worker there takes the greeting for its own registration, and neither of the two ever notices.
    return Command(
        [
            f"{environment['SPARK_HOME']}/bin/spark-class", "org.apache.spark.deploy.worker.Worker",
            "--host", settings.own_address, "--port", "0",
            "--webui-port", str(ports.spark_worker_ui),
            "--cores", str(2 * settings.spark_cores), "--memory", settings.spark_worker_memory,
            "--work-dir", str(settings.home / "spark" / "work"), settings.spark_master_url,
        ],
        environment
        | _spark_credentials(settings)
        | {"SPARK_WORKER_OPTS": _spark_daemon_options(settings, **options)},
    )  # fmt: skip


def _spark_connect(settings: Settings) -> Command:
    # On its loopback address the token would keep out nobody who cannot read the secrets anyway.
    token = settings.spark_connect_token.get_secret_value()
    asks = {"SPARK_CONNECT_AUTHENTICATE_TOKEN": token} if settings.ca_file is not None else {}
    environment = _spark_environment(settings)
    return Command(
        [
            f"{environment['SPARK_HOME']}/bin/spark-submit",
            "--class", "org.apache.spark.sql.connect.service.SparkConnectServer",
            "--name", "sluice-connect", "--properties-file", str(connect_properties(settings)), "spark-internal",
        ],
        # spark-submit takes the memory of this one class from the daemons' variable, before its own properties.
        environment
        | _spark_credentials(settings)
        | {"SPARK_DAEMON_MEMORY": settings.spark_driver_memory}
        | asks,
    )  # fmt: skip


def connect_properties(settings: Settings) -> Path:
    """The Connect server's properties; mode 0600, because they hold the catalog's password."""
    return settings.home / "spark" / "connect.properties"


def connect_conf(settings: Settings) -> dict[str, str]:
    """Properties of the warm Spark Connect server, with those that name a file of this machine."""
    from spark_jobs.session import connect_server_conf

    return connect_server_conf(settings) | {
        "spark.scheduler.allocation.file": f"file://{install.CONF / 'fairscheduler.xml'}"
    }


def _prepare_connect(settings: Settings) -> None:
    conf = connect_conf(settings)
    write_private(connect_properties(settings), "".join(f"{name} {value}\n" for name, value in sorted(conf.items())))


def _router(settings: Settings) -> Command:
    return Command([sys.executable, "-m", "consumers.router"])


def _airflow(part: str, *options: str) -> Callable[[Settings], Command]:
    def command(settings: Settings) -> Command:
        program = str(Path(sys.executable).with_name("airflow"))
        java = {"JAVA_HOME": home} if (home := _java(settings)) else {}
        return Command([program, *part.split(), *options], airflow_environment(settings) | java)

    return command


SERVICES: tuple[Service, ...] = (
    Service("postgres", 1, _postgres, "postgres", prepare=postgres_server.prepare),
    Service("minio", 1, _minio, "minio_console", page="/"),
    Service("kafka", 1, _kafka, "kafka", prepare=kafka_server.prepare),
    Service("spark-master", 1, _spark_master, "spark_master_ui", page="/"),
    Service("spark-worker", 1, _spark_worker, "spark_worker_ui", page="/"),
    Service("spark-connect", 2, _spark_connect, "spark_connect", prepare=_prepare_connect),
    Service("router", 2, _router, "router_metrics", page="/metrics"),
    Service("airflow-api-server", 2, _airflow("api-server"), "airflow", page="/"),
    Service("airflow-scheduler", 2, _airflow("scheduler", "--skip-serve-logs"), "airflow_scheduler_health"),
    Service("airflow-dag-processor", 2, _airflow("dag-processor"), "airflow"),
    Service("airflow-triggerer", 2, _airflow("triggerer", "--skip-serve-logs"), "airflow"),
)
BY_NAME: Mapping[str, Service] = {service.name: service for service in SERVICES}

_SPARK = {"spark-master", "spark-worker", "spark-connect"}


def local_services(settings: Settings) -> tuple[Service, ...]:
    """The services that this stack starts: without Spark's where `SLUICE_SPARK_REMOTE` names another server."""
    return tuple(service for service in SERVICES if settings.spark_remote is None or service.name not in _SPARK)


CELERY_WORKER = Service("airflow-worker", 2, _airflow("celery worker", "--skip-serve-logs"), "airflow")
"""Runs Airflow's tasks where the executor is Celery; on one machine without containers the scheduler does."""


def service_url(service: Service, settings: Settings) -> str | None:
    """Where a person or a client finds the service; None for one that nobody calls."""
    port = getattr(settings.ports, service.port)
    if service.name == "spark-connect":
        return settings.spark_connect_url
    if service.name == "postgres":
        return f"postgresql://{HOST}:{port}/lake"
    if service.name == "kafka":
        return settings.kafka_bootstrap
    return f"http://{HOST}:{port}{service.page}" if service.page else None
