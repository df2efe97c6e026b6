"""Addresses of Spark Connect servers."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from pyspark.sql.connect.client.core import DefaultChannelBuilder

from contracts.settings import Settings, load_settings
from contracts.spark_remote import host_and_port, shown, with_session
from sluice.environment import shell_exports, user_environment
from sluice.services import SERVICES, local_services

SESSION = "51c1ce00-0000-4000-8000-000000000001"
TOKEN = "not-to-be-shown"
WITH_TOKEN = f"sc://spark.example:443/;use_ssl=true;token={TOKEN};x-some-proxy={TOKEN}"


@pytest.mark.parametrize(
    "url",
    [
        "sc://spark.example",
        "sc://spark.example:15002/",
        "sc://spark.example:443/;use_ssl=true",
        "sc://[::1]:15002",
        WITH_TOKEN,
        f"{WITH_TOKEN};session_id=51c1ce00-0000-4000-8000-00000000ffff",
    ],
)
def test_spark_s_client_reads_the_address_with_our_session_and_all_other_parameters(url: str) -> None:
    before, after = DefaultChannelBuilder(url), DefaultChannelBuilder(with_session(url, SESSION))
    assert after.session_id == SESSION
    assert (after.endpoint, after.token, after.secure) == (before.endpoint, before.token, before.secure)
    assert list(after.metadata()) == list(before.metadata())
    host, port = host_and_port(url)
    assert after.endpoint == f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.mark.parametrize("url", [WITH_TOKEN, WITH_TOKEN.replace("/;", ";"), f"sc://spark.example:443/;token={TOKEN}"])
def test_what_is_shown_holds_no_credential_and_tells_of_tls(url: str) -> None:
    assert shown(url) == "sc://spark.example:443/;use_ssl=true"
    assert DefaultChannelBuilder(shown(url)).secure


@pytest.mark.parametrize(
    "url",
    [
        f"http://spark.example/;token={TOKEN}",
        f"sc:///;token={TOKEN}",
        f"sc://{TOKEN}@spark.example",
        f"sc://spark.example/path;token={TOKEN}",
        f"sc://spark.example:port/;token={TOKEN}",
        f"sc://spark.example/;token={TOKEN}==",
        f"sc://spark.example/;{TOKEN}",
        TOKEN,
    ],
)
def test_address_that_spark_cannot_read_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValidationError, match=r"sc://host:port|name=value") as refused:
        Settings(spark_remote=url)  # type: ignore[arg-type]
    assert TOKEN not in str(refused.value)
    assert TOKEN not in repr(refused.value)


def test_stack_with_another_spark_starts_none_of_its_own_and_shows_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_SPARK_REMOTE", WITH_TOKEN)
    settings = load_settings()
    assert settings.spark_connect_secret_url == WITH_TOKEN
    assert TOKEN not in f"{settings!r} {settings.model_dump_json()} {shell_exports(user_environment(settings))}"
    left = {service.name for service in SERVICES} - {service.name for service in local_services(settings)}
    assert left == {"spark-master", "spark-worker", "spark-connect"}


@pytest.mark.parametrize("value", [None, ""])
def test_stack_has_a_spark_of_its_own_by_default(value: str | None) -> None:
    settings = Settings(spark_remote=value, port_base=23000)  # type: ignore[arg-type]
    assert settings.spark_connect_url == settings.spark_connect_secret_url == "sc://127.0.0.1:23009"
    assert local_services(settings) == SERVICES
