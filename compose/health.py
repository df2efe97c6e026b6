"""Whether a part does its job, asked from within its container: `health.py PART`; exit code 0 if so.

The standard library alone: it runs every few seconds in each container, and Sluice's own imports take half a second.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import urllib.request
from pathlib import Path
from typing import Any

SECONDS = 4.0


def get(url: str) -> bytes:
    """The answer's body."""
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310 - addresses of our own
        return bytes(answer.read())


def get_json(url: str) -> Any:
    """The answer's body, decoded."""
    return json.loads(get(url))


def airflow_part(name: str) -> bool:
    """Whether a part of Airflow has sent its heartbeat, as the api-server sees it."""
    address = os.environ["SLUICE_AIRFLOW_ADDRESS"]
    found = get_json(f"http://{address}/api/v2/monitor/health")[name]
    return bool(found["status"] == "healthy")


def api_server() -> bool:
    """Whether pages have their database, and tasks can talk to it."""
    return airflow_part("metadatabase") and bool(get(f"http://{os.environ['SLUICE_AIRFLOW_ADDRESS']}/execution/health"))


def scheduler() -> bool:
    """Whether this very scheduler loops."""
    get("http://127.0.0.1:8974/health")  # Anything but 200 is raised.
    return True


def worker() -> bool:
    """Whether this very Celery worker answers through the queue."""
    from celery import Celery  # Not at the top: no other part has it at hand.

    lines = Path("/run/secrets/airflow/secrets.env").read_text("utf-8").splitlines()
    secrets = dict(line.split("=", 1) for line in lines)
    url = f"redis://:{secrets['SLUICE_REDIS_PASSWORD']}@{os.environ['SLUICE_REDIS_ADDRESS']}/0"
    with Celery(broker=url) as app:
        return bool(app.control.ping(destination=[f"celery@{socket.gethostname()}"], timeout=SECONDS))


def spark_master() -> bool:
    """Whether it gives out cores: not while it waits for those that it knew before it died."""
    return bool(get_json("http://localhost:8081/json/")["status"] == "ALIVE")


def spark_worker() -> bool:
    """Whether the master counts this very worker among the living."""
    here = socket.gethostname()
    workers = get_json("http://spark-master:8081/json/")["workers"]
    return any(item["state"] == "ALIVE" and item["host"] == here for item in workers)


def spark_worker_ui() -> bool:
    """Whether it leads to the page of a worker."""
    return bool(get_json("http://localhost:8082/json/")["id"])


def spark_connect() -> bool:
    """Whether it takes connections and has an executor."""
    with socket.create_connection(("localhost", 15002), timeout=SECONDS) as link:
        if authority := os.environ.get("SLUICE_CA_FILE"):
            with ssl.create_default_context(cafile=authority).wrap_socket(link, server_hostname="localhost"):
                pass
    application = get_json("http://localhost:4040/api/v1/applications")[0]["id"]
    executors = get_json(f"http://localhost:4040/api/v1/applications/{application}/executors")
    return any(item["id"] != "driver" for item in executors)


PARTS = {
    "airflow-api-server": api_server,
    "airflow-scheduler": scheduler,
    "airflow-dag-processor": lambda: airflow_part("dag_processor"),
    "airflow-triggerer": lambda: airflow_part("triggerer"),
    "airflow-worker": worker,
    "router": lambda: bool(get("http://localhost:9108/metrics")),
    "spark-master": spark_master,
    "spark-worker": spark_worker,
    "spark-worker-ui": spark_worker_ui,
    "spark-connect": spark_connect,
}


def main() -> int:
    """Entry point."""
    try:
        good = PARTS[sys.argv[1]]()
    except Exception as error:  # Whatever it is, the part is not well; the engine keeps this line.
        print(f"{type(error).__name__}: {error}")
        return 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
