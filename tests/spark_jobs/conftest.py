"""A local Spark session on an in-memory Iceberg catalog; `s3://` is a folder, shared with a store of the same shape."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from contracts.dataset import DatasetContract
from contracts.errors import ObjectChanged
from contracts.loading import load_contract
from contracts.settings import PROJECT
from contracts.states import Layer
from contracts.work import Batch, WorkItem, make_batch
from ingest.store import ObjectInfo
from spark_jobs.lake import Lake
from spark_jobs.session import engine_conf

BUCKETS = {
    "bronze": ("nyc_yellow",),
    "silver": ("nyc_yellow", "nyc_yellow_rejects"),
    "gold": ("nyc_yellow_features", "nyc_yellow_zone_hour"),
}
TABLES = [f"{bucket}.{name}" for bucket in ("silver", "gold") for name in BUCKETS[bucket]]
TAXI = PROJECT.parent / "shared" / "data" / "taxi"


class FolderStore:
    """The methods of `Store` that the jobs use, on a folder a bucket."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.copied: list[str] = []

    def stat(self, bucket: str, key: str) -> ObjectInfo | None:
        path = self.root / bucket / key
        if not path.is_file():
            return None
        data = path.read_bytes()
        return ObjectInfo(bucket, key, hashlib.md5(data).hexdigest(), len(data), datetime.now(UTC))  # noqa: S324

    def put_bytes(self, bucket: str, key: str, data: bytes, content_type: str = "") -> ObjectInfo:
        path = self.root / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        info = self.stat(bucket, key)
        assert info is not None
        return info

    def get_range(self, bucket: str, key: str, offset: int, length: int) -> bytes:
        return (self.root / bucket / key).read_bytes()[offset : offset + length]

    def copy(self, bucket: str, key: str, etag: str, to_bucket: str, to_key: str) -> None:
        info = self.stat(bucket, key)
        if info is None or info.etag != etag:
            raise ObjectChanged(f"{key} changed")
        self.put_bytes(to_bucket, to_key, (self.root / bucket / key).read_bytes())
        self.copied.append(to_key)


@pytest.fixture(scope="session")
def bucket_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("s3")
    for bucket, names in BUCKETS.items():
        for name in names:
            (root / bucket / name).mkdir(parents=True)
    return root


@pytest.fixture(scope="session")
def spark(bucket_root: Path) -> Iterator[SparkSession]:
    conf = {
        **engine_conf(),
        "spark.ui.enabled": "false",
        # A few rows a test: the JVM's optimizing compiler would take most of the time.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.shuffle.partitions": "1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.log.level": "FATAL",
        "spark.sql.defaultCatalog": "lake",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.catalog-impl": "org.apache.iceberg.inmemory.InMemoryCatalog",
        "spark.sql.catalog.lake.io-impl": "org.apache.iceberg.hadoop.HadoopFileIO",
        "spark.sql.catalog.lake.warehouse": "s3://silver/",
        "spark.sql.catalog.lake.cache-enabled": "false",
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme",
        "spark.hadoop.fs.viewfs.overload.scheme.target.file.impl": "org.apache.hadoop.fs.LocalFileSystem",
    }
    for bucket, names in BUCKETS.items():
        for name in names:
            conf[f"spark.hadoop.fs.viewfs.mounttable.{bucket}.link./{name}"] = f"file://{bucket_root}/{bucket}/{name}"
    session = SparkSession.builder.master("local[2]").appName("sluice-tests").config(map=conf).getOrCreate()
    yield session
    session.stop()


@pytest.fixture(scope="session")
def contract() -> DatasetContract:
    return load_contract(PROJECT / "contracts" / "datasets" / "nyc_yellow.yaml")


@pytest.fixture
def store(bucket_root: Path) -> FolderStore:
    return FolderStore(bucket_root)


@pytest.fixture
def lake(spark: SparkSession) -> SparkSession:
    """The session, with no table of ours in its catalog."""
    for name in TABLES:
        spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {name.split('.')[0]}")
        spark.sql(f"DROP TABLE IF EXISTS {name} PURGE")
    return spark


@pytest.fixture
def drop(store: FolderStore) -> Callable[..., WorkItem]:
    """Put a file into bronze: an Arrow table as parquet, or bytes as they are."""

    def put(key: str, content: pa.Table | bytes, version: str = "1") -> WorkItem:
        if not isinstance(content, bytes):
            sink = pa.BufferOutputStream()
            pq.write_table(content, sink)
            content = sink.getvalue().to_pybytes()
        info = store.put_bytes("bronze", key, content)
        return WorkItem(bucket="bronze", key=key, etag=info.etag, size=info.size, version=version)

    return put


class MemoryFiles:
    """The method of `Store` that reads metadata, on the files that Iceberg's in-memory catalog keeps in the JVM."""

    def __init__(self, spark: SparkSession) -> None:
        self._files = spark._jvm.org.apache.iceberg.inmemory.InMemoryFileIO()

    def get_bytes(self, bucket: str, key: str, limit: int) -> bytes:
        return bytes(self._files.newInputFile(f"s3://{bucket}/{key}").newStream().readAllBytes())


def catalog_of(spark: SparkSession) -> Any:
    """Iceberg's in-memory catalog, in the JVM."""
    return spark._jsparkSession.sessionState().catalogManager().catalog("lake").icebergCatalog()


def table_id(spark: SparkSession, name: str) -> Any:
    """A table's name as the catalog takes it."""
    return spark._jvm.org.apache.iceberg.catalog.TableIdentifier.parse(name)


def locate(spark: SparkSession, name: str) -> str | None:
    """Where a table's newest metadata file is; None when there is no such table."""
    catalog, table = catalog_of(spark), table_id(spark, name)
    if not catalog.tableExists(table):
        return None
    return str(catalog.loadTable(table).operations().current().metadataFileLocation())


def metadata_of(spark: SparkSession) -> Lake:
    """The tables' metadata, found by way of the session's in-memory catalog."""
    return Lake(partial(locate, spark), MemoryFiles(spark))  # type: ignore[arg-type]


def silver_batch(*items: WorkItem) -> Batch:
    return make_batch(Layer.SILVER, "nyc_yellow", items)


def gold_batch(*items: WorkItem) -> Batch:
    return make_batch(Layer.GOLD, "nyc_yellow", items)
