"""How long what is kept, as `sluice status --retention` tells it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from contracts.settings import PROJECT, Settings
from ingest.lifecycle import ExpiryRule
from sluice.retention import _rotation, files_kept, messages_kept


def test_each_dataset_has_a_line_a_bucket_and_so_has_each_rule_of_somebody_else() -> None:
    rules = {
        "bronze": (ExpiryRule("sluice-orders", "orders/", 30), ExpiryRule("theirs", "x/", 1)),
        "quarantine": (ExpiryRule("sluice-gone", "gone/", 7),),
    }
    lines = [(kept.where, kept.days, kept.how_long, kept.set_by) for kept in files_kept(rules, ["zones", "orders"])]
    assert lines == [
        ("bronze/orders/", 30, "30 days", "contract orders"),
        ("bronze/zones/", None, "for ever", "contract zones"),
        ("bronze/x/", 1, "1 day", "somebody else: lifecycle rule theirs"),
        ("quarantine/gone/", 7, "7 days", "contract gone"),
        ("quarantine/orders/", None, "for ever", "contract orders"),
        ("quarantine/zones/", None, "for ever", "contract zones"),
    ]


def test_topics_are_told_with_the_setting_that_they_follow() -> None:
    lines = [(kept.what, kept.how_long, kept.set_by) for kept in messages_kept({"lake.x": 0.5, "lake.dlq": None})]
    assert lines == [
        ("messages", "0.5 days", "SLUICE_KAFKA_RETENTION_DAYS"),
        ("dead letters", "for ever", "SLUICE_DEAD_LETTER_RETENTION_DAYS"),
    ]


def test_rotation_of_the_containers_logs_is_that_of_the_compose_file() -> None:
    assert _rotation(PROJECT / "compose" / "compose.yaml") == ("10m", 3)


@pytest.mark.parametrize(
    ("days", "name"),
    [
        ({"airflow_retention_days": 7}, "SLUICE_AIRFLOW_RETENTION_DAYS"),
        ({"kafka_retention_days": 30, "dead_letter_retention_days": 29}, "SLUICE_DEAD_LETTER_RETENTION_DAYS"),
        ({"kafka_retention_days": 0}, "kafka_retention_days"),
    ],
)
def test_times_that_do_not_go_together_are_refused_without_the_passwords(days: dict[str, int], name: str) -> None:
    with pytest.raises(ValidationError, match=name) as raised:
        Settings(redis_password="secret-of-the-queue", **days)  # type: ignore[arg-type]
    assert "secret-of-the-queue" not in str(raised.value)
