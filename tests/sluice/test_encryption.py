"""One setting, `ca_file`, and what each client makes of it."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url

from consumers.broker import client_options
from contracts.errors import UsageError
from contracts.settings import HOST, SPARK_BEHIND_TLS_PORT, Settings
from ingest.notifications import notification_environment
from ingest.store import Store, store_for
from sluice import compose_stack, stack, tls_front
from sluice.airflow_config import airflow_environment, connections
from sluice.certificates import CA, ensure_certificates
from sluice.containers import write_secrets
from sluice.environment import user_environment
from sluice.kafka_server import properties
from sluice.secrets import SECRETS
from sluice.services import BY_NAME
from spark_jobs.duck import Duck
from spark_jobs.session import connect_server_conf
from tests.servers import free_port_block

AUTHORITY = Path("/etc/some where/ca.crt")


def settings_with(ca_file: Path | None) -> Settings:
    secrets = {name: f"the-{name}" for name in SECRETS}
    return Settings(_env_file=None, ca_file=ca_file, **secrets)  # type: ignore[call-arg, arg-type]


@pytest.fixture
def plain() -> Settings:
    """Without an authority."""
    return settings_with(None)


@pytest.fixture
def encrypted() -> Settings:
    """With one."""
    return settings_with(AUTHORITY)


def test_without_an_authority_nothing_speaks_tls(plain: Settings) -> None:
    told = [
        user_environment(plain), airflow_environment(plain), notification_environment(plain, Path("/q")),
        connect_server_conf(plain), client_options(plain.kafka_login("router")),
        *(BY_NAME[name].command(plain).environment for name in ("spark-connect", "spark-worker")),
    ]  # fmt: skip
    text = json.dumps(told, default=str) + properties(plain)
    for word in ("https://127", "SASL_SSL", "sslmode", "ssl.", "use_ssl", "TLS", "CA_BUNDLE", "AUTHENTICATE_TOKEN"):
        assert word not in text, word
    assert plain.spark_connect_secret_url == plain.spark_connect_url


def test_urls_of_postgres_and_minio_verify_the_server(encrypted: Settings) -> None:
    options = "?sslmode=verify-full&sslrootcert=/etc/some%20where/ca.crt"
    assert encrypted.postgres_url("ledger", "lake").endswith(f"/lake{options}")
    assert encrypted.s3_url == "https://127.0.0.1:9000"
    assert encrypted.minio_console_url.startswith("https://")
    conf = connect_server_conf(encrypted)
    assert conf["spark.sql.catalog.lake.uri"].endswith(f":5442/lake{options}")
    assert conf["spark.hadoop.fs.s3a.endpoint"] == "https://127.0.0.1:9000"
    assert conf["spark.sql.catalog.lake.s3.endpoint"] == "https://127.0.0.1:9000"


def test_a_container_s_certificate_of_postgres_is_held_against_its_name(plain: Settings, encrypted: Settings) -> None:
    container = {"postgres_address": "172.18.0.3:5432", "postgres_name": "postgres"}
    there = encrypted.model_copy(update=container)
    libpq = conninfo_to_dict(there.postgres_url("reader", "lake"))
    url = make_url(user_environment(there)["PYICEBERG_CATALOG__LAKE__URI"])
    _, pyiceberg = url.get_dialect()().create_connect_args(url)
    for found in (libpq, pyiceberg):
        assert (found["host"], found["hostaddr"], int(found["port"])) == ("postgres", "172.18.0.3", 5432)
        assert (found["sslmode"], found["sslrootcert"]) == ("verify-full", str(AUTHORITY))
    # Nothing is to be checked, and any client takes an IP address.
    assert plain.model_copy(update=container).postgres_url("reader", "lake").endswith("@172.18.0.3:5432/lake")


def test_each_client_of_kafka_verifies_the_broker(encrypted: Settings) -> None:
    options = client_options(encrypted.kafka_login("router"))
    assert (options["security_protocol"], options["ssl_cafile"]) == ("SASL_SSL", str(AUTHORITY))
    kafka = json.loads(connections(encrypted)["sluice_kafka"]["extra"])
    assert (kafka["security.protocol"], kafka["ssl.ca.location"]) == ("SASL_SSL", str(AUTHORITY))
    minio = notification_environment(encrypted, Path("/q"))
    assert minio["MINIO_NOTIFY_KAFKA_TLS_BRONZE"] == minio["MINIO_NOTIFY_KAFKA_TLS_GOLD_NOW"] == "on"
    assert {value for name, value in minio.items() if "SKIP_VERIFY" in name} == {"off"}


def test_every_listener_of_kafka_speaks_tls_but_the_one_of_the_health_check(encrypted: Settings) -> None:
    outside = encrypted.model_copy(update={"listen": "0.0.0.0", "kafka_outside_address": "127.0.0.1:27000"})  # noqa: S104
    found = dict(line.split("=", 1) for line in properties(outside, Path("/run/secrets/kafka")).splitlines())
    protocols = dict(item.split(":") for item in found["listener.security.protocol.map"].split(","))
    assert protocols.pop("HEALTH") == "SASL_PLAINTEXT"
    assert protocols == {"CLIENTS": "SASL_SSL", "OUTSIDE": "SASL_SSL", "CONTROLLER": "SASL_SSL"}
    listeners = dict(item.split("://") for item in found["listeners"].split(","))
    assert listeners["HEALTH"] == "127.0.0.1:9095"
    assert listeners["CLIENTS"] == "0.0.0.0:9092"
    assert found["ssl.keystore.location"] == "/run/secrets/kafka/server.pem"
    assert "listener.name.health.plain.sasl.jaas.config" in found


def test_both_of_airflow_s_drivers_verify_its_database(encrypted: Settings) -> None:
    found = airflow_environment(encrypted)
    assert "sslmode=verify-full" in found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"].endswith("/airflow?ssl=verify-full")
    assert found["PGSSLROOTCERT"] == str(AUTHORITY)


def test_the_spark_server_hides_on_the_loopback_address_and_asks_for_the_token(encrypted: Settings) -> None:
    conf = connect_server_conf(encrypted.model_copy(update={"listen": "0.0.0.0"}))  # noqa: S104
    assert conf["spark.connect.grpc.binding.address"] == HOST
    assert conf["spark.connect.grpc.binding.port"] == str(SPARK_BEHIND_TLS_PORT)
    command = BY_NAME["spark-connect"].command(encrypted)
    assert command.environment["SPARK_CONNECT_AUTHENTICATE_TOKEN"] == "the-spark_connect_token"
    assert "the-spark_connect_token" not in encrypted.spark_connect_url
    assert encrypted.spark_connect_secret_url.endswith("/;use_ssl=true;token=the-spark_connect_token")


def test_a_person_s_tools_are_told_whom_to_trust(encrypted: Settings) -> None:
    found = user_environment(encrypted)
    assert found["AWS_CA_BUNDLE"] == found["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] == str(AUTHORITY)
    assert found["AWS_ENDPOINT_URL"] == found["PYICEBERG_CATALOG__LAKE__S3__ENDPOINT"] == "https://127.0.0.1:9000"
    assert found["MC_HOST_sluice"].startswith("https://sluice-ingest:the-ingest_secret_key@127.0.0.1")
    assert "SSL_CERT_FILE" not in found


def test_the_store_s_and_duckdb_s_clients_take_the_authority_alone(tmp_path: Path) -> None:
    ensure_certificates(tmp_path)
    settings = settings_with(tmp_path / CA)
    http = store_for(settings, "ingest")._client._http
    assert http.connection_pool_kw["ca_certs"] == str(tmp_path / CA)
    assert store_for(settings, "ingest")._client._base_url.is_https
    assert not Store("127.0.0.1:1", "a", "b" * 8, "r")._client._base_url.is_https
    with Duck(settings, ["httpfs"]) as duck:
        values = dict(
            duck.run(
                "select name, value from duckdb_settings() where name in"
                " ('ca_cert_file', 'enable_server_cert_verification', 'enable_curl_server_cert_verification')"
            )[1]
        )
    assert values.pop("ca_cert_file") == str(tmp_path / CA)
    assert set(values.values()) == {"true"}


def test_servers_that_are_processes_are_not_started_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLUICE_CA_FILE", str(AUTHORITY))
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="SLUICE_CA_FILE"):
        stack.up(print)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overlay", [False, True])
def test_init_makes_certificates_with_the_overlay_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, overlay: bool
) -> None:
    if overlay:
        monkeypatch.setenv("SLUICE_CA_FILE", str(AUTHORITY))
    write_secrets(tmp_path)
    assert (tmp_path / CA).exists() is overlay
    if overlay:  # Readable for others, as where somebody has brought it.
        (tmp_path / "kafka" / "server.pem").chmod(0o644)
        write_secrets(tmp_path)
        assert (tmp_path / "kafka" / "server.pem").stat().st_mode & 0o777 == 0o600
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.suffix in (".crt", ".key", ".pem")}
    assert bool(made) is overlay
    assert ("spark_connect_token" in (tmp_path / "router" / "secrets.env").read_text("utf-8").lower()) is False
    assert "spark_connect_token" in (tmp_path / "airflow" / "secrets.env").read_text("utf-8").lower()


@pytest.mark.parametrize("labels", ["", "com.docker.compose.project=x,sluice.ca=ca/ca.crt,y=z"])
def test_the_command_line_sees_by_a_label_that_the_stack_speaks_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, labels: str
) -> None:
    port = {"URL": "127.0.0.1", "TargetPort": 9000, "PublishedPort": 27100}
    containers = [{"Service": "minio", "Publishers": [port], "Labels": labels}]
    monkeypatch.setattr(compose_stack, "_containers", lambda: containers)
    monkeypatch.setenv("SECRETS_FOLDER", str(tmp_path))
    found = compose_stack.environment()
    assert found["SLUICE_MINIO_ADDRESS"] == "127.0.0.1:27100"
    assert found.get("SLUICE_CA_FILE") == (str((tmp_path / CA).resolve()) if labels else None)


ECHO = """
import socketserver, sys, threading
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        line = self.rfile.readline()
        self.wfile.write(line)
        if line == b"end\\n":
            threading.Thread(target=server.shutdown).start()
server = socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Echo)
server.serve_forever()
sys.exit(7)
"""


FRONT = """
import os, sys
from pathlib import Path
from sluice import tls_front
certificate, port, behind, *argv = sys.argv[1:]
sys.exit(tls_front.run(argv, os.environ, Path(certificate), "127.0.0.1", int(port), int(behind)))
"""


@pytest.mark.parametrize("ended_by", ["server", "signal"])
def test_the_front_passes_bytes_on_and_ends_with_its_server(tmp_path: Path, ended_by: str) -> None:
    ensure_certificates(tmp_path)
    base = free_port_block(2)
    front = [FRONT, str(tmp_path / "spark-connect" / tls_front.CERTIFICATE), str(base), str(base + 1)]
    with subprocess.Popen([sys.executable, "-c", *front, sys.executable, "-c", ECHO, str(base + 1)]) as process:
        try:
            context = ssl.create_default_context(cafile=str(tmp_path / CA))
            context.set_alpn_protocols(["h2"])
            limit = time.monotonic() + 60
            while said(context, base, b"hello\n") != b"hello\n":
                assert time.monotonic() < limit, "the server does not answer"
                time.sleep(0.05)
            if ended_by == "server":
                assert said(context, base, b"end\n") == b"end\n"
            else:
                process.terminate()
            code = process.wait(30)
        finally:
            process.kill()
    # Of the server: the one that it ends with, or the signal that was handed on to it.
    assert code == (7 if ended_by == "server" else 256 - signal.SIGTERM)


def said(context: ssl.SSLContext, port: int, line: bytes) -> bytes:
    try:
        with (
            socket.create_connection((HOST, port), timeout=5) as link,
            context.wrap_socket(link, server_hostname="spark-connect") as secure,
        ):
            assert secure.selected_alpn_protocol() == "h2"
            secure.sendall(line)
            return secure.makefile("rb").readline()
    except OSError:
        return b""
