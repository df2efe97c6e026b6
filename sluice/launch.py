"""`python -m sluice.launch SERVICE`: prepare a service and become its process.

The process manager calls this, so that its own configuration holds no secret: they are read here from the
stack's secrets file and handed to the one process that needs them.
"""

from __future__ import annotations

import os
import pwd
import sys
from contextlib import suppress

import psutil

from contracts.errors import SluiceError
from contracts.settings import Settings, load_settings
from sluice.services import BY_NAME, Command
from sluice.supervisor import supervised


def main(argv: list[str]) -> int:
    """Become the service named by the only argument; returns only when that fails."""
    service = BY_NAME[argv[0]]
    settings = load_settings()
    _end_predecessor(settings, service.name)
    try:
        if service.prepare is not None:
            service.prepare(settings)
        command = service.command(settings)
    except SluiceError as error:
        print(f"{service.name}: {error}", file=sys.stderr)
        return 1
    _become(command)
    return 1


def _end_predecessor(settings: Settings, name: str) -> None:
    """End what outlived an earlier process of this service that was killed.

    Airflow's workers do, and with them the connections that they inherited: a transaction of the dead scheduler would
    stay open, and no other scheduler would ever look at the runs that it has locked.
    """
    for process in supervised(settings, name):
        if process.pid != os.getpid():
            print(f"{name}: ending process {process.pid}, which an earlier one left behind", file=sys.stderr)
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _become(command: Command) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        # Without compiled files every start of Airflow compiles a thousand modules again.
        if name != "PYTHONDONTWRITEBYTECODE"
    } | command.environment
    if command.user is not None:
        entry = pwd.getpwnam(command.user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        environment["HOME"] = entry.pw_dir
    os.execvpe(command.argv[0], command.argv, environment)  # noqa: S606 - that is this module's purpose


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
