"""The stack in containers with compose/tls.yaml, on a real engine: the chain over TLS, and who is turned away."""

from __future__ import annotations

import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from contracts.settings import PROJECT
from ingest.generator import generate_month
from sluice.certificates import SERVERS
from tests.compose.conftest import Containers, accounted, running, unique_key
from tests.documents import shell_lines

pytestmark = [pytest.mark.xdist_group("compose"), pytest.mark.long, pytest.mark.timeout(3000)]

API_VERSIONS = b"\x00\x00\x00\x10\x00\x12\x00\x00\x00\x00\x00\x01\x00\x06health"
"""The first request of a client of Kafka, which a broker answers without a login."""


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """The stack with the overlay: built, started, healthy."""
    with running(
        tmp_path_factory.mktemp("tls"),
        "sluice-test-tls",
        COMPOSE_FILE="compose/compose.yaml:compose/tls.yaml",
        SLUICE_VERSION="test-tls",
    ) as stack:
        yield stack


def place(stack: Containers, name: str) -> tuple[str, int]:
    """Where a published port is."""
    return "127.0.0.1", int(stack.environment[name])


def authority(stack: Containers) -> str:
    """The file with the stack's own authority, as `sluice env` tells."""
    return stack.variables()["SLUICE_CA_FILE"]


def test_a_put_reaches_gold_over_tls_and_a_correction_replaces_its_own_rows(tls: Containers, tmp_path: Path) -> None:
    first, second = tmp_path / "a_2025-01.parquet", tmp_path / "b_2025-01.parquet"
    generate_month(first, 2025, 1, 500, 1)
    generate_month(second, 2025, 1, 300, 2)
    key = unique_key()
    tls.put(key, first)
    accounted(tls, key, 500)
    tls.sluice("drop", str(second), "--dataset", "nyc_yellow", "--key", key, "--wait")
    accounted(tls, key, 300)


def test_any_s3_client_puts_with_what_sluice_env_prints(tls: Containers) -> None:
    assert tls.variables()["AWS_ENDPOINT_URL"].startswith("https://")
    tls.s3().put_object(Bucket="bronze", Key="elsewhere/x.txt", Body=b"x")
    assert tls.s3().get_object(Bucket="bronze", Key="elsewhere/x.txt")["Body"].read() == b"x"


def test_a_job_can_be_run_by_hand_over_tls(tls: Containers) -> None:
    done = tls.compose(
        "exec", "-T", "spark-master", "spark-submit", "--driver-memory", "512m", "--executor-memory", "512m",
        "spark_jobs/data_preprocessing_job.py", "--dataset", "nyc_yellow", "--year", "2025", "--month", "1",
    )  # fmt: skip
    assert "silver.nyc_yellow: snapshot" in done.stdout


@pytest.mark.parametrize("part", ["airflow-api-server", "airflow-worker"])
def test_both_of_airflow_s_drivers_speak_tls_to_its_database(tls: Containers, part: str) -> None:
    done = tls.compose("exec", "-T", part, "python", "-c", ASK_POSTGRES)
    assert done.stdout.split()[-2:] == ["True", "True"]


ASK_POSTGRES = """
import asyncio, os
from contracts.settings import load_settings
from sluice.airflow_config import airflow_environment
os.environ.update(airflow_environment(load_settings()))
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
ask = text("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
async def other():
    async with create_async_engine(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"]).connect() as link:
        return (await link.execute(ask)).scalar()
with create_engine(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]).connect() as link:
    print(link.execute(ask).scalar(), asyncio.run(other()))
"""


@pytest.mark.parametrize("port", ["MINIO_PORT", "MINIO_CONSOLE_PORT", "KAFKA_PORT", "SPARK_CONNECT_PORT"])
def test_a_server_shows_a_certificate_of_the_stack_s_authority_and_of_no_other(tls: Containers, port: str) -> None:
    address = place(tls, port)
    for name in ("127.0.0.1", "localhost"):
        context = ssl.create_default_context(cafile=authority(tls))
        with socket.create_connection(address, timeout=10) as link, context.wrap_socket(link, server_hostname=name):
            pass
    for context, name in (
        (ssl.create_default_context(), "127.0.0.1"),
        (ssl.create_default_context(cafile=authority(tls)), "elsewhere"),
    ):
        with (
            socket.create_connection(address, timeout=10) as link,
            pytest.raises(ssl.SSLCertVerificationError),
            context.wrap_socket(link, server_hostname=name),
        ):
            pass


def test_minio_serves_nothing_without_tls(tls: Containers) -> None:
    with socket.create_connection(place(tls, "MINIO_PORT"), timeout=10) as link:
        link.sendall(b"GET /minio/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert b" 400 " in link.makefile("rb").readline()


def test_kafka_answers_nothing_without_tls(tls: Containers) -> None:
    with socket.create_connection(place(tls, "KAFKA_PORT"), timeout=10) as link:
        link.sendall(API_VERSIONS)
        try:
            answer = link.recv(100)
        except ConnectionResetError:
            answer = b""
    # Nothing, or an alert of TLS; an answer would begin with its length and the number of the request.
    assert answer[4:8] != b"\x00\x00\x00\x01"


@pytest.mark.parametrize(
    ("listener", "answers"), [("127.0.0.1:9092", False), ("kafka:9092", False), ("127.0.0.1:9095", True)]
)
def test_kafka_listens_plainly_on_the_loopback_address_of_its_container_alone(
    tls: Containers, listener: str, answers: bool
) -> None:
    host, _, port = listener.partition(":")
    script = (
        f"exec 3<>/dev/tcp/{host}/{port}; printf '{API_VERSIONS.decode().encode('unicode_escape').decode()}' >&3;"
        " timeout 5 head -c 8 <&3 | od -An -tx1 | tr -d ' \\n'"
    )
    done = tls.compose("exec", "-T", "kafka", "bash", "-c", script, check=False)
    assert (done.stdout[8:] == "00000001") is answers, done.stdout
    assert tls.compose("exec", "-T", "kafka", "bash", "-c", "exec 3<>/dev/tcp/kafka/9095", check=False).returncode


@pytest.mark.parametrize("mode", ["disable", "verify-full"])
def test_postgres_lets_a_client_in_with_tls_alone(tls: Containers, mode: str) -> None:
    url = tls.variables()["PYICEBERG_CATALOG__LAKE__URI"].replace("+psycopg", "", 1)
    if mode == "disable":
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            psycopg.connect(url, sslmode=mode)
        return
    assert f"sslmode={mode}" in url
    with psycopg.connect(url) as link:
        assert link.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone() == (True,)
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(url, sslrootcert="system")
    with pytest.raises(psycopg.OperationalError, match="does not match host name"):
        psycopg.connect(url, host="elsewhere")


ASK_SPARK = """
import sys
from pyspark.sql.connect.client import DefaultChannelBuilder, SparkConnectClient
from pyspark.sql.connect.client.retries import DefaultPolicy
from pyspark.sql.connect.session import SparkSession
client = SparkConnectClient(connection=DefaultChannelBuilder(sys.stdin.read()), retry_policy={"max_retries": 1})
try:
    print("version", client._analyze(method="spark_version").spark_version)
except Exception as error:
    print(type(error).__name__, str(error)[:500])
"""


@pytest.mark.parametrize("client", ["right", "wrong", "none", "plain"])
def test_spark_answers_over_tls_to_who_shows_the_token_alone(tls: Containers, client: str) -> None:
    found = tls.variables()
    url = found["SLUICE_SPARK_CONNECT_URL"]
    url = {
        "right": url,
        "wrong": re.sub(r"token=\w+", "token=" + "0" * 40, url),
        "none": re.sub(r";token=\w+", "", url),
        "plain": url.partition("/;")[0],
    }[client]
    done = subprocess.run(
        [sys.executable, "-c", ASK_SPARK], input=url, cwd=PROJECT, env=os.environ | found,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("version ") is (client == "right"), done.stdout + done.stderr[-2000:]
    if client in ("wrong", "none"):
        assert "UNAUTHENTICATED" in done.stdout or "Authentication" in done.stdout or "token" in done.stdout


def test_keys_are_files_of_mode_0600_and_the_authority_s_is_no_container_s(tls: Containers) -> None:
    folder = Path(tls.environment["SECRETS_FOLDER"])
    public = {folder / name for name in ("ca/ca.crt", "ca/truststore.p12", "minio/certs/CAs/ca.crt")}
    files = {path for path in folder.rglob("*") if path.is_file()}
    assert {path.stat().st_mode & 0o777 for path in files - public} == {0o600}
    key = (folder / "operator" / "ca.key").read_text("utf-8")
    assert not [path for path in files - {folder / "operator" / "ca.key"} if key in path.read_text("latin-1")]


def test_a_second_init_leaves_certificates_that_hold(tls: Containers) -> None:
    folder = Path(tls.environment["SECRETS_FOLDER"])
    before = (folder / "kafka" / "server.pem").read_bytes()
    tls.compose("run", "--rm", "init")
    assert (folder / "kafka" / "server.pem").read_bytes() == before


SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""With it a client of Postgres asks for TLS; the server says S and begins."""


def served(stack: Containers, part: str) -> bytes:
    """The certificate that a server shows."""
    ports = {"minio": "MINIO_PORT", "kafka": "KAFKA_PORT", "spark-connect": "SPARK_CONNECT_PORT"}
    if part == "postgres":
        host, _, port = stack.settings.postgres_server.rpartition(":")
        address = host, int(port)
    else:
        address = place(stack, ports[part])
    context = ssl.create_default_context(cafile=authority(stack))
    with socket.create_connection(address, timeout=10) as link:
        if part == "postgres":
            link.sendall(SSL_REQUEST)
            assert link.recv(1) == b"S"
        with context.wrap_socket(link, server_hostname=part) as encrypted:
            return encrypted.getpeercert(binary_form=True) or b""


def on_disk(stack: Containers, part: str) -> bytes:
    """The certificate in a server's folder of secrets."""
    path = Path(stack.environment["SECRETS_FOLDER"]) / part / SERVERS[part].certificate
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)


def documented(start: str) -> list[str]:
    """The one command of the page that begins so, in words."""
    (line,) = (line for line in shell_lines(PROJECT / "docs" / "tls.md") if line.startswith(start))
    return shlex.split(line)


def takes_a_file_to_gold(stack: Containers, folder: Path, rows: int) -> None:
    """Put a file, and count its rows."""
    path, key = folder / "a_2025-01.parquet", unique_key()
    generate_month(path, 2025, 1, rows, 3)
    stack.put(key, path)
    accounted(stack, key, rows)


def test_renewed_certificates_are_served_after_the_documented_restart(tls: Containers, tmp_path: Path) -> None:
    before = {part: served(tls, part) for part in SERVERS}
    for part, files in SERVERS.items():
        (Path(tls.environment["SECRETS_FOLDER"]) / part / files.key).unlink()
    tls.run(*documented("docker compose run"))
    renewed = {part: on_disk(tls, part) for part in SERVERS}
    assert not set(renewed.values()) & set(before.values())
    tls.run(*documented("docker compose restart"))
    tls.wait_healthy()
    assert {part: served(tls, part) for part in SERVERS} == renewed
    takes_a_file_to_gold(tls, tmp_path, 140)


def test_another_authority_is_trusted_by_all_after_the_documented_start(tls: Containers, tmp_path: Path) -> None:
    authority_file = Path(tls.environment["SECRETS_FOLDER"]) / "ca" / "ca.crt"
    before = authority_file.read_bytes()
    authority_file.unlink()
    tls.run(*documented("docker compose up -d --wait --force-recreate"))
    assert authority_file.read_bytes() != before
    assert {part: served(tls, part) for part in SERVERS} == {part: on_disk(tls, part) for part in SERVERS}
    takes_a_file_to_gold(tls, tmp_path, 150)
