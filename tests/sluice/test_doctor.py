"""What a start needs, looked at before anything starts."""

from __future__ import annotations

import socket
from collections import namedtuple
from pathlib import Path

import pytest

from contracts.settings import HOST, USUAL_PORTS, Settings
from sluice import doctor, install
from sluice.doctor import Finding, examine
from tests.servers import free_port_block


def _find(settings: Settings, check: str) -> Finding:
    return next(finding for finding in examine(settings, stack_is_up=False) if check in finding.check)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, cache=tmp_path / "cache", port_base=free_port_block(len(USUAL_PORTS)))


def test_taken_port_names_its_holder_and_the_way_out(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, settings.ports.kafka))
        taken.listen()
        finding = _find(settings, f"port {settings.ports.kafka}")
    assert not finding.ok
    assert "process" in finding.found
    assert "SLUICE_PORT_BASE" in finding.remedy


def test_missing_java_gives_the_command_that_installs_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "find_java", lambda: None)
    monkeypatch.setattr(
        install, "java_install_command", lambda: ["apt-get", "install", "-y", "openjdk-17-jre-headless"]
    )
    finding = _find(settings, "Java")
    assert not finding.ok
    assert "sudo apt-get install -y openjdk-17-jre-headless" in finding.remedy


def test_too_little_memory_is_found(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = namedtuple("memory", "available")
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: memory(2 * 2**30))
    finding = _find(settings, "memory")
    assert not finding.ok
    assert finding.found == "2.0 GiB available"


def test_too_little_disk_is_found(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(2**30))
    assert not _find(settings, "disk").ok


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb", "a ;b", "a\t#b"])
def test_home_whose_path_would_be_cut_is_found_and_told_in_one_line(tmp_path: Path, name: str) -> None:
    finding = _find(Settings(home=tmp_path / name, cache=tmp_path), "SLUICE_HOME")
    assert not finding.ok
    assert "no comma" in finding.remedy
    assert len(f"{finding.found} {finding.remedy}".splitlines()) == 1


@pytest.mark.parametrize("name", ["a b", "a#b", "a;b", "100 %", "Übung", "it's"])
def test_home_of_an_unusual_name_is_good(tmp_path: Path, name: str) -> None:
    assert _find(Settings(home=tmp_path / name, cache=tmp_path), "SLUICE_HOME").ok


def test_servers_that_were_not_obtained_are_named(settings: Settings) -> None:
    finding = _find(settings, "servers")
    assert not finding.ok
    assert "MinIO" in finding.found
    assert "make setup" in finding.remedy


def test_environment_without_the_jars_of_the_cache_is_found(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached, pyspark = settings.cache / "spark-jars", settings.home / "pyspark"
    for folder in (cached, settings.cache / "kafka-jars", settings.cache / "bin", pyspark / "jars"):
        folder.mkdir(parents=True)
    install.minio_binary(settings.cache).touch()
    (cached / "iceberg.jar").touch()
    monkeypatch.setattr(install, "pyspark_home", lambda: pyspark)
    assert _find(settings, "servers").found == "missing: Spark's jars in this environment"
    (pyspark / "jars" / "iceberg.jar").symlink_to(cached / "iceberg.jar")
    assert _find(settings, "servers").ok


def test_running_stack_does_not_find_its_own_ports_taken(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, settings.ports.minio))
        taken.listen()
        checks = [finding.check for finding in examine(settings, stack_is_up=True)]
    assert not any("port" in check for check in checks)


@pytest.mark.parametrize(
    ("release", "fits"),
    [
        pytest.param('JAVA_VERSION="17.0.15"\nMODULES="java.base jdk.incubator.vector"', True, id="17"),
        pytest.param('JAVA_VERSION="21.0.2"\nMODULES="java.base jdk.incubator.vector"', True, id="21"),
        pytest.param('JAVA_VERSION="17.0.15"\nMODULES="java.base"', False, id="17-without-vector-module"),
        pytest.param('JAVA_VERSION="25.0.1"\nMODULES="java.base jdk.incubator.vector"', False, id="25"),
        pytest.param("nothing", False, id="no-version"),
    ],
)
def test_java_is_told_by_its_release_file(tmp_path: Path, release: str, fits: bool) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch()
    (tmp_path / "release").write_text(release)
    assert (install._probe_java(tmp_path) is not None) is fits
