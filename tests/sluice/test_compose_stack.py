"""What is told of containers, made of what Compose prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.settings import Settings
from sluice import compose_stack


def container(service: str, state: str = "running", health: str = "healthy", **ports: int) -> dict[str, Any]:
    published = [
        {"URL": "127.0.0.1", "TargetPort": int(target.removeprefix("p")), "PublishedPort": port}
        for target, port in ports.items()
    ]
    name = f"sluice-{service}-1"
    return {"ID": name, "Name": name, "Service": service, "State": state, "Health": health, "Publishers": published}


@pytest.mark.parametrize(("ca_file", "scheme"), [(None, "http"), (Path("/etc/ca.crt"), "https")])
def test_pages_are_told_by_the_addresses_that_a_browser_opens(
    monkeypatch: pytest.MonkeyPatch, ca_file: Path | None, scheme: str
) -> None:
    found = [
        container("minio", p9000=9000, p9001=9001),
        container("airflow-api-server", p8080=8080),
        container("kafka", p9094=9094),
        container("init", state="exited", health=""),
    ]
    monkeypatch.setattr(compose_stack, "_containers", lambda: found)
    monkeypatch.setattr(compose_stack, "_memory", lambda ids: {})
    told = compose_stack.status(Settings(ca_file=ca_file))
    assert {item.name: item.url for item in told.services} == {
        "sluice-minio-1": f"{scheme}://127.0.0.1:9001/",
        "sluice-airflow-api-server-1": "http://127.0.0.1:8080/",
        "sluice-kafka-1": "127.0.0.1:9094",
    }
    assert told.ready
