"""The processes of a stack: which one does what, and when one that was killed is back."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime

import psutil

from contracts.settings import Settings
from sluice import health, supervisor
from sluice.services import BY_NAME, SERVICES

SERVICE_NAMES = tuple(service.name for service in SERVICES)
EXECUTOR = "spark-executor"
TASK = "airflow-task"
_HEARTBEATS = {
    "airflow-scheduler": "scheduler",
    "airflow-dag-processor": "dag_processor",
    "airflow-triggerer": "triggerer",
}


def find(settings: Settings, name: str) -> int | None:
    """The process that does a part's work: a service's, the executor's, or that of a task which runs; None: none."""
    if name == EXECUTOR:
        return next(_executors(settings), None)
    if name == TASK:
        return next(_tasks(settings), None)
    return supervisor.processes(settings)[name].pid


def is_back(settings: Settings, name: str, killed: int) -> bool:
    """Whether another process does the work of the one that was killed, and is well."""
    pid = find(settings, name)
    if name == TASK:
        return True
    if pid is None or pid == killed:
        return False
    return name == EXECUTOR or (health.healthy([BY_NAME[name]], settings)[name] and _beats(settings, name, pid))


def _beats(settings: Settings, name: str, pid: int) -> bool:
    """Whether the last heartbeat of a part of Airflow is this process's own."""
    if name not in _HEARTBEATS:
        return True
    part = _HEARTBEATS[name]
    with urllib.request.urlopen(f"{settings.airflow_url}/api/v2/monitor/health", timeout=5) as answer:  # noqa: S310
        beat = datetime.fromisoformat(json.load(answer)[part][f"latest_{part}_heartbeat"])
    return beat > datetime.fromtimestamp(psutil.Process(pid).create_time(), UTC)


def _executors(settings: Settings) -> Iterator[int]:
    for process in _children(settings, "spark-worker"):
        try:
            if any("CoarseGrainedExecutorBackend" in word for word in process.cmdline()):
                yield process.pid
        except psutil.Error:
            continue


def _tasks(settings: Settings) -> Iterator[int]:
    for process in _children(settings, "airflow-scheduler"):
        try:
            line = " ".join(process.cmdline())
            if line.startswith("airflow worker -- ") and "LocalExecutor" not in line:
                yield process.pid
        except psutil.Error:
            continue


def _children(settings: Settings, service: str) -> list[psutil.Process]:
    pid = supervisor.processes(settings)[service].pid
    try:
        return [] if pid is None else psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
