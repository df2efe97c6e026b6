"""Makes what the parts of a stack need before they start: databases, topics, buckets, users, rules. Safe to repeat.

`python -m sluice.bootstrapping` does it in a container, once Postgres, MinIO and Kafka are there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from contracts.errors import ServiceUnavailable, SluiceError
from contracts.settings import PROJECT, Settings, load_settings
from sluice.airflow_config import airflow_environment

Say = Callable[[str], None]


def bootstrap(settings: Settings, airflow_log: Path, say: Say) -> None:
    """Make databases, topics, buckets, users, notification and lifecycle rules, whatever is there already.

    Args:
        airflow_log: where what Airflow prints while it makes its tables and users is written.

    Raises:
        ServiceUnavailable: Postgres, MinIO or Kafka does not answer, or Airflow's part failed.
        ContractError: a contract is not valid, so it is not known how long its files are kept.
    """
    from consumers.migrate import migrate
    from ingest.bootstrap import bootstrap_store
    from sluice.postgres_server import bootstrap_databases

    begun = time.monotonic()
    bootstrap_databases(settings)
    with ThreadPoolExecutor() as pool:
        steps: list[Future[None]] = [
            pool.submit(_bootstrap_airflow, settings, airflow_log),
            pool.submit(migrate, settings.postgres_url("ledger", "lake")),
            pool.submit(_bootstrap_kafka, settings),
            pool.submit(bootstrap_store, settings),
        ]
        for step in steps:
            step.result()
    say(f"bootstrap is done: databases, topics, buckets, users, rules ({time.monotonic() - begun:.0f} s)")


def _bootstrap_kafka(settings: Settings) -> None:
    from consumers.broker import ensure_grants, ensure_topics
    from consumers.topics import retention_days

    login = settings.kafka_login("admin")
    # First the grants: MinIO and, in a stack that is partly up, the others wait for them.
    ensure_grants(login)
    ensure_topics(login, retention_days(settings))


def _bootstrap_airflow(settings: Settings, log: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(PROJECT / "airflow" / "bootstrap.py")],
            env=environment | airflow_environment(settings), stdout=output, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if done.returncode:
        tail = log.read_text("utf-8", errors="replace").splitlines()[-5:]
        raise ServiceUnavailable(f"Airflow's tables or users could not be made; see {log}:\n" + "\n".join(tail))


def main() -> int:
    """Entry point; 0 done, 1 a server does not answer."""
    settings = load_settings()
    log = settings.home / "airflow" / "bootstrap.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        bootstrap(settings, log, print)
    except SluiceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
