"""The Kafka server as the product prepares it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contracts.settings import Settings
from sluice.kafka_server import new_cluster_id, properties


def test_id_of_a_cluster_never_begins_like_an_option():
    ids = {new_cluster_id() for _ in range(2_000)}  # one in 64 random ones would begin with "-"
    assert len(ids) == 2_000
    assert all(len(cluster_id) == 22 and not cluster_id.startswith("-") for cluster_id in ids)


def read_by_java(text: str) -> dict[str, str]:
    """A file of properties as `java.util.Properties` reads it, as far as ours go."""
    found = {}
    for line in text.encode("iso-8859-1").decode("iso-8859-1").splitlines():
        name, _, value = line.partition("=")
        units = re.sub(r"\\(?:u([0-9a-f]{4})|(.))", lambda m: chr(int(m[1], 16)) if m[1] else m[2], value)
        found[name] = units.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return found


@pytest.mark.parametrize("name", ["plain", "a\\new \\user", "Übung", "日本", "\N{OIL DRUM}"])
def test_java_reads_the_paths_that_are_meant(name: str) -> None:
    home = Path("/srv") / name
    settings = Settings(home=home, ca_file=home / "ca.pem")
    text = properties(settings, home / "secrets")
    assert text.isascii()
    read = read_by_java(text)
    assert read["log.dirs"] == str(home / "kafka" / "data")
    assert read["ssl.keystore.location"] == str(home / "secrets" / "server.pem")
    assert read["ssl.truststore.location"] == str(home / "ca.pem")


def test_name_that_is_not_utf_8_does_not_keep_the_file_from_being_written() -> None:
    assert "/srv/\\udcff/" in properties(Settings(home=Path("/srv/\udcff")))


def test_password_is_read_by_java_as_it_is() -> None:
    (line,) = (
        value
        for name, value in read_by_java(properties(Settings(kafka_admin_password='é"\\x'))).items()
        if name == "listener.name.controller.plain.sasl.jaas.config"
    )
    assert line.endswith(r'required username="admin" password="é\"\\x" user_admin="é\"\\x";')
