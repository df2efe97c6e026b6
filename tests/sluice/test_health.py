"""What counts as healthy."""

from __future__ import annotations

import pytest

from contracts.settings import Settings
from sluice import health
from sluice.services import BY_NAME


@pytest.mark.parametrize("answer", [None, b'{"status": "healthy"}'])
def test_api_server_is_healthy_once_tasks_can_talk_to_it(answer: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings()
    answers = {f"{settings.airflow_url}/execution/health": answer}
    monkeypatch.setattr(health, "_get", answers.get)
    monkeypatch.setattr(health, "_get_json", lambda url: {"metadatabase": {"status": "healthy"}})
    found = health.healthy([BY_NAME["airflow-api-server"]], settings)
    assert found == {"airflow-api-server": answer is not None}


def test_part_of_airflow_without_a_heartbeat_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_get_json", lambda url: {"scheduler": {"status": "unhealthy"}, "triggerer": None})
    services = [BY_NAME["airflow-scheduler"], BY_NAME["airflow-triggerer"]]
    assert health.healthy(services, Settings()) == {"airflow-scheduler": False, "airflow-triggerer": False}
