"""The sensor of a listener DAG."""

from __future__ import annotations

from typing import Any

from airflow.providers.apache.kafka.sensors.kafka import AwaitMessageSensor
from airflow.triggers.base import StartTriggerArgs

from consumers.topics import LISTENER_GROUPS, WORK_TOPICS
from contracts.states import Layer

KAFKA_CONNECTION = "sluice_kafka"
"""Airflow's connection; it comes from the environment."""


class WorkSensor(AwaitMessageSensor):
    """Listens to the work of one layer, in the triggerer from the start: no worker slot is taken.

    Args:
        layer: the layer whose stage DAGs get the work.
        lifetime: seconds until it ends with success, so that its log stays bounded.
    """

    # The provider's fields are templates; rendering them here would only cost.
    template_fields = ()

    def __init__(self, *, layer: Layer, lifetime: float, **kwargs: Any) -> None:
        super().__init__(
            topics=[WORK_TOPICS[layer]],
            apply_function=None,
            kafka_config_id=KAFKA_CONNECTION,
            commit_offset=False,
            **kwargs,
        )
        self.trigger_kwargs: dict[str, Any] = {
            "layer": layer.value,
            "group": LISTENER_GROUPS[layer],
            "kafka_config_id": KAFKA_CONNECTION,
            "lifetime": lifetime,
        }
        self.start_from_trigger = True
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls="sluice_listener.trigger.WorkTrigger",
            trigger_kwargs=self.trigger_kwargs,
            next_method="execute_complete",
        )

    def execute(self, context: Any) -> None:
        """Reached only if Airflow starts the sensor on a worker; defers at once."""
        # Imported here: the trigger's own imports (ledger, Kafka) are no business of DAG parsing.
        from sluice_listener.trigger import WorkTrigger

        self.defer(trigger=WorkTrigger(**self.trigger_kwargs), method_name="execute_complete")
