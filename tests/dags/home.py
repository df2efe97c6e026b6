"""Airflow for tests of DAGs, triggers and listeners: a home of its own, no server and no database."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
DAGS = REPO / "airflow" / "dags"
PLUGINS = REPO / "airflow" / "plugins"

# Airflow reads these while it is imported, so this module comes before any that needs it.
_home = tempfile.TemporaryDirectory(prefix="sluice-airflow-")
os.environ.update(
    {
        "AIRFLOW_HOME": _home.name,
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_home.name}/unused.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }
)
if str(PLUGINS) not in sys.path:
    sys.path.append(str(PLUGINS))
