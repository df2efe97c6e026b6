"""What ledger and tables tell of files. One query for all that is asked, since each opens the tables anew."""

from __future__ import annotations

from typing import Any

import tenacity

from contracts.states import FileState, Layer
from contracts.story import FileStory
from tests.chain.conftest import Query, sql_text

ROW_TABLES = ("silver.{}", "silver.{}_rejects", "gold.{}_features")


def assert_accounted(query: Query, *stories: tuple[FileStory, int]) -> None:
    """Ledger and tables tell the same of files with so many rows each, and nothing is lost or doubled (I3)."""
    held = _held(query, [story for story, _ in stories])
    for story, rows in stories:
        assert story.state is FileState.DONE, story
        silver, gold = story.layers
        assert (silver.layer, gold.layer) == (Layer.SILVER, Layer.GOLD)
        assert silver.rows_in == rows == silver.rows_accepted + silver.rows_rejected
        assert gold.rows_in == silver.rows_accepted == gold.rows_accepted
        expected = {
            silver.table: silver.rows_accepted,
            f"{silver.table}_rejects": silver.rows_rejected,
            gold.table: gold.rows_accepted,
        }
        for table, count in expected.items():
            etags = (story.etag, story.etag) if count else (None, None)
            assert held.get((table, story.key), (0, None, None)) == (count, *etags), (table, story.key)


def _held(query: Query, stories: list[FileStory]) -> dict[tuple[str, str], tuple[int, str | None, str | None]]:
    """Table and key -> rows, and the least and greatest etag of them."""
    tables = {pattern.format(story.dataset) for story in stories for pattern in ROW_TABLES}
    keys = ", ".join(sql_text(story.key) for story in stories)
    parts = [
        f"select '{table}', _source_key, count(*), min(_source_etag), max(_source_etag) from {table}"
        f" where _source_key in ({keys}) group by all"
        for table in sorted(tables)
    ]
    return {(table, key): tuple(rest) for table, key, *rest in query(" union all ".join(parts))}  # type: ignore[misc]


def zone_hour_differences(query: Query, dataset: str = "nyc_yellow") -> int:
    """Rows in which the aggregate differs from what DuckDB computes from the features."""
    found: int = query(
        f"""
        with expected as (
            select pickup_hour, pickup_location_id, count(*) as trips, sum(total_amount) as revenue,
                   avg(duration_seconds) / 60.0 as minutes, avg(speed_mph) as speed
            from gold.{dataset}_features group by all)
        select count(*) from expected full outer join gold.{dataset}_zone_hour actual
            on expected.pickup_hour = actual.pickup_hour
            and expected.pickup_location_id is not distinct from actual.pickup_location_id
        where expected.trips is distinct from actual.trips or expected.revenue is distinct from actual.revenue
           or abs(expected.minutes - actual.mean_duration_minutes) > 1e-6
           or abs(expected.speed - actual.mean_speed_mph) > 1e-3
        """
    )[0][0]
    return found


def assert_zone_hour_agrees(query: Query, dataset: str = "nyc_yellow") -> None:
    """The aggregate is what DuckDB computes from the features, at the latest when no file is half way in gold.

    A gold job commits the two tables one after the other, and the files of other tests may be between them.
    """
    for attempt in tenacity.Retrying(stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(1), reraise=True):
        with attempt:
            assert zone_hour_differences(query, dataset) == 0


def content(query: Query, dataset: str, folder: str) -> dict[str, tuple[Any, ...]]:
    """Number of rows, and a hash of all their values whatever their order, of what a dataset's tables hold of a folder.

    The key's first part is the dataset's name, so it is left out of the hash, and the key's own hash too.
    """
    prefix = sql_text(f"{dataset}/{folder}/")
    parts = [
        f"""select '{pattern}', count(*), sum(hash(rows)::hugeint)::varchar from (
            select * exclude (_source_id) replace (substr(_source_key, {len(dataset) + 2}) as _source_key)
            from {pattern.format(dataset)} where starts_with(_source_key, {prefix})) rows"""
        for pattern in ROW_TABLES
    ]
    return {pattern: tuple(found) for pattern, *found in query(" union all ".join(parts))}
