"""New York taxi zones: what is done to the rows. Pure; a reference, so it has no features."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

_TEXTS = ("borough", "zone", "service_zone")


def clean(df: DataFrame) -> DataFrame:
    """Tidy conformed rows: texts without outer blanks; a blank one is a missing one. `N/A` and `Unknown` stay.

    Rows and columns stay the same.
    """
    tidy = {name: F.trim(F.col(name)) for name in _TEXTS}
    return df.withColumns({name: F.when(text != "", text) for name, text in tidy.items()})
