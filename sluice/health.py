"""Whether each service does its job, asked from outside, and the memory that the stack holds."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any

from contracts.settings import HOST, Settings
from sluice.services import Service

SECONDS = 2.0
_AIRFLOW_PARTS = {
    "airflow-api-server": "metadatabase",
    "airflow-scheduler": "scheduler",
    "airflow-dag-processor": "dag_processor",
    "airflow-triggerer": "triggerer",
}


def healthy(services: Iterable[Service], settings: Settings) -> dict[str, bool]:
    """Ask each service once.

    Returns:
        Name to health. Airflow's four parts are asked by one call, which tells of their heartbeats, and the
        api-server whether tasks can talk to it.
    """
    wanted = list(services)
    airflow: Any = None
    if any(service.name in _AIRFLOW_PARTS for service in wanted):
        airflow = _get_json(f"{settings.airflow_url}/api/v2/monitor/health")
    return {service.name: _healthy(service, settings, airflow) for service in wanted}


def _healthy(service: Service, settings: Settings, airflow: Any) -> bool:
    ports = settings.ports
    if service.name in _AIRFLOW_PARTS:
        part = (airflow or {}).get(_AIRFLOW_PARTS[service.name]) or {}
        good = part.get("status") == "healthy"
        if good and service.name == "airflow-api-server":
            # It builds what tasks talk to at the first such request (measured: 7.5 s, which the first file waited for).
            return _get(f"{settings.airflow_url}/execution/health") is not None
        return good
    if service.name == "minio":
        return _get(f"http://{settings.s3_endpoint}/minio/health/live") is not None
    if service.name == "spark-master":
        # Not so while it waits for the workers and applications that it had before it died.
        return (_get_json(f"http://{HOST}:{ports.spark_master_ui}/json/") or {}).get("status") == "ALIVE"
    if service.name == "spark-worker":
        state = _get_json(f"http://{HOST}:{ports.spark_master_ui}/json/") or {}
        return any(worker.get("state") == "ALIVE" for worker in state.get("workers", []))
    if service.name == "router":
        return _get(f"http://{HOST}:{ports.router_metrics}/metrics") is not None
    if service.name == "postgres":
        return _postgres_answers(settings)
    return listens(getattr(ports, service.port))


def listens(port: int, host: str = HOST) -> bool:
    """Whether something accepts connections on the port, by default of the loopback address."""
    try:
        with socket.create_connection((host, port), timeout=SECONDS):
            return True
    except OSError:
        return False


def _postgres_answers(settings: Settings) -> bool:
    import psycopg

    try:
        url = settings.postgres_url(settings.postgres_superuser, "postgres")
        with psycopg.connect(url, connect_timeout=2) as link:
            return link.execute("select 1").fetchone() is not None
    except psycopg.Error:
        return False


def _get(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310 - loopback addresses of our own
            return bytes(answer.read())
    except (OSError, urllib.error.URLError, ValueError):
        return None


def _get_json(url: str) -> Any:
    body = _get(url)
    if body is None:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None
