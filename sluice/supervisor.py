"""Edge to supervisord, the process manager: its configuration, its start, its XML-RPC interface."""

from __future__ import annotations

import configparser
import hashlib
import os
import stat
import subprocess
import sys
import xmlrpc.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from contracts.errors import NotRunning, ServiceUnavailable
from contracts.settings import Settings
from sluice.services import SERVICES

LOG_BYTES = 20_000_000
LOG_BACKUPS = 2
"""Files of a service's log that are kept beside the one that it writes."""
STOP_SECONDS = 20
"""How long a service may take to end cleanly before it is killed."""

_RUN_FOLDERS = Path("/tmp")  # noqa: S108 - a stack is found whatever TMPDIR says, and its folder there is private
_SOCKET = "supervisor.sock"


@dataclass(frozen=True)
class Process:
    """What the process manager knows of a service."""

    name: str
    state: str
    """supervisord's word: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL."""
    pid: int | None
    started: int
    """Unix seconds of the last start; 0 when never."""
    note: str


def log_file(settings: Settings, service: str) -> Path:
    """Where a service's output goes."""
    return settings.home / "logs" / f"{service}.log"


def _run_folder_name(settings: Settings) -> str:
    return f"sluice-{os.getuid()}-{hashlib.sha256(os.fsencode(settings.home)).hexdigest()[:12]}"


def run_folder(settings: Settings) -> Path:
    """The folder for the socket and the process id, of this user alone; `write_configuration` makes it.

    Raises:
        NotRunning: what is there is not a private folder of this user.
    """
    # A Unix socket's path holds at most 107 bytes, so it cannot lie in an arbitrarily deep SLUICE_HOME.
    folder = _RUN_FOLDERS / _run_folder_name(settings)
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return folder
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise NotRunning(f"{folder} is not a private folder of this user; remove it, then try again.")
    return folder


def _make_run_folder(settings: Settings) -> None:
    run_folder(settings).mkdir(mode=0o700, exist_ok=True)
    # Somebody else may have been quicker.
    run_folder(settings)


def _socket(settings: Settings) -> Path:
    return run_folder(settings) / _SOCKET


def write_configuration(settings: Settings) -> Path:
    """Write supervisord's configuration; it holds commands and paths, and no secret."""
    conf = configparser.RawConfigParser()
    logs = settings.home / "logs"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_run_folder(settings)
    conf["unix_http_server"] = {"file": str(_socket(settings)), "chmod": "0600"}
    conf["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    conf["supervisord"] = {
        "logfile": _escape(logs / "supervisord.log"),
        "logfile_maxbytes": str(LOG_BYTES),
        "logfile_backups": str(LOG_BACKUPS),
        "pidfile": _escape(run_folder(settings) / "supervisord.pid"),
        "childlogdir": _escape(logs),
        "directory": "/",
        "umask": "077",
        **({"user": "root"} if os.getuid() == 0 else {}),
    }
    for service in SERVICES:
        conf[f"program:{service.name}"] = {
            "command": f'"{_escape(sys.executable)}" -W ignore -m sluice.launch {service.name}',
            "autostart": "false",
            "autorestart": "true",
            "startsecs": "2",
            "startretries": "30",
            "stopwaitsecs": str(STOP_SECONDS),
            "stopsignal": "INT" if service.name == "postgres" else "TERM",
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": _escape(log_file(settings, service.name)),
            "stdout_logfile_maxbytes": str(LOG_BYTES),
            "stdout_logfile_backups": str(LOG_BACKUPS),
        }
    path = settings.home / "supervisord.conf"
    with path.open("w", encoding="utf-8") as file:
        conf.write(file)
    return path


def _escape(value: object) -> str:
    return str(value).replace("%", "%%")


def start(settings: Settings) -> None:
    """Start supervisord for this stack, unless it runs.

    Raises:
        ServiceUnavailable: it did not start; its output is in the message.
    """
    if running(settings):
        return
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(write_configuration(settings))],
        env=_environment(settings), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if done.returncode:
        raise ServiceUnavailable(f"The process manager did not start: {(done.stdout + done.stderr).strip()[-800:]}")


def _environment(settings: Settings) -> dict[str, str]:
    """What supervisord inherits, and by it every service: paths are absolute there, since its directory is /."""
    secrets = os.environ.get("SLUICE_SECRETS_FILE")
    return {
        **os.environ,
        "SLUICE_HOME": str(settings.home),
        "SLUICE_CACHE": str(settings.cache),
        "SLUICE_CONTRACTS_DIR": str(settings.contracts_dir),
        **({"SLUICE_SECRETS_FILE": str(Path(secrets).absolute())} if secrets else {}),
        # Java takes the names of files for what the locale can write.
        **({"LC_ALL": "C.UTF-8"} if os.environ.get("LC_ALL") in ("C", "POSIX") else {}),
    }


class _Call:
    """One connection to supervisord's XML-RPC interface."""

    def __init__(self, settings: Settings) -> None:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{_socket(settings)}")
        self._proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)

    def __call__(self, method: str, *arguments: object) -> object:
        try:
            return getattr(self._proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            # Asked to start what runs, or to stop what is stopped: the wish is fulfilled.
            if fault.faultString.startswith(("ALREADY_STARTED", "NOT_RUNNING")):
                return None
            raise ServiceUnavailable(f"The process manager refused {method}{arguments}: {fault.faultString}") from fault
        except (OSError, xmlrpc.client.Error) as error:
            raise NotRunning("The stack is not running. Start it with: sluice up") from error


def running(settings: Settings) -> bool:
    """Whether this stack's supervisord answers."""
    if not _socket(settings).exists():
        return False
    try:
        _Call(settings)("getState")
    except NotRunning:
        return False
    return True


def require_running(settings: Settings) -> None:
    """Raise NotRunning unless the stack's process manager answers."""
    if not running(settings):
        raise NotRunning("The stack is not running. Start it with: sluice up")


def processes(settings: Settings) -> dict[str, Process]:
    """All services by name.

    Raises:
        NotRunning: the stack's process manager is not up.
    """
    found: list[dict[str, object]] = _Call(settings)("getAllProcessInfo")  # type: ignore[assignment]
    return {
        str(item["name"]): Process(
            name=str(item["name"]),
            state=str(item["statename"]),
            pid=int(str(item["pid"])) or None,
            started=int(str(item["start"])),
            note=str(item["spawnerr"] or item["description"]),
        )
        for item in found
    }


def start_service(settings: Settings, name: str) -> None:
    """Ask for a service's start and come back at once."""
    _Call(settings)("startProcess", name, False)


def stop_services(settings: Settings, names: list[str]) -> None:
    """Ask all of these to end and come back at once."""
    call = _Call(settings)
    for name in names:
        call("stopProcess", name, False)


def supervised(settings: Settings, name: str | None = None) -> Iterator[psutil.Process]:
    """The processes of a stack's services and all that they started, whether or not their parent is still there.

    Args:
        name: of this service alone.
    """
    # A process manager of somebody else's may have programs with our SLUICE_HOME too, a shell or `sluice` itself.
    ours = f"/{_run_folder_name(settings)}/{_SOCKET}"
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue  # It ended meanwhile, or is another user's.
        service = environment.get("SUPERVISOR_PROCESS_NAME")
        if not environment.get("SUPERVISOR_SERVER_URL", "").endswith(ours):
            continue
        if service and environment.get("SLUICE_HOME") == str(settings.home) and name in (None, service):
            yield process


def shut_down(settings: Settings) -> int | None:
    """Tell supervisord to end, with whatever still runs under it.

    Returns:
        Its process id, so that the caller can wait for its end; None when it was not running.
    """
    try:
        call = _Call(settings)
        pid = int(str(call("getPID")))
        call("shutdown")
        return pid
    except NotRunning:
        return None
