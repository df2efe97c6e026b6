"""What can be said of compose/tls.yaml without an engine."""

from __future__ import annotations

from typing import Any

import yaml

from contracts.settings import PROJECT
from sluice.certificates import SERVERS
from sluice.containers import MOUNTED, PARTS
from sluice.kafka_server import HEALTH_PORT
from sluice.secrets import SECRETS

COMPOSE = PROJECT / "compose"
PLAIN: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text("utf-8"))["services"]
OVERLAY: dict[str, Any] = yaml.safe_load((COMPOSE / "tls.yaml").read_text("utf-8"))["services"]
CA = "/etc/sluice/tls/ca.crt"
FORWARDER = "spark-worker-ui"
"""It passes on what Spark's worker shows, without a look at it."""
OURS = {name for name, service in PLAIN.items() if service["image"].startswith("sluice/")} - {FORWARDER}


def test_each_container_of_ours_is_told_of_the_authority_and_can_read_it() -> None:
    for name in OURS:
        assert OVERLAY[name]["environment"]["SLUICE_CA_FILE"] == CA, name
    for name in {*OURS, "postgres", "kafka", "kafka-ui"} - {"init"}:
        assert any(str(volume).endswith("}/ca:/etc/sluice/tls:ro") for volume in OVERLAY[name]["volumes"]), name


def test_the_forwarder_needs_no_authority_since_it_runs_no_code_of_ours() -> None:
    assert PLAIN[FORWARDER]["entrypoint"][0] == "socat"
    assert FORWARDER not in OVERLAY


def test_java_and_native_readers_of_spark_trust_it_as_well() -> None:
    for name in (name for name in OURS if PLAIN[name]["image"].startswith("sluice/spark")):
        environment = OVERLAY[name]["environment"]
        assert environment["SSL_CERT_FILE"] == CA
        assert "-Djavax.net.ssl.trustStore=/etc/sluice/tls/truststore.p12" in environment["JAVA_TOOL_OPTIONS"]


def test_servers_are_told_of_the_files_that_init_writes() -> None:
    postgres = OVERLAY["postgres"]["command"]
    plain = PLAIN["postgres"]["command"]
    assert postgres[: len(plain)] == plain
    files = SERVERS["postgres"]
    assert f"ssl_cert_file={MOUNTED}/postgres/{files.certificate}" in postgres
    assert f"ssl_key_file={MOUNTED}/postgres/{files.key}" in postgres
    minio = OVERLAY["minio"]["command"]
    assert minio[: len(PLAIN["minio"]["command"])] == PLAIN["minio"]["command"]
    folder = minio[minio.index("--certs-dir") + 1]
    assert SERVERS["minio"].certificate == f"{folder.removeprefix(f'{MOUNTED}/minio/')}/public.crt"
    assert OVERLAY["kafka"]["environment"]["KAFKA_HEALTH_PORT"] == str(HEALTH_PORT)
    assert set(SERVERS) <= set(PARTS)


def test_nobody_comes_to_postgres_over_the_network_without_tls_or_password() -> None:
    lines = (COMPOSE / "pg_hba.conf").read_text("utf-8").splitlines()
    rules = [line.split() for line in lines if line and not line.startswith("#")]
    assert {rule[0] for rule in rules} == {"local", "hostssl"}
    assert {rule[-1] for rule in rules} == {"scram-sha-256"}


def test_the_overlay_opens_nothing_and_holds_no_secret() -> None:
    assert set(OVERLAY) <= set(PLAIN)
    for name, service in OVERLAY.items():
        assert set(service) <= {"command", "environment", "healthcheck", "labels", "volumes"}, name
        assert not any(f"SLUICE_{secret.upper()}" in service.get("environment", {}) for secret in SECRETS)
        assert not any("operator" in str(volume) for volume in service.get("volumes", ()))
