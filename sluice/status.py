"""What is told of a stack's services, whichever way they run."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

Say = Callable[[str], None]


class ServiceStatus(BaseModel):
    """One service, as `sluice status` shows it."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: str
    """running, starting, unhealthy, stopped or failed"""
    pid: int | None
    url: str | None
    memory_mb: int
    """Resident memory of the process and its children."""


class StackStatus(BaseModel):
    """All services of a stack."""

    model_config = ConfigDict(frozen=True)

    ready: bool
    services: tuple[ServiceStatus, ...]
