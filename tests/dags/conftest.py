"""Airflow for tests of DAGs and triggers."""

import tests.dags.home  # noqa: F401
