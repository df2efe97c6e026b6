"""A stack that faults can be done to: proxies before its servers, disks of its own, a clock that can be moved."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tenacity

from contracts.fail_points import FOLDER
from contracts.settings import HOST, USUAL_PORTS, Settings, load_settings
from sluice import install
from tests.conftest import CONNECT_MODE, SLUICE, tails, write_contracts
from tests.servers import free_port_block

TOXIPROXY = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0"
PROXIED = ("minio", "kafka", "postgres")
DISK_BYTES = 1_500_000_000
"""Of the file systems in memory that MinIO and Kafka get, where they may be mounted."""


@dataclass(frozen=True)
class World:
    """A running stack, and by what it can be troubled. What is missing leaves out the faults that need it."""

    settings: Settings
    fail_points: Path
    """Folder in which a file arms a step (`contracts.fail_points`)."""
    proxies: Proxies | None = None
    disks: dict[str, Path] = field(default_factory=dict)
    """Service to the mounted file system that holds its data."""
    clock: Path | None = None
    """File that says by how much the clocks of the stack's Python processes are off."""
    missing: tuple[str, ...] = ()
    """Faults that this machine does not allow, with the reason."""


class Proxies:
    """Toxiproxy between the stack's clients and its servers."""

    def __init__(self, port: int) -> None:
        self._url = f"http://{HOST}:{port}"

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(OSError),
        stop=tenacity.stop_after_delay(20),
        wait=tenacity.wait_fixed(0.1),
    )
    def add(self, name: str, listen: int, upstream: int) -> None:
        """Let a port of ours lead to a server's."""
        self._call("POST", "/proxies", {"name": name, "listen": f"{HOST}:{listen}", "upstream": f"{HOST}:{upstream}"})

    def cut(self, name: str, cut: bool) -> None:
        """Refuse all connections and close those that are open, or take them again."""
        self._call("POST", f"/proxies/{name}", {"enabled": not cut})

    def silence(self, name: str) -> None:
        """Deliver nothing more in either direction, and keep the connections open."""
        for stream in ("upstream", "downstream"):
            self._poison(name, "timeout", stream, {"timeout": 0})

    def slow(self, name: str, milliseconds: int) -> None:
        """Deliver everything so much later, give or take a half."""
        self._poison(name, "latency", "downstream", {"latency": milliseconds, "jitter": milliseconds // 2})

    def heal(self) -> None:
        """Take all toxics away and connect everything."""
        self._call("POST", "/reset")

    def _poison(self, name: str, kind: str, stream: str, attributes: dict[str, int]) -> None:
        toxic = {"type": kind, "stream": stream, "toxicity": 1.0, "attributes": attributes}
        self._call("POST", f"/proxies/{name}/toxics", toxic)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self._url}{path}", data=data, method=method)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310 - as above
            pass


@contextmanager
def started_world(movable_clock: bool) -> Iterator[World]:
    """A stack of its own in a temporary folder, up and warm; stopped and removed afterwards.

    Args:
        movable_clock: run the stack's Python processes under libfaketime; idle ones then take a fifth of a core.
    """
    home = Path(tempfile.mkdtemp(prefix="sluice-chaos-"))
    missing: list[str] = []
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, home, ignore_errors=True)
        base = free_port_block(len(USUAL_PORTS) + len(PROXIED) + 1)
        ports = {name: base + len(USUAL_PORTS) + offset for offset, name in enumerate(PROXIED)}
        fail_points = home / "fail-points"
        fail_points.mkdir()
        write_contracts(home / "contracts")
        environment = {
            "SLUICE_HOME": str(home),
            "SLUICE_CONTRACTS_DIR": str(home / "contracts"),
            "SLUICE_PORT_BASE": str(base),
            FOLDER: str(fail_points),
            **{f"SLUICE_{name.upper()}_ADDRESS": f"{HOST}:{port}" for name, port in ports.items()},
        }
        disks = {name: disk for name in ("minio", "kafka") if (disk := _mounted(home / name, undo, missing))}
        clock = _movable_clock(home, environment, missing) if movable_clock else None
        _inherit(environment, undo)
        settings = load_settings()
        proxies = _proxies(settings, base + len(USUAL_PORTS) + len(PROXIED), ports, undo)
        undo.callback(subprocess.run, [str(SLUICE), "down"], check=False)
        done = subprocess.run([str(SLUICE), "up"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"sluice up failed\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{tails(home)}")
        yield World(load_settings(), fail_points, proxies, disks, clock, tuple(missing))


def _inherit(environment: dict[str, str], undo: ExitStack) -> None:
    """Set variables of this process until the end; the stack is started from it, and the settings are read in it."""
    before = {name: os.environ.get(name) for name in (*environment, *CONNECT_MODE)}

    def restore() -> None:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})

    undo.callback(restore)
    for name in CONNECT_MODE:
        os.environ.pop(name, None)
    os.environ.update(environment)


def _proxies(settings: Settings, api: int, ports: dict[str, int], undo: ExitStack) -> Proxies:
    binary = settings.cache / "bin" / "toxiproxy"
    install.ensure_built("toxiproxy", TOXIPROXY, binary, settings.cache, print)
    command = [str(binary), "-host", HOST, "-port", str(api)]
    quiet = os.environ | {"LOG_LEVEL": "error"}
    server = subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    undo.callback(server.wait)
    undo.callback(server.terminate)
    proxies = Proxies(api)
    for name, port in ports.items():
        proxies.add(name, port, getattr(settings.ports, name))
    return proxies


def _mounted(folder: Path, undo: ExitStack, missing: list[str]) -> Path | None:
    """A file system of bounded size at a folder, or None where it may not be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=755", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        missing.append(f"full disk of {folder.name}: {done.stderr.strip()}")
        return None
    undo.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)
    return folder


def _movable_clock(home: Path, environment: dict[str, str], missing: list[str]) -> Path | None:
    """Have the stack's Python processes read the time through libfaketime, where that is installed."""
    libraries = Path(sysconfig.get_path("purelib")).glob("libfaketime/vendor/libfaketime/src/libfaketime.so.1")
    library = next(libraries, None)
    if library is None:
        missing.append("jump of the clock: libfaketime is not installed")
        return None
    clock = home / "clock"
    clock.write_text("+0\n", "utf-8")
    environment |= {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        # Others, like the JVM, keep the true time: a clock that jumps is one host's, not all the world's.
        "FAKETIME_ONLY_CMDS": Path(sys.executable).name,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_CACHE_DURATION": "1",
    }
    return clock
