"""What stands in for Spark under the real jobs: reading files, splitting rows, making features and sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from contracts.errors import ObjectGone, ScanFailed
from spark_jobs.footers import DamagedParquet, FileColumn, Footer, NotParquet
from spark_jobs.lake import SOURCE_ETAG, SOURCE_ID, SOURCE_KEY, source_id
from spark_jobs.packs import Pack, packs_of_batch
from spark_jobs.preflight import Accepted
from spark_jobs.splitting import Split
from tests.simulator.store import STORE, Content, Store
from tests.simulator.tables import Frame, Rows, Spark
from tests.simulator.world import World

_COLUMNS = (FileColumn("day", "date", "plain"), FileColumn("amount", "int", "plain"))


class Pool:
    """As `ThreadPoolExecutor`, but one after the other, since chance decides on the order of all effects."""

    def __init__(self, threads: int) -> None: ...

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *about: object) -> None: ...

    def map(self, call: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
        return [call(value) for value in values]

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(call(*arguments))
        return future


def read_footer(store: Store, bucket: str, key: str, size: int) -> Footer:
    """As `spark_jobs.footers.read_footer`."""
    content = _content(store, key)
    if content.kind == "text":
        raise NotParquet("no magic")
    if content.kind == "cut":
        raise DamagedParquet("no footer")
    return Footer(len(content.rows), _COLUMNS, len(_COLUMNS), content.size, ())


def check_pages(store: Store, bucket: str, key: str, chunks: object) -> None:
    """As `spark_jobs.pages.check_pages`."""
    if _content(store, key).kind == "bad_pages":
        raise DamagedParquet("a checksum is wrong")


def split_rows(spark: Spark, store: Store, batch_id: str, files: Sequence[Accepted]) -> Split:
    """As `spark_jobs.splitting.split_rows`: few rows are read once and held, of more each write reads again."""

    def read() -> Rows:
        return [row for file in files for row in _rows(spark.world, store, file, held=few)]

    # As many rows as a batch has, they are few or not in all of an attempt.
    actor = spark.world.current
    few = spark.world.random.random() < 0.5
    if actor is not None:
        few = actor.choices.setdefault("few rows", few)
    if few:
        packs = packs_of_batch(batch_id, {file.item.key: file.rows for file in files})
        came = [row | {"held": True} for row in read()]
        held = into_packs(Frame(spark, lambda: came), packs).make()
        judged: Any = Frame(spark, lambda: held)
        told = [{"source": row[SOURCE_KEY], "failed": () if row["good"] else ("bad",), "warned": ()} for row in held]
        counted: Any = Frame(spark, lambda: [tuple(one.values()) for one in told])  # type: ignore[misc]
    else:
        judged, counted, packs = Frame(spark, read), None, []
    good, bad = (
        Frame(spark, lambda wanted=wanted: [row for row in judged.make() if row["good"] is wanted])  # type: ignore[misc]
        for wanted in (True, False)
    )
    return Split(good, bad, counted, tuple(packs))  # type: ignore[arg-type]


def find_unreadable(store: Store, files: Sequence[Accepted]) -> list[Accepted]:
    """As `spark_jobs.scan.find_unreadable`."""
    bad = []
    for file in files:
        try:
            if _content(store, file.item.key).kind == "bad_data":
                bad.append(file)
        except ObjectGone:
            bad.append(file)
    return bad


class Transforms:
    """As a module of `spark_jobs.transforms`."""

    @staticmethod
    def features(rows: Frame) -> Frame:
        return rows

    @staticmethod
    def aggregate(rows: Frame) -> Frame:
        return Frame(rows._spark, lambda: sums(rows.make()))


def unpacked(rows: Frame) -> Frame:
    """As `spark_jobs.tables.unpacked`."""
    return rows.changed(lambda row: {SOURCE_ID: source_id(row[SOURCE_KEY])})


def into_packs(rows: Frame, packs: Sequence[Pack]) -> Frame:
    """As `spark_jobs.tables.into_packs`."""
    if not packs:
        return rows

    def pack_of(key: str) -> str:
        return next((pack.id for pack in packs[:-1] if key <= pack.last), packs[-1].id)

    return rows.changed(lambda row: {SOURCE_ID: pack_of(row[SOURCE_KEY])})


def sums(rows: Iterable[dict[str, Any]]) -> Rows:
    """The aggregate of some feature rows."""
    by_day: dict[Any, list[int]] = {}
    for row in rows:
        by_day.setdefault(row["day"], []).append(row["amount"])
    return [{"day": day, "files_rows": len(own), "total": sum(own)} for day, own in sorted(by_day.items())]


def _content(store: Store, key: str) -> Content:
    content = store.world.do(f"read {key}", store.content, "bronze", key, service=STORE)
    if not isinstance(content, Content):
        raise TypeError(key)
    return content


def _rows(world: World, store: Store, file: Accepted, held: bool) -> Rows:
    """A file's rows, read in two halves, between which it may be overwritten."""
    rows: Rows = []
    key = file.item.key
    for half in (0, 1):
        store.being_read = key
        world.tell("reading")
        if world.random.random() < 0.2 and world.current is not None:
            world.sleep(world.random.random() * 0.4)
        try:
            content = _content(store, key)
        except ObjectGone as error:
            raise ScanFailed(f"{key} is gone.") from error
        # Of other content a reader may notice, by size and footer, or may not.
        noticed = content.size != file.size or (content.etag != file.item.etag and world.random.random() < 0.5)
        if content.kind != "parquet" or noticed:
            raise ScanFailed(f"{key} cannot be read.")
        if content.etag != file.item.etag and not held:
            store.read_late.add(key)
        about = {SOURCE_KEY: key, SOURCE_ETAG: file.item.etag, SOURCE_ID: source_id(key)}
        middle = len(content.rows) // 2
        for row in content.rows[middle:] if half else content.rows[:middle]:
            fields = {"day": row.day, "amount": row.amount, "good": row.good, "content": content.etag}
            rows.append(about | fields | {"number": row.number})
    return rows
