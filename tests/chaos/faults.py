"""The faults, one class a kind: each troubles a running stack, ends, and tells when all was back."""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

import psutil
from minio import MinioAdmin
from minio.credentials import StaticProvider

from contracts.errors import SluiceError
from contracts.fail_points import Step
from contracts.settings import Settings
from sluice import supervisor
from tests.chaos import processes
from tests.chaos.world import PROXIED, World

BACK_SECONDS = 240
"""Limit for a part to be back after a fault has ended."""
STEP_SECONDS = 150
"""Limit for a step to be reached, or a task to be run, by the round's files."""


@dataclass(frozen=True)
class Fault(ABC):
    """Something that goes wrong."""

    target: str

    @property
    def kind(self) -> str:
        """What a report counts it as."""
        return type(self).__name__.lower()

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"

    def prepare(self, world: World) -> None:  # noqa: B027 - most need nothing
        """What has to be there before the round's first file comes."""

    def withdraw(self, world: World) -> None:  # noqa: B027 - as above
        """Take back what was prepared and nobody met."""

    @abstractmethod
    def strike(self, world: World, random: Random) -> datetime:
        """Do it, end it, and wait until whatever it hit is back.

        Returns:
            When that was.
        """


class Kill(Fault):
    """SIGKILL of a process; whoever watches over it starts another."""

    def strike(self, world: World, random: Random) -> datetime:
        pid = _wait_for_process(world.settings, self.target)
        _send(pid, signal.SIGKILL)
        return _back(world.settings, self.target, pid)


class Pause(Fault):
    """SIGSTOP of a process and, seconds later, SIGCONT: to the others it is dead, and then it is not."""

    def strike(self, world: World, random: Random) -> datetime:
        pid = _wait_for_process(world.settings, self.target)
        _send(pid, signal.SIGSTOP)
        time.sleep(random.choice((2, 8, 20)))
        _send(pid, signal.SIGCONT)
        return datetime.now(UTC)


class Die(Fault):
    """SIGKILL at a named step between event and commit; whoever reaches it first dies there."""

    def prepare(self, world: World) -> None:
        (world.fail_points / self.target).touch()

    def withdraw(self, world: World) -> None:
        (world.fail_points / self.target).unlink(missing_ok=True)

    def strike(self, world: World, random: Random) -> datetime:
        armed = world.fail_points / self.target
        _wait_until(lambda: not armed.exists(), STEP_SECONDS, f"the step {self.target} is reached")
        return datetime.now(UTC)


class Cut(Fault):
    """The network to a server: refused, silent or slow."""

    def strike(self, world: World, random: Random) -> datetime:
        assert world.proxies is not None
        name, how = self.target.split("/")
        if how == "refused":
            world.proxies.cut(name, cut=True)
        elif how == "silent":
            world.proxies.silence(name)
        else:
            world.proxies.slow(name, milliseconds=400)
        try:
            time.sleep(random.choice((3, 10, 25)))
        finally:
            world.proxies.heal()
        return datetime.now(UTC)


class Absence(Fault):
    """A server stopped for long, while MinIO is killed in between: what was put must not be forgotten meanwhile."""

    def strike(self, world: World, random: Random) -> datetime:
        settings = world.settings
        away = 200.0
        supervisor.stop_services(settings, [self.target])
        _wait_until(lambda: processes.find(settings, self.target) is None, 60, f"{self.target} has stopped")
        time.sleep(away / 2)
        Kill("minio").strike(world, random)
        time.sleep(away / 2)
        supervisor.start_service(settings, self.target)
        return _back(settings, self.target, 0)


class FullDisk(Fault):
    """A server's disk takes not one byte more, and then does again."""

    def strike(self, world: World, random: Random) -> datetime:
        filler = world.disks[self.target] / "filler"
        try:
            with filler.open("wb") as file:
                _fill(file.fileno())
            time.sleep(random.choice((5, 20)))
        finally:
            filler.unlink(missing_ok=True)
        return _back(world.settings, self.target, 0)


class Clock(Fault):
    """The clock of the stack's Python processes jumps by so many seconds, and back."""

    def strike(self, world: World, random: Random) -> datetime:
        assert world.clock is not None
        world.clock.write_text(f"{self.target}\n", "utf-8")
        time.sleep(20)
        world.clock.write_text("+0\n", "utf-8")
        return datetime.now(UTC)


class Revoked(Fault):
    """A user of MinIO is disabled, and allowed again."""

    def strike(self, world: World, random: Random) -> datetime:
        settings = world.settings
        secrets = (settings.minio_root_user, settings.minio_root_password.get_secret_value())
        admin = MinioAdmin(endpoint=settings.s3_endpoint, credentials=StaticProvider(*secrets), secure=False)
        user = {"spark": settings.spark_access_key, "consumers": settings.consumers_access_key}[self.target]
        admin.user_disable(user)
        try:
            time.sleep(random.choice((5, 20)))
        finally:
            admin.user_enable(user)
        return datetime.now(UTC)


KILLS: tuple[Fault, ...] = tuple(Kill(name) for name in (*processes.SERVICE_NAMES, processes.EXECUTOR, processes.TASK))
JUMPS: tuple[Fault, ...] = tuple(Clock(by) for by in ("+600", "-600", "+7200", "-7200"))
STEPS: tuple[Fault, ...] = tuple(Die(str(step)) for step in Step)


def possible(world: World) -> list[Fault]:
    """Every fault that can be done to a stack."""
    faults = [*KILLS, *STEPS, *(Pause(kill.target) for kill in KILLS)]
    faults += [Revoked("spark"), Revoked("consumers"), Absence("kafka")]
    if world.proxies is not None:
        faults += [Cut(f"{name}/{how}") for name in PROXIED for how in ("refused", "silent", "slow")]
    faults += [FullDisk(name) for name in world.disks]
    if world.clock is not None:
        faults += JUMPS
    return faults


@contextmanager
def struck(fault: Fault, world: World, random: Random) -> Iterator[Callable[[], datetime]]:
    """Prepare a fault, and withdraw it at the end; what is given carries it out."""
    fault.prepare(world)
    try:
        yield lambda: fault.strike(world, random)
    finally:
        fault.withdraw(world)


def _wait_for_process(settings: Settings, name: str) -> int:
    """The process of a part; for a task, that of the first which runs."""
    found: list[int] = []

    def there() -> bool:
        pid = processes.find(settings, name)
        found.extend(() if pid is None else (pid,))
        return bool(found)

    _wait_until(there, STEP_SECONDS, f"there is a process of {name}")
    return found[0]


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # It ended by itself meanwhile.


def _back(settings: Settings, name: str, killed: int) -> datetime:
    def back() -> bool:
        try:
            return processes.is_back(settings, name, killed)
        except (OSError, SluiceError, psutil.Error, ValueError, TypeError):
            return False  # Whoever is asked is not back either.

    _wait_until(back, BACK_SECONDS, f"{name} is back")
    return datetime.now(UTC)


def _fill(file: int) -> None:
    block = bytes(1 << 20)
    for size in (1 << 20, 1 << 12, 1):
        try:
            while True:
                os.write(file, block[:size])
        except OSError:
            continue  # Full for blocks of this size.


def _wait_until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > limit:
            raise TimeoutError(f"After {seconds} s still not so: {what}.")
        time.sleep(0.1)
