"""How long a stack keeps what: read back from the servers that keep it, where they can be asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from consumers.broker import topics_retention
from consumers.topics import DEAD_LETTERS
from contracts.loading import load_contracts
from contracts.settings import PROJECT, Settings
from ingest.lifecycle import ExpiryRule, expiry_rules
from ingest.policies import BRONZE, QUARANTINE
from ingest.store import store_for
from sluice.supervisor import LOG_BACKUPS, LOG_BYTES

FOR_EVER = "for ever"
_WHAT = {BRONZE: "files", QUARANTINE: "copies of refused files"}


class Kept(BaseModel):
    """How long something is kept."""

    model_config = ConfigDict(frozen=True)

    what: str
    where: str
    days: float | None
    """At least; None: not by time."""
    how_long: str
    """For a person."""
    set_by: str


def all_kept(settings: Settings) -> list[Kept]:
    """Everything that a stack keeps for a time, or for ever.

    Raises:
        ServiceUnavailable: MinIO or Kafka does not answer.
        ContractError: a contract is not valid.
    """
    store = store_for(settings, "root")
    datasets = load_contracts(settings.contracts_dir)
    rules = {bucket: expiry_rules(store.lifecycle(bucket)) for bucket in _WHAT}
    return [
        *files_kept(rules, datasets),
        *messages_kept(topics_retention(settings.kafka_login("operator"))),
        *_airflow_kept(settings),
        _logs_kept(settings),
    ]


def files_kept(rules: Mapping[str, Sequence[ExpiryRule]], datasets: Iterable[str]) -> Iterator[Kept]:
    """What the buckets' lifecycle rules mean for each dataset; those of others come after ours."""
    folders = {f"{dataset}/" for dataset in datasets}
    for bucket, what in _WHAT.items():
        days = {rule.prefix: rule.days for rule in rules[bucket] if rule.ours}
        for prefix in sorted(folders | set(days)):
            yield _kept(what, f"{bucket}/{prefix}", days.get(prefix), f"contract {prefix.rstrip('/')}")
        for rule in rules[bucket]:
            if not rule.ours:
                yield _kept(what, f"{bucket}/{rule.prefix}", rule.days, f"somebody else: lifecycle rule {rule.id}")


def messages_kept(topics: Mapping[str, float | None]) -> Iterator[Kept]:
    """What the topics' settings mean."""
    for topic, days in topics.items():
        if topic == DEAD_LETTERS:
            yield _kept("dead letters", topic, days, "SLUICE_DEAD_LETTER_RETENTION_DAYS")
        else:
            yield _kept("messages", topic, days, "SLUICE_KAFKA_RETENTION_DAYS")


def _airflow_kept(settings: Settings) -> Iterator[Kept]:
    # No server holds this one: the DAG `upkeep` reads it each night.
    by = "SLUICE_AIRFLOW_RETENTION_DAYS, by the DAG upkeep"
    yield _kept("runs of DAGs", "Airflow's database", settings.airflow_retention_days, by)
    yield _kept("logs of tasks", "Airflow's logs", settings.airflow_retention_days, by)


def _logs_kept(settings: Settings) -> Kept:
    size, files, by = f"{LOG_BYTES // 10**6} MB", LOG_BACKUPS + 1, "sluice/supervisor.py"
    if settings.stack == "compose":
        size, files, by = *_rotation(PROJECT / "compose" / "compose.yaml"), "compose/compose.yaml"
    how_long = f"{files} files of {size} a server"
    return Kept(what="logs of servers", where="sluice logs", days=None, how_long=how_long, set_by=by)


def _rotation(compose: Path) -> tuple[str, int]:
    options: dict[str, Any] = yaml.safe_load(compose.read_text("utf-8"))["x-service"]["logging"]["options"]
    return str(options["max-size"]), int(options["max-file"])


def _kept(what: str, where: str, days: float | None, set_by: str) -> Kept:
    how_long = FOR_EVER if days is None else f"{days:g} day{'' if days == 1 else 's'}"
    return Kept(what=what, where=where, days=days, how_long=how_long, set_by=set_by)
