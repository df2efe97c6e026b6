"""What `sluice status` tells of a Spark Connect server elsewhere."""

from __future__ import annotations

import socket

import pytest

from contracts.settings import HOST, Settings
from sluice import stack
from sluice.supervisor import Process
from tests.servers import free_port_block

TOKEN = "not-to-be-shown"


@pytest.mark.parametrize("listening", [True, False])
def test_status_tells_whether_the_other_spark_answers_and_no_token(
    listening: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        stack.supervisor, "processes", lambda settings: {"minio": Process("minio", "STOPPED", None, 0, "")}
    )
    with socket.socket() as server:
        server.bind((HOST, 0))
        if listening:
            server.listen()
        url = f"sc://{HOST}:{server.getsockname()[1]}/;use_ssl=true"
        settings = Settings(spark_remote=f"{url};token={TOKEN}", port_base=free_port_block(16))  # type: ignore[arg-type]
        found = stack.status(settings)
    assert TOKEN not in found.model_dump_json()
    names = [service.name for service in found.services]
    assert not {"spark-master", "spark-worker", "spark-connect"} & set(names)
    other = found.services[names.index("spark-remote")]
    assert (other.state, other.url) == ("running" if listening else "unhealthy", url)
