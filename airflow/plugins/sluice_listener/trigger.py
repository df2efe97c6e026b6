"""The trigger of a listener: owns the connections and the thread, and runs the hand-over until its time is up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from typing import Any

from airflow.providers.apache.kafka.triggers.await_message import AwaitMessageTrigger
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from consumers.airflow_api import service_api
from consumers.ledger import Ledger, open_ledger
from consumers.topics import DEAD_LETTERS, WORK_TOPICS
from contracts.errors import ServiceUnavailable
from contracts.loading import load_contracts
from contracts.settings import load_settings
from contracts.states import Layer
from sluice_listener.handover import HandOver
from sluice_listener.topic import DeadLetters, WorkTopic

STANDS_STILL = 60.0
"""Seconds after which a call is given up, so that another listener takes over. The longest that ends by itself, a
commit while Kafka is away, may be repeated."""
CLOSING = 30.0
"""Seconds that the end waits for the thread, which closes all even if it stands still for longer."""


class WorkTrigger(AwaitMessageTrigger):
    """Waits for work messages like its parent, but hands them over itself and stays deferred.

    Its parent ends with the first message and commits before anybody has acted on it; both would cost
    seconds and safety here. Ends after `lifetime` seconds with the task's success.
    """

    def __init__(self, layer: str, group: str, kafka_config_id: str, lifetime: float) -> None:
        super().__init__(topics=[WORK_TOPICS[Layer(layer)]], kafka_config_id=kafka_config_id, commit_offset=False)
        self.layer = layer
        self.group = group
        self.lifetime = lifetime

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, for the triggerer that runs it."""
        names = ("layer", "group", "kafka_config_id", "lifetime")
        return "sluice_listener.trigger.WorkTrigger", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Hand work over until the lifetime is over.

        Raises:
            ServiceUnavailable: the Kafka client gave up for good, or stands still.
        """
        until = time.monotonic() + self.lifetime
        # A thread of its own, not the one that all `sync_to_async` polls of the triggerer share; and one
        # only, so that the consumer is never closed while it is being polled.
        thread = ThreadPoolExecutor(1, f"listener-{self.layer}")
        closing = ExitStack()

        async def call(function: Callable[..., Any], *args: Any) -> Any:
            # With the context, or log lines from the thread miss the task's log.
            called = asyncio.get_running_loop().run_in_executor(thread, copy_context().run, function, *args)
            await asyncio.wait([called], timeout=STANDS_STILL)
            if not called.done():
                told = "Is Kafka or Postgres away, or was the clock set back? It starts anew."
                raise ServiceUnavailable(f"The listener for {self.layer} stands still for {STANDS_STILL:.0f} s. {told}")
            return called.result()

        try:
            await self._work(call, closing, until)
        finally:
            # The thread closes even if this coroutine is cancelled once more while it waits: an open
            # consumer would keep its partitions from the next one for five minutes (measured).
            closed = thread.submit(closing.close)
            thread.shutdown(wait=False)
            ended, _ = await asyncio.wait([asyncio.wrap_future(closed)], timeout=CLOSING)
            for closing_ended in ended:
                closing_ended.result()
        yield TaskSuccessEvent()

    async def _work(self, call: Callable[..., Any], closing: ExitStack, until: float) -> None:
        settings = load_settings()

        def open_all() -> tuple[Ledger, WorkTopic, DeadLetters]:
            ledger = closing.enter_context(open_ledger(settings))
            topic = WorkTopic(self.topics[0], self.kafka_config_id, self.group)
            closing.callback(topic.close)
            return ledger, topic, DeadLetters(DEAD_LETTERS, self.kafka_config_id)

        ledger, topic, letters = await call(open_all)
        contracts = partial(load_contracts, settings.contracts_dir)
        async with service_api(settings) as runs:
            await HandOver(Layer(self.layer), topic, letters, ledger, runs, contracts, call).run(until)
