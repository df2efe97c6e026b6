"""A Spark Connect server elsewhere, behind TLS and with a token, does what the stack's own does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts.settings import HOST, PROJECT, Settings
from tests.conftest import write_variant
from tests.servers import SECRETS, running_spark_connect, settings_in
from tests.spark_jobs.conftest import ZONES, Catalog
from tests.tls import make_certificates, terminating_tls

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]

TOKEN = "token-for-tests-4711"
WRONG = "token-of-somebody-else"
DATASET = "trips_elsewhere"
TABLES = [f"silver.{DATASET}", f"silver.{DATASET}_rejects", f"gold.{DATASET}_features", f"gold.{DATASET}_zone_hour"]
QUERY = """
from contracts.settings import load_settings
from spark_jobs.session import connect_session, spark_errors
spark = connect_session(load_settings())
spark.client.set_retry_policies([])  # whether one is let in needs no second try
with spark_errors("counting"):
    print("counted", spark.sql("select sum(id) from range(101)").first()[0])
"""
TRUSTED = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"


@dataclass(frozen=True)
class Remote:
    """A second server, behind TLS."""

    home: Path
    port: int
    environment: Mapping[str, str]

    def run(self, *command: str, token: str | None, trusting: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Python as the stack's parts run, in a process of its own: gRPC reads its authorities once a process."""
        given = "" if token is None else f";token={token}"
        environment = {**self.environment, "SLUICE_SPARK_REMOTE": f"sc://{HOST}:{self.port}/;use_ssl=true{given}"}
        if not trusting:
            del environment[TRUSTED]
        return subprocess.run(
            [sys.executable, "-W", "ignore", *command],
            env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def remote(servers: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """It shares MinIO and the catalog with the package's servers, and nothing else."""
    home = tmp_path_factory.mktemp("remote")
    where = {"minio_address": servers.s3_endpoint, "postgres_address": servers.postgres_server}
    settings = settings_in(home).model_copy(update=where)
    certificates = make_certificates(home)
    write_variant(home / "contracts", DATASET, {})
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    with (
        running_spark_connect(settings, {"spark.connect.authenticate.token": TOKEN}),
        terminating_tls(certificates, settings.ports.spark_connect) as port,
    ):
        yield Remote(
            home,
            port,
            inherited
            | {f"SLUICE_{name.upper()}": value for name, value in (SECRETS | where).items()}
            | {"SLUICE_HOME": str(home), "SLUICE_CONTRACTS_DIR": str(home / "contracts")}
            | {TRUSTED: str(certificates.authority), "SPARK_CONNECT_LOG_LEVEL": "debug"},
        )


def test_jobs_run_on_the_other_server_and_its_token_is_in_no_log(remote: Remote, catalog: Catalog) -> None:
    """The warm-up makes tables and takes rows through both jobs."""
    counted = remote.run("-c", QUERY, token=TOKEN)
    assert (counted.returncode, counted.stdout) == (0, "counted 5050\n"), counted.stderr[-3000:]
    warm = remote.run("-m", "spark_jobs.warmup", token=TOKEN)
    try:
        assert warm.returncode == 0, warm.stderr[-3000:]
        assert all(catalog.locations(TABLES).values())
    finally:
        catalog.forget([*TABLES, *ZONES])
    log = (remote.home / "spark-connect.log").read_text("utf-8", errors="replace")
    assert "Running Spark version" in log
    assert TOKEN not in counted.stdout + counted.stderr + warm.stdout + warm.stderr + log


@pytest.mark.parametrize("token", [WRONG, None], ids=["wrong", "none"])
def test_other_server_lets_nobody_in_without_its_token(remote: Remote, token: str | None) -> None:
    refused = remote.run("-c", QUERY, token=token)
    assert refused.returncode != 0
    assert "counted" not in refused.stdout
    assert "ServiceUnavailable: Spark does not let us in" in refused.stderr, refused.stderr[-3000:]
    assert WRONG not in refused.stdout + refused.stderr


def test_server_with_a_certificate_of_an_unknown_authority_is_not_spoken_to(remote: Remote) -> None:
    refused = remote.run("-c", QUERY, token=TOKEN, trusting=False)
    assert refused.returncode != 0
    assert "ServiceUnavailable: Spark does not answer" in refused.stderr, refused.stderr[-3000:]
    assert TOKEN not in refused.stdout + refused.stderr
