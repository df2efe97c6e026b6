"""Starts, looks at and stops a whole stack."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from contracts.errors import NotRunning, ServiceUnavailable, SetupError, UsageError
from contracts.settings import HOST, SECRETS_FILE, Settings, load_settings
from contracts.spark_remote import host_and_port
from sluice import doctor, health, postgres_server, supervisor
from sluice.bootstrapping import bootstrap
from sluice.logs import follow_lines, last_lines
from sluice.secrets import ensure_secrets
from sluice.services import BY_NAME, SERVICES, Service, local_services, master_state, service_url
from sluice.status import Say, ServiceStatus, StackStatus
from sluice.supervisor import require_running

__all__ = [
    "down", "follow_lines", "last_lines", "postgres_client", "require_running", "start_storage", "status", "up",
]  # fmt: skip

START_SECONDS = 240
"""Limit for a wave of services to become healthy; a slow, shared machine needs about a quarter of it."""

MOST_CRASH_LOOKS = 10
"""How often a starting service may be seen crashed, at a look each half second, before the start is given up."""


def up(say: Say) -> Settings:
    """Start the stack, or complete one that is partly up, and bootstrap it.

    Returns:
        The settings, with the secrets that a first start made.

    Raises:
        SetupError: the machine lacks something, and each line says what and the remedy; or the stack is another user's.
        ServiceUnavailable: a service did not become healthy in time; names its log.
        UsageError: the settings name a certificate authority, which only the stack in containers has.
    """
    settings = load_settings()
    if settings.ca_file is not None:
        raise UsageError("Servers that are processes have no certificates; unset SLUICE_CA_FILE. See docs/tls.md.")
    with _lock(settings.home):
        ensure_secrets(settings.home)
        settings = load_settings()
        if supervisor.running(settings):
            if status(settings).ready:
                return settings
        else:
            _make_ready(settings)
        supervisor.start(settings)
        _start_wave(settings, 1, say)
        bootstrap(settings, supervisor.log_file(settings, "airflow-bootstrap"), say)
        _start_wave(settings, 2, say)
        _warm_up(settings, say)
    return settings


def _make_ready(settings: Settings) -> None:
    _kill_leftovers(settings)
    _refuse_unfit_machine(settings)
    # A new master need not wait for workers and applications of a stack that was stopped.
    shutil.rmtree(master_state(settings), ignore_errors=True)


def start_storage(say: Say) -> Settings:
    """Leave nothing running but what holds data, Postgres, MinIO and Kafka, and what comes up with them.

    Raises:
        SetupError, ServiceUnavailable: as `up` does.
    """
    settings = load_settings()
    with _lock(settings.home):
        ensure_secrets(settings.home)
        settings = load_settings()
        if supervisor.running(settings):
            names = [service.name for service in SERVICES if service.wave > 1]
            supervisor.stop_services(settings, names)
            _wait_until_stopped(settings, set(names))
        else:
            _make_ready(settings)
        supervisor.start(settings)
        _start_wave(settings, 1, say)
    return settings


def postgres_client(settings: Settings, tool: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a client program of Postgres, signed in as the superuser."""
    argv = [
        str(postgres_server.program(tool)), f"--host={HOST}", f"--port={settings.ports.postgres}",
        f"--username={settings.postgres_superuser}", "--no-password",
    ]  # fmt: skip
    return argv, os.environ | {"PGPASSWORD": settings.postgres_password.get_secret_value()}


def _refuse_unfit_machine(settings: Settings) -> None:
    wrong = [finding for finding in doctor.examine(settings, stack_is_up=False) if not finding.ok]
    if wrong:
        raise SetupError("\n".join(f"{item.check}: {item.found}. {item.remedy}" for item in wrong))


def _refuse_stack_of_another_user(home: Path) -> None:
    """Raise `SetupError` where another user started this stack, although this one, root for example, may write there.

    Its process manager would not be found, and files that were written here could not be read by whose stack it is.
    """
    path = home / SECRETS_FILE
    try:
        owner = path.stat().st_uid
    except FileNotFoundError:
        return
    if owner != os.getuid():
        whose = _user_name(owner)
        raise SetupError(
            f"The stack in {home} is not yours: {path} belongs to {whose}, and you are {_user_name(os.getuid())}. "
            f"Run the command as {whose}, or point SLUICE_HOME at a folder of your own."
        )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    _refuse_stack_of_another_user(home)
    home.mkdir(parents=True, exist_ok=True)
    with (home / "up.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SetupError(f"Another sluice is starting or stopping the stack in {home}; wait for it.") from error
        yield


def _start_wave(settings: Settings, wave: int, say: Say) -> None:
    services = [service for service in local_services(settings) if service.wave == wave]
    for service in services:
        supervisor.start_service(settings, service.name)
    waiting = {service.name for service in services}
    crashes: Counter[str] = Counter()
    begun = time.monotonic()
    while waiting:
        for name, good in health.healthy((BY_NAME[name] for name in sorted(waiting)), settings).items():
            if good:
                waiting.discard(name)
                say(f"{name} is up ({time.monotonic() - begun:.0f} s)")
        if not waiting:
            return
        _raise_for_failed(settings, waiting, crashes)
        if time.monotonic() - begun > START_SECONDS:
            names = ", ".join(sorted(waiting))
            raise ServiceUnavailable(
                f"Not healthy after {START_SECONDS} s: {names}. See: sluice logs {sorted(waiting)[0]}"
            )
        time.sleep(0.5)


def _raise_for_failed(settings: Settings, names: set[str], crashes: Counter[str]) -> None:
    for name, process in supervisor.processes(settings).items():
        crashes[name] += process.state == "BACKOFF"
        if name in names and (process.state == "FATAL" or crashes[name] >= MOST_CRASH_LOOKS):
            tail = supervisor.log_file(settings, name).read_text("utf-8", errors="replace").splitlines()[-5:]
            raise ServiceUnavailable(f"{name} does not start. Its last lines:\n" + "\n".join(tail))


def _warm_up(settings: Settings, say: Say) -> None:
    from spark_jobs.warmup import warm_up

    begun = time.monotonic()
    warm_up(settings)
    say(f"Spark is warm ({time.monotonic() - begun:.0f} s)")


def status(settings: Settings) -> StackStatus:
    """Look at every service once; a stack that is not running has all of them stopped."""
    try:
        known = supervisor.processes(settings)
    except NotRunning:
        known = {}
    local = local_services(settings)
    alive = [service for service in local if service.name in known and known[service.name].pid]
    good = health.healthy(alive, settings)
    services = tuple(_service_status(service, known.get(service.name), good, settings) for service in local)
    if known and settings.spark_remote is not None:
        services += (_remote_status(settings),)
    return StackStatus(ready=all(item.state == "running" for item in services), services=services)


def _service_status(
    service: Service, process: supervisor.Process | None, good: dict[str, bool], settings: Settings
) -> ServiceStatus:
    pid = process.pid if process else None
    if process is None or process.state in ("STOPPED", "STOPPING", "EXITED"):
        state = "stopped"
    elif process.state in ("FATAL", "BACKOFF"):
        state = "failed"
    elif good.get(service.name):
        state = "running"
    else:
        state = "starting" if time.time() - process.started < START_SECONDS / 4 else "unhealthy"
    return ServiceStatus(
        name=service.name, state=state, pid=pid, url=service_url(service, settings), memory_mb=_memory_mb(pid)
    )


def _remote_status(settings: Settings) -> ServiceStatus:
    """The Spark Connect server elsewhere: whether its port answers; only a session tells whether it lets us in."""
    host, port = host_and_port(settings.spark_connect_secret_url)
    state = "running" if health.listens(port, host) else "unhealthy"
    return ServiceStatus(name="spark-remote", state=state, pid=None, url=settings.spark_connect_url, memory_mb=0)


def _memory_mb(pid: int | None) -> int:
    if pid is None:
        return 0
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in family:
        total += _proportional_kb(member.pid)
    return total // 1024


def _proportional_kb(pid: int) -> int:
    """Memory with shared pages divided among those who share them: forked workers and Postgres' backends share most."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)


def down(say: Say) -> None:
    """Stop every service, in the reverse order of their start, and leave nothing running.

    Raises:
        SetupError: the stack is another user's, or is being started or stopped.
    """
    settings = load_settings()
    with _lock(settings.home):
        if supervisor.running(settings):
            for wave in sorted({service.wave for service in SERVICES}, reverse=True):
                names = [service.name for service in SERVICES if service.wave == wave]
                supervisor.stop_services(settings, names)
                _wait_until_stopped(settings, set(names))
            pid = supervisor.shut_down(settings)
            if pid is not None:
                psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=30)
        killed = _kill_leftovers(settings)
        if killed:
            say(f"ended {killed} processes that had lost their parent")


def _wait_until_stopped(settings: Settings, names: set[str]) -> None:
    limit = time.monotonic() + 2 * supervisor.STOP_SECONDS
    while time.monotonic() < limit:
        if not any(item.pid for name, item in supervisor.processes(settings).items() if name in names):
            return
        time.sleep(0.1)


def _kill_leftovers(settings: Settings) -> int:
    """End processes of this stack that outlived their parent, for example after a SIGKILL of the process manager."""
    mine = list(supervisor.supervised(settings))
    for process in mine:
        _signal(process.terminate)
    _, stubborn = psutil.wait_procs(mine, timeout=15)
    for process in stubborn:
        _signal(process.kill)
    psutil.wait_procs(stubborn, timeout=5)
    return len(mine)


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return
