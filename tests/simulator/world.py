"""Time, chance and the taking of turns: one generator of random numbers decides everything that happens.

An actor is a process of the system, run as a greenlet. All that it does outside itself goes through `World.do`: an
atomic effect, before and after which it may be killed, stand still, or lose the answer, and at which others may go on.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from greenlet import greenlet

from contracts.errors import ServiceUnavailable

T = TypeVar("T")

START = datetime(2025, 3, 1, tzinfo=UTC)
MOST_EFFECTS = 60_000
"""Of one seed; more means that something goes round in circles."""


class Crash(BaseException):
    """As a SIGKILL: nothing of the process goes on."""


class Violation(BaseException):
    """A guarantee does not hold. Not an `Exception`: no code under test may catch it."""

    def __init__(self, invariant: str, told: str) -> None:
        super().__init__(f"{invariant}: {told}")
        self.invariant = invariant


@dataclass
class Hazards:
    """How likely each fault is at an effect; every seed has its own mix, and many have some at nought."""

    crash: float = 0.0
    pause: float = 0.0
    answer_lost: float = 0.0
    outage: float = 0.0
    event_lost: float = 0.0
    event_late: float = 0.0
    event_twice: float = 0.0
    longest_pause: float = 0.0
    """Seconds."""


NO_HAZARDS = Hazards()


def draw_hazards(random: Random) -> Hazards:
    """A mix of faults."""

    def one_of(*rates: float) -> float:
        return random.choice(rates)

    return Hazards(
        crash=one_of(0, 0.002, 0.01, 0.03),
        pause=one_of(0, 0.002, 0.01, 0.02),
        answer_lost=one_of(0, 0, 0.01, 0.03),
        outage=one_of(0, 0, 0.5, 1.0),
        event_lost=one_of(0, 0, 0.1, 0.3),
        event_late=one_of(0, 0.1, 0.4),
        event_twice=one_of(0.2, 0.5, 0.9),
        longest_pause=one_of(20, 400, 1500),
    )


class Actor:
    """One process."""

    def __init__(self, kind: str, name: str, mortal: bool) -> None:
        self.kind = kind
        self.name = name
        self.mortal = mortal
        """Whether it may be killed and may stand still."""
        self.dead = False
        self.turn = -1
        self.greenlet: Any = None
        self.choices: dict[str, bool] = {}
        """What chance has decided for as long as it lives."""
        self.on_pause: list[Callable[[float], None]] = []
        """Told when it stands still, and for how many seconds; for ever when it is killed."""


class World:
    """One run of the simulation: its clock, its actors and its chance."""

    def __init__(self, seed: int, trace: bool = False) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.hazards = draw_hazards(self.random)
        self.micros = 0
        self.counts: Counter[str] = Counter()
        self.current: Actor | None = None
        self.down: dict[str, int] = {}
        """Service -> the moment until which it does not answer."""
        self.trace: list[str] | None = [] if trace else None
        self._queue: list[tuple[int, int, Actor | Callable[[], None]]] = []
        self._turns = 0
        self._waiting: dict[str, list[tuple[Actor, int]]] = {}
        self._actors: list[Actor] = []
        self._hub = greenlet.getcurrent()

    # ---- time

    @property
    def now(self) -> datetime:
        """The moment, to the millisecond, which is what events and the ledger keep."""
        return START + timedelta(milliseconds=self.micros // 1000)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self.micros / 1e6

    @property
    def nanoseconds(self) -> int:
        """Since 1970, as MinIO makes sequencers of it."""
        return int(START.timestamp()) * 10**9 + self.micros * 1000

    # ---- turns

    def spawn(
        self, kind: str, work: Callable[[], None], name: str = "", mortal: bool = True, after: float = 0.0
    ) -> Actor:
        """Start an actor. A crash ends it; what follows from that is up to `work`."""
        actor = Actor(kind, f"{kind} {name}".strip(), mortal)
        self._actors.append(actor)

        def run() -> None:
            try:
                work()
            except Crash:
                pass
            finally:
                actor.dead = True

        actor.greenlet = greenlet(run, parent=self._hub)
        self._schedule(actor, after)
        return actor

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call a function later, as no actor."""
        self._push(self.micros + int(seconds * 1e6), call)

    def sleep(self, seconds: float) -> None:
        """Let time pass for the running actor."""
        actor = self._running()
        self._schedule(actor, seconds)
        self._switch(actor)

    def wait(self, seconds: float, *channels: str) -> None:
        """Let time pass until something is told on a channel."""
        actor = self._running()
        self._schedule(actor, seconds)
        for channel in channels:
            self._waiting.setdefault(channel, []).append((actor, actor.turn))
        self._switch(actor)

    def tell(self, channel: str) -> None:
        """Wake those who wait on a channel."""
        for actor, turn in self._waiting.pop(channel, ()):
            if actor.turn == turn and not actor.dead:
                self._schedule(actor, self.random.random() * 0.2)

    def kill(self, actor: Actor) -> None:
        """End an actor where it stands."""
        if not actor.dead:
            actor.dead = True
            self._schedule(actor, 0)

    def run(self, done: Callable[[], bool]) -> None:
        """Give turns until something holds."""
        while self._queue and not done():
            moment, turn, target = heapq.heappop(self._queue)
            if isinstance(target, Actor):
                if target.turn != turn or target.greenlet.dead:
                    continue
                self.micros = max(self.micros, moment)
                self.current = target
                target.greenlet.switch()
                self.current = None
            else:
                self.micros = max(self.micros, moment)
                target()

    def close(self) -> None:
        """End whatever still stands somewhere, so that nothing of it goes on when its memory is freed."""
        for actor in self._actors:
            actor.dead = True
            while actor.greenlet and not actor.greenlet.dead:
                self.current = actor
                actor.greenlet.switch()
        self.current = None

    # ---- effects

    def do(self, what: str, effect: Callable[..., T], *arguments: Any, service: str = "") -> T:
        """An effect of the running actor, whole or not at all; outside of any actor it simply happens.

        Raises:
            ServiceUnavailable: the service is down, or did it and the answer was lost.
        """
        actor = self.current
        if actor is None:
            return effect(*arguments)
        if actor.dead:
            raise Crash
        self.counts["effects"] += 1
        if self.counts["effects"] > MOST_EFFECTS:
            raise Violation("quiet", f"more than {MOST_EFFECTS} effects")
        self._hazard(actor, what, service)
        if self.trace is not None:
            self._note(actor, what)
        result = effect(*arguments)
        if actor.mortal:
            chance = self.random.random()
            if chance < self.hazards.crash:
                self._crash(actor, what, "after")
            if service and chance > 1 - self.hazards.answer_lost:
                self.counts["answers lost"] += 1
                self.note(f"the answer to {what} is lost")
                raise ServiceUnavailable(f"{service} gave no answer.")
        return result

    def note(self, what: str) -> None:
        """Write a line into the trace."""
        if self.trace is not None:
            self._note(self.current, what)

    def _hazard(self, actor: Actor, what: str, service: str) -> None:
        chance = self.random.random()
        self.micros += 200 + int(chance * 9000)
        if actor.mortal:
            hazards = self.hazards
            if chance < hazards.crash:
                self._crash(actor, what, "before")
            if chance > 1 - hazards.pause:
                seconds = 1 + self.random.random() * hazards.longest_pause
                self.counts["pauses"] += 1
                self.note(f"stands still for {seconds:.0f} s before {what}")
                for told in actor.on_pause:
                    told(seconds)
                self.sleep(seconds)
            if self.down.get(service, 0) > self.micros:
                self.note(f"{service} is down: {what}")
                self.sleep(0.5)
                raise ServiceUnavailable(f"{service} does not answer.")
        if 0.3 < chance < 0.5:
            self.sleep(self.random.random() * 0.1)

    def _crash(self, actor: Actor, what: str, when: str) -> None:
        self.counts["crashes"] += 1
        self.counts[f"crashes of {actor.kind}"] += 1
        self.note(f"KILLED {when} {what}")
        for told in actor.on_pause:
            told(float("inf"))
        actor.dead = True
        raise Crash

    # ---- inside

    def _running(self) -> Actor:
        actor = self.current
        if actor is None:
            raise RuntimeError("no actor is running")
        if actor.dead:
            raise Crash
        return actor

    def _switch(self, actor: Actor) -> None:
        self.current = None
        self._hub.switch()
        self.current = actor
        if actor.dead:
            raise Crash

    def _schedule(self, actor: Actor, seconds: float) -> None:
        actor.turn = self._push(self.micros + int(seconds * 1e6), actor)

    def _push(self, moment: int, target: Actor | Callable[[], None]) -> int:
        self._turns += 1
        heapq.heappush(self._queue, (moment, self._turns, target))
        return self._turns

    def _note(self, actor: Actor | None, what: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.seconds:10.3f}  {actor.name if actor else '-':26} {what}")
