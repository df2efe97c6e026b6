"""How the servers are started."""

from __future__ import annotations

from pathlib import Path

import pytest
import tenacity

from contracts.settings import USUAL_PORTS, Settings, load_settings, ports_from
from sluice import install, supervisor
from sluice.health import healthy
from sluice.secrets import ensure_secrets
from sluice.services import BY_NAME, SERVICES, Service, connect_properties, service_url
from spark_jobs.session import connect_server_conf
from tests.servers import running_service, settings_in, wait_for_port


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "stack % home"))
    monkeypatch.setenv("SLUICE_PORT_BASE", "23000")
    ensure_secrets(tmp_path / "stack % home")
    return load_settings()


def _secrets(settings: Settings) -> list[str]:
    return [v.get_secret_value() for v in settings.model_dump().values() if hasattr(v, "get_secret_value")]


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_command_line_holds_no_secret(settings: Settings, service: Service) -> None:
    line = " ".join(service.command(settings).argv)
    assert not any(secret in line for secret in _secrets(settings))


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_service_gets_the_secrets_of_its_own_part_only(settings: Settings, service: Service) -> None:
    values = " ".join(service.command(settings).environment.values())
    allowed = {
        "minio": {"minio_root_password", "kafka_minio_password"},
        "spark-worker": {"spark_secret_key"},
        "spark-connect": {"spark_secret_key"},
    }.get(service.name, set())
    if service.name.startswith("airflow"):
        allowed = {"airflow_db_password", "airflow_fernet_key", "airflow_jwt_secret", "airflow_secret_key"}
        allowed |= {"kafka_listener_password"}
    held = {
        name
        for name, value in settings.model_dump().items()
        if hasattr(value, "get_secret_value") and value.get_secret_value() in values
    }
    assert held == allowed


def test_process_manager_is_configured_without_a_secret_and_escapes_its_paths(settings: Settings) -> None:
    text = supervisor.write_configuration(settings).read_text()
    assert not any(secret in text for secret in _secrets(settings))
    assert "stack %% home" in text
    for service in SERVICES:
        assert f"[program:{service.name}]" in text


def test_properties_of_the_spark_server_are_private(settings: Settings) -> None:
    service = next(service for service in SERVICES if service.name == "spark-connect")
    assert service.prepare is not None
    service.prepare(settings)
    assert connect_properties(settings).stat().st_mode & 0o777 == 0o600
    assert settings.spark_secret_key.get_secret_value() not in connect_properties(settings).read_text()


def test_port_base_moves_every_port_into_one_block() -> None:
    ports = ports_from(23000).model_dump()
    assert sorted(ports.values()) == list(range(23000, 23000 + len(USUAL_PORTS)))
    assert ports_from(None).model_dump() == USUAL_PORTS


def test_addresses_are_on_the_loopback(settings: Settings) -> None:
    urls = [service_url(service, settings) for service in SERVICES]
    assert all(url is None or "127.0.0.1" in url for url in urls)


def test_spark_s_pages_are_behind_the_master_s_where_that_has_an_address_for_people(settings: Settings) -> None:
    page = "http://127.0.0.1:18081"
    told = Settings(spark_master_page=page, home=settings.home)
    for name, variable in (("spark-master", "SPARK_MASTER_OPTS"), ("spark-worker", "SPARK_WORKER_OPTS")):
        options = BY_NAME[name].command(told).environment[variable]
        assert f'"-Dspark.ui.reverseProxy=true" "-Dspark.ui.reverseProxyUrl={page}"' in options
        assert "reverseProxy" not in BY_NAME[name].command(settings).environment[variable]
    assert connect_server_conf(told)["spark.ui.reverseProxyUrl"] == page
    assert not any("reverseProxy" in name for name in connect_server_conf(settings))


def test_locked_jars_are_named_with_their_checksums() -> None:
    for name in ("kafka", "spark"):
        lines = (install.JARS / f"{name}.sha256").read_text().splitlines()
        assert lines
        assert all(len(line.split()[0]) == 64 and line.endswith(".jar") for line in lines)


def test_jars_that_differ_from_the_lock_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jar").write_bytes(b"as it should be")
    (tmp_path / "c.jar").write_bytes(b"nobody asked for it")
    import hashlib

    wanted = {"a.jar": hashlib.sha256(b"as it should be").hexdigest(), "b.jar": "0" * 64}
    assert install._wrong_jars(tmp_path, wanted) == ["b.jar", "c.jar"]


def test_a_person_s_own_defaults_of_spark_submit_stay_and_ours_are_put_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "pyspark_home", lambda: tmp_path)
    defaults = tmp_path / "conf" / "spark-defaults.conf"
    for _ in range(2):
        install._link_submit_defaults()
        assert "spark.driver.extraJavaOptions" in defaults.read_text("utf-8")
    defaults.unlink()
    defaults.write_text("spark.eventLog.enabled true")
    install._link_submit_defaults()
    assert defaults.read_text("utf-8") == "spark.eventLog.enabled true"


@pytest.mark.services
def test_spark_worker_joins_a_master_that_comes_back_after_it(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with running_service(settings, "spark-master") as master, running_service(settings, "spark-worker") as worker:
        _wait_until_joined(settings)
        for process in (worker, master):
            process.kill()
            process.wait()
    # The worker is first, and the master greets the one that it knew before it takes in another.
    with running_service(settings, "spark-worker"):
        wait_for_port(settings.ports.spark_worker_ui)
        with running_service(settings, "spark-master"):
            _wait_until_joined(settings)


@tenacity.retry(retry=tenacity.retry_if_result(lambda joined: not joined), stop=tenacity.stop_after_delay(90),
                wait=tenacity.wait_fixed(0.2))  # fmt: skip
def _wait_until_joined(settings: Settings) -> bool:
    return all(healthy([BY_NAME[name] for name in ("spark-master", "spark-worker")], settings).values())
