"""The short chaos run: on the tests' stack every process of the chain is killed, while files come, change and go."""

from __future__ import annotations

import pytest

from tests.chaos.faults import KILLS, Kill
from tests.chaos.processes import EXECUTOR, TASK
from tests.chaos.rounds import Run, settled
from tests.chaos.world import World
from tests.conftest import Stack

pytestmark = [pytest.mark.stack, pytest.mark.alone, pytest.mark.timeout(2400)]

SEED = 1
ROUNDS = (
    ("minio", "router", "airflow-triggerer", "airflow-dag-processor", TASK),
    ("kafka", "spark-worker", "spark-master", "airflow-api-server"),
    ("postgres", "airflow-scheduler", "spark-connect", EXECUTOR),
)


def test_each_process_is_killed_while_files_come_and_every_file_is_in_gold_once(stack: Stack) -> None:
    assert {str(Kill(name)) for names in ROUNDS for name in names} == {str(kill) for kill in KILLS}
    run = Run(World(stack.settings, stack.settings.home / "fail-points"), SEED)
    for number, names in enumerate(ROUNDS):
        settled(stack.settings)
        found = run.round(number, [Kill(name) for name in names], operations=8)
        print(found)
        assert found.wrongs == ()
    assert run.expected.files > len(ROUNDS)
    settled(stack.settings)
