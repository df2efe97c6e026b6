"""The listeners' code needs Airflow."""

import tests.dags.home  # noqa: F401
