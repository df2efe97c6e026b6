"""Plugin: the parts of Airflow that fork processes load what these need first."""

from __future__ import annotations

import sys

from airflow.plugins_manager import AirflowPlugin


class SluicePreload(AirflowPlugin):
    """Does its work on load, in the scheduler and the dag-processor alone."""

    name = "sluice_preload"

    @classmethod
    def on_load(cls, *args: object, **kwargs: object) -> None:
        """Load what tasks or parses need; see `sluice_listener.preload`."""
        from sluice_listener.preload import preload

        preload("".join(sys.argv[1:2]))
