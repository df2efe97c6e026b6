"""Plugin: the scheduler imports Spark's client once, and the tasks that it forks find it there."""

from __future__ import annotations

import sys

from airflow.plugins_manager import AirflowPlugin


class SluicePreload(AirflowPlugin):
    """Does its work on load, in the scheduler alone: the other parts run no Spark job."""

    name = "sluice_preload"

    @classmethod
    def on_load(cls, *args: object, **kwargs: object) -> None:
        """Import what a stage's task needs; 2 s in a fresh process, none in a forked one (measured)."""
        if "scheduler" in sys.argv[1:2]:
            from sluice_listener.stage import preload

            preload()
