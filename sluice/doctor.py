"""Checks what a start needs, before anything starts: each finding is one line with its remedy."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from contracts.settings import HOST, Settings
from sluice import install

MEMORY_GIB = 6
"""What the whole stack may take at rest; measured below it (docs/benchmarks.md)."""
DISK_GIB = 4

_BREAKS = re.compile(r'[,"\r\n]|\s[;#]')
"""Where a path would be cut: Kafka's log.dirs at commas, supervisord's configuration before a comment, and the options
of Spark's JVMs, which are in quotation marks, at the next one."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    ok: bool
    found: str
    remedy: str = ""


def examine(settings: Settings, stack_is_up: bool) -> list[Finding]:
    """Look at everything that a start needs.

    Args:
        settings: of the stack to be started.
        stack_is_up: its own servers hold its ports then, so ports and memory are not looked at.
    """
    findings = [_python(), _java(), _servers(settings), _home(settings), _disk(settings)]
    if not stack_is_up:
        findings += [_memory(), *_ports(settings)]
    return findings


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python 3.11 or newer", sys.version_info >= (3, 11), found, "Install Python 3.11, then: make setup")


def _java() -> Finding:
    java = install.find_java()
    command = install.java_install_command()
    return Finding(
        "Java 17 or 21",
        java is not None,
        f"{java.version} in {java.home}" if java else "none with the module jdk.incubator.vector",
        f"Run: sudo {' '.join(command)}" if command else "Install an OpenJDK 17 or 21.",
    )


def _servers(settings: Settings) -> Finding:
    missing = [
        name
        for name, there in (
            ("MinIO", install.minio_binary(settings.cache).exists()),
            ("Kafka", (settings.cache / "kafka-jars").exists()),
            ("Spark's jars in this environment", install.spark_jars_linked(settings.cache)),
        )
        if not there
    ]
    return Finding(
        "servers", not missing, f"missing: {', '.join(missing)}" if missing else str(settings.cache), "Run: make setup"
    )


def _home(settings: Settings) -> Finding:
    folder = _existing(settings.home)
    remedy = "Point SLUICE_HOME at a folder that you may write to."
    if _BREAKS.search(str(settings.home)):
        return Finding(
            "SLUICE_HOME",
            False,
            f"Kafka, Spark or the process manager would cut {str(settings.home)!r} short",
            "Point SLUICE_HOME at a folder whose path has no comma, quotation mark or line break, and no blank before "
            "a semicolon or #.",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("SLUICE_HOME", False, f"{folder} cannot be written to", remedy)
    return Finding("SLUICE_HOME", True, str(settings.home))


def _disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(_existing(settings.home)).free / 2**30
    return Finding(
        f"disk, {DISK_GIB} GiB free",
        free >= DISK_GIB,
        f"{free:.1f} GiB free for {settings.home}",
        "Free some space, or point SLUICE_HOME at a larger disk.",
    )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _memory() -> Finding:
    free = psutil.virtual_memory().available / 2**30
    return Finding(
        f"memory, {MEMORY_GIB} GiB free",
        free >= MEMORY_GIB,
        f"{free:.1f} GiB available",
        "Close other programs, or set SLUICE_SPARK_EXECUTOR_MEMORY and SLUICE_SPARK_DRIVER_MEMORY lower.",
    )


def _ports(settings: Settings) -> list[Finding]:
    findings = []
    for name, port in settings.ports.model_dump().items():
        holder = _holder(port)
        if holder is not None:
            findings.append(
                Finding(
                    f"port {port} ({name})",
                    False,
                    f"taken by {holder}",
                    "End that program, or move all ports: export SLUICE_PORT_BASE=21000",
                )
            )
    return findings or [Finding("ports", True, "all free")]


def _holder(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            return None
        except OSError:
            pass
    try:
        for link in psutil.net_connections("tcp"):
            if link.status == psutil.CONN_LISTEN and link.laddr and link.laddr.port == port and link.pid:
                return f"{psutil.Process(link.pid).name()} (process {link.pid})"
    except psutil.Error:
        pass
    return "another program"
