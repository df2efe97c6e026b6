"""One MinIO for the tests of this folder, on a free port, with data in a temporary folder."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest
import tenacity
import urllib3

from contracts.settings import HOST, Settings, load_settings
from ingest.bootstrap import bootstrap_store, notification_environment
from ingest.store import Store, store_for

SECRETS = {
    "minio_root_password": "root-for-tests",
    "ingest_secret_key": "ingest-for-tests",
    "spark_secret_key": "spark-for-tests",
    "consumers_secret_key": "consumers-for-tests",
    "reader_secret_key": "reader-for-tests",
}


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        # A block of ports begins here, and it must end below 65535.
        return min(int(probe.getsockname()[1]), 65000)


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(urllib3.exceptions.HTTPError),
    stop=tenacity.stop_after_delay(30),
    wait=tenacity.wait_fixed(0.1),
)
def _wait_until_live(port: int) -> None:
    http = urllib3.PoolManager(retries=False, timeout=1)
    if http.request("GET", f"http://{HOST}:{port}/minio/health/live").status != 200:
        raise urllib3.exceptions.HTTPError("not live yet")


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a running MinIO that knows the notification targets (no Kafka behind them), not bootstrapped."""
    binary = load_settings().cache / "bin" / "minio"
    if not binary.is_file():
        pytest.skip(f"MinIO is not built: {binary} is missing. `make setup` builds it.")
    home = tmp_path_factory.mktemp("stack")
    stack = Settings(port_base=free_port(), home=home, **SECRETS)  # type: ignore[arg-type]
    environment = os.environ | {
        "MINIO_ROOT_USER": stack.minio_root_user,
        "MINIO_ROOT_PASSWORD": stack.minio_root_password.get_secret_value(),
        "MINIO_BROWSER": "off",
        "MINIO_SITE_REGION": stack.s3_region,
        **notification_environment(stack, home / "queue"),
    }
    with (home / "minio.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "server", "--quiet", "--address", stack.s3_endpoint, str(home / "minio")],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_until_live(stack.ports.minio)
        yield stack
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def ready(settings: Settings) -> Settings:
    """The same, bootstrapped."""
    bootstrap_store(settings)
    return settings


@pytest.fixture
def ingest(ready: Settings) -> Store:
    """The store as the ingest user."""
    return store_for(ready, "ingest")


@pytest.fixture
def spark(ready: Settings) -> Store:
    """The store as the Spark user."""
    return store_for(ready, "spark")


@pytest.fixture
def consumers(ready: Settings) -> Store:
    """The store as the consumers' user."""
    return store_for(ready, "consumers")


@pytest.fixture
def root(ready: Settings) -> Store:
    """The store as its administrator."""
    return store_for(ready, "root")


@pytest.fixture
def down() -> Settings:
    """Settings of a stack that has secrets but is not up."""
    return Settings(port_base=free_port(), **SECRETS)  # type: ignore[arg-type]
