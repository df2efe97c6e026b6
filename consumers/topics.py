"""The Kafka topics of a stack. The bootstrap makes them; nothing else may."""

from __future__ import annotations

from contracts.settings import Settings
from contracts.states import Layer

BRONZE_EVENTS = "lake.bronze.events"
SILVER_EVENTS = "lake.silver.events"
GOLD_EVENTS = "lake.gold.events"
DEAD_LETTERS = "lake.dlq"

EVENT_TOPICS = (BRONZE_EVENTS, SILVER_EVENTS, GOLD_EVENTS)
"""What MinIO writes and the router reads."""

WORK_TOPICS = {Layer.SILVER: "lake.bronze.work", Layer.GOLD: "lake.silver.work"}
"""Layer to be written -> the topic that tells its listener; named after the layer that is read."""

PARTITIONS = {**dict.fromkeys((*EVENT_TOPICS, *WORK_TOPICS.values()), 3), DEAD_LETTERS: 1}
"""Every topic, with its number of partitions."""

ROUTER_GROUP = "sluice-router"

LISTENER_GROUPS = {Layer.SILVER: "sluice-listen-bronze", Layer.GOLD: "sluice-listen-silver"}
"""Layer to be written -> the consumer group of its listener."""


def retention_days(settings: Settings) -> dict[str, int]:
    """How long each topic keeps its messages."""
    return {
        topic: settings.dead_letter_retention_days if topic == DEAD_LETTERS else settings.kafka_retention_days
        for topic in PARTITIONS
    }
