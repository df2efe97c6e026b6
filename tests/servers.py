"""Real servers for tests that need one or two and not the whole stack: free ports, data in a temporary folder."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg
import pytest
import tenacity
import urllib3

from contracts.settings import HOST, USUAL_PORTS, Settings, load_settings
from ingest.notifications import notification_environment
from sluice import kafka_server, postgres_server
from sluice.install import QUICK_JVM
from sluice.secrets import write_private
from sluice.services import BY_NAME, connect_conf, connect_properties

SECRETS = {
    "minio_root_password": "root-for-tests",
    "ingest_secret_key": "ingest-for-tests",
    "spark_secret_key": "spark-for-tests",
    "consumers_secret_key": "consumers-for-tests",
    "reader_secret_key": "reader-for-tests",
    "postgres_password": "postgres-for-tests",
    "catalog_password": "catalog-for-tests",
    "ledger_password": "ledger-for-tests",
    "reader_password": "db-reader-for-tests",
    "airflow_db_password": "airflow-for-tests",
    # Of signs that JAAS and property files make something of.
    **{f"kafka_{user}_password": f'{user} "for" \\tests\\' for user in Settings().kafka_passwords},
}


_blocks: dict[int, int] = {}
"""Blocks of ports that are this process's until it ends, with the open lock file of each."""


def free_port_block(size: int) -> int:
    """First of a block of ports that nobody holds, below the range that the kernel gives to outgoing connections.

    No other process of tests gets it, although the servers that will listen there are yet to start.
    """
    first = 21000 + 100 * (os.getpid() % 110)
    for base in (*range(first, 32000, 100), *range(21000, first, 100)):
        if _reserve(base) and all(_is_free(base + offset) for offset in range(size)):
            return base
    raise RuntimeError("no block of free ports below 32000")


def _reserve(base: int) -> bool:
    """Whether a block is this process's, from now on or already."""
    if base not in _blocks:
        path = Path(tempfile.gettempdir(), f"sluice-test-ports-{os.getuid()}-{base}")
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        _blocks[base] = file
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


class Listening(NamedTuple):
    """A TCP socket that takes connections."""

    address: str
    port: int
    process: str

    @property
    def on_loopback(self) -> bool:
        """Whether nobody but this machine reaches it."""
        return ipaddress.ip_address(self.address.removeprefix("::ffff:")).is_loopback


def processes_of(home: Path) -> list[psutil.Process]:
    """The processes of the stack in this folder, with those that a person started for it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # It ended meanwhile, or is another user's.
            if process.environ().get("SLUICE_HOME") == str(home) or str(home) in " ".join(process.cmdline()):
                found.append(process)
    return found


def listening(home: Path) -> set[Listening]:
    """What the processes of the stack in this folder listen on."""
    found = set()
    for process in processes_of(home):
        with suppress(psutil.NoSuchProcess):
            found |= {
                Listening(link.laddr.ip, link.laddr.port, process.name())
                for link in process.net_connections("tcp")
                if link.status == psutil.CONN_LISTEN
            }
    return found


@contextmanager
def own_folder() -> Iterator[Path]:
    """A temporary folder that Postgres' system user can reach.

    Not within pytest's: from that one each run that begins takes away everybody else's right to pass, and a server of
    another run ends in the middle of its work.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def settings_in(home: Path) -> Settings:
    """Settings with passwords, of servers that are not started yet."""
    return Settings(port_base=free_port_block(len(USUAL_PORTS)), home=home, **SECRETS)  # type: ignore[arg-type]


@contextmanager
def running_minio(settings: Settings) -> Iterator[None]:
    """A MinIO that knows the notification targets (no Kafka behind them), not bootstrapped."""
    binary = load_settings().cache / "bin" / "minio"
    if not binary.is_file():
        pytest.skip(f"MinIO is not built: {binary} is missing. `make setup` builds it.")
    environment = os.environ | {
        "MINIO_ROOT_USER": settings.minio_root_user,
        "MINIO_ROOT_PASSWORD": settings.minio_root_password.get_secret_value(),
        "MINIO_BROWSER": "off",
        "MINIO_SITE_REGION": settings.s3_region,
        **notification_environment(settings, settings.home / "queue"),
    }
    command = [str(binary), "server", "--quiet", "--address", settings.s3_endpoint, str(settings.home / "minio")]
    with _process(command, settings.home / "minio.log", environment):
        _wait_for_minio(settings.ports.minio)
        yield


@contextmanager
def running_postgres(settings: Settings) -> Iterator[None]:
    """A Postgres with an empty cluster, as a stack has it."""
    postgres_server.prepare(settings)
    # An interrupt is a fast shutdown; SIGTERM would wait for its clients.
    user, stop = postgres_server.system_user(), signal.SIGINT
    with _process(postgres_server.argv(settings), settings.home / "postgres.log", None, user, stop):
        _wait_for_postgres(settings)
        yield


@contextmanager
def running_spark_connect(settings: Settings, more: Mapping[str, str] | None = None) -> Iterator[None]:
    """A Spark Connect server as a stack has it, but for its cluster: it does the work itself.

    Args:
        more: further properties.
    """
    conf = connect_conf(settings) | {
        "spark.master": "local[2]",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        # A few rows a test: the JVM's optimizing compiler would take most of the time, and what has no room in the
        # cache is compiled again and again (measured: a third of the CPU time).
        "spark.driver.extraJavaOptions": " ".join((*QUICK_JVM, "-XX:ReservedCodeCacheSize=240m")),
        **(more or {}),
    }
    lines = (f"{name} {value}\n" for name, value in sorted(conf.items()))
    write_private(connect_properties(settings), "".join(lines))
    started = BY_NAME["spark-connect"].command(settings)
    with _process(started.argv, settings.home / "spark-connect.log", os.environ | started.environment):
        wait_for_port(settings.ports.spark_connect)
        yield


@contextmanager
def running_kafka(settings: Settings) -> Iterator[None]:
    """A broker as a stack has it, without topics and grants; it goes on with what an earlier one left."""
    kafka_server.prepare(settings)
    command = BY_NAME["kafka"].command(settings)
    with _process(command.argv, settings.home / "kafka.log", os.environ | command.environment):
        wait_for_port(settings.ports.kafka)
        yield


@contextmanager
def running_service(settings: Settings, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """One of a stack's own programs by its name, without waiting for it."""
    command = BY_NAME[name].command(settings)
    with _process(command.argv, settings.home / f"{name}.log", os.environ | command.environment) as process:
        yield process


@contextmanager
def _process(
    command: list[str],
    log: Path,
    environment: dict[str, str] | None,
    user: str | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    groups = [] if user else None
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, cwd="/", user=user, group=user, extra_groups=groups
        )
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(urllib3.exceptions.HTTPError),
    stop=tenacity.stop_after_delay(120),
    wait=tenacity.wait_fixed(0.1),
)
def _wait_for_minio(port: int) -> None:
    http = urllib3.PoolManager(retries=False, timeout=1)
    if http.request("GET", f"http://{HOST}:{port}/minio/health/live").status != 200:
        raise urllib3.exceptions.HTTPError("not live yet")


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(psycopg.OperationalError),
    stop=tenacity.stop_after_delay(120),
    wait=tenacity.wait_fixed(0.1),
)
def _wait_for_postgres(settings: Settings) -> None:
    psycopg.connect(settings.postgres_url("sluice", "postgres"), connect_timeout=2).close()


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(OSError), stop=tenacity.stop_after_delay(120), wait=tenacity.wait_fixed(0.1)
)
def wait_for_port(port: int) -> None:
    """Wait until something accepts connections there."""
    socket.create_connection((HOST, port), timeout=1).close()
