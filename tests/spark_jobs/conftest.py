"""A Spark session as the jobs have it; its Connect server, MinIO and catalog in Postgres are these tests' own."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from minio import Minio
from minio.deleteobjects import DeleteObject
from pyspark.sql import SparkSession

from contracts.dataset import DatasetContract
from contracts.loading import load_contract
from contracts.settings import PROJECT, Settings
from contracts.states import Layer
from contracts.work import Batch, WorkItem, make_batch
from ingest.bootstrap import bootstrap_store
from ingest.policies import BUCKETS
from ingest.store import Store
from sluice.postgres_server import bootstrap_databases
from spark_jobs import data_preprocessing_job
from spark_jobs.lake import open_lake
from spark_jobs.session import connect_session
from tests.servers import own_folder, running_minio, running_postgres, running_spark_connect, settings_in

TABLES = ["silver.nyc_yellow", "silver.nyc_yellow_rejects", "gold.nyc_yellow_features", "gold.nyc_yellow_zone_hour"]
GREEN_TABLES = [name.replace("yellow", "green") for name in TABLES]
ZONES = ["silver.taxi_zones", "silver.taxi_zones_rejects"]
TAXI = PROJECT.parent / "shared" / "data" / "taxi"


class JobStore(Store):
    """The store as the jobs have it, signed in as the Spark user, and what a test does there as administrator."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            settings.s3_endpoint,
            settings.spark_access_key,
            settings.spark_secret_key.get_secret_value(),
            settings.s3_region,
        )
        self._root = Minio(
            settings.s3_endpoint,
            access_key=settings.minio_root_user,
            secret_key=settings.minio_root_password.get_secret_value(),
            region=settings.s3_region,
            secure=False,
        )
        self.settings = settings
        self.lake = open_lake(settings, self)
        """The tables' metadata, as the jobs read them."""

    def drop(self, key: str, data: bytes, version: str = "1") -> WorkItem:
        """Put a file into bronze, and give the work that its event would make."""
        put = self._root.put_object("bronze", key, io.BytesIO(data), len(data))
        return WorkItem(bucket="bronze", key=key, etag=put.etag or "", size=len(data), version=version)

    def put_old(self, bucket: str, key: str, at: datetime) -> None:
        """Put an object as if at an earlier time, as a replica of another MinIO's is put."""
        headers = {"x-minio-source-replication-request": "true", "x-minio-source-mtime": f"{at:%Y-%m-%dT%H:%M:%S.%fZ}"}
        self._root._execute("PUT", bucket, key, body=b"left over", headers=headers)
        assert self._root.stat_object(bucket, key).last_modified == at.replace(microsecond=0)

    def delete(self, key: str) -> None:
        """Delete a file from bronze, as its owner."""
        self._root.remove_object("bronze", key)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Keys of a bucket's objects, sorted."""
        return sorted(found.object_name or "" for found in self._root.list_objects(bucket, prefix, recursive=True))

    @property
    def copied(self) -> list[str]:
        """What quarantine holds."""
        return self.keys("quarantine")

    def read(self, bucket: str, key: str) -> bytes:
        """An object's content."""
        return self._root.get_object(bucket, key).read()

    def clear(self, bucket: str, prefix: str = "") -> None:
        """Delete a bucket's objects."""
        found = [DeleteObject(key) for key in self.keys(bucket, prefix)]
        assert list(self._root.remove_objects(bucket, found)) == []


@pytest.fixture(scope="package")
def servers() -> Iterator[Settings]:
    """Settings of a MinIO and a Postgres that run and are bootstrapped."""
    with own_folder() as home:
        settings = settings_in(home)
        with running_minio(settings), running_postgres(settings):
            bootstrap_store(settings)
            bootstrap_databases(settings)
            yield settings


@pytest.fixture(scope="package")
def spark(servers: Settings) -> Iterator[SparkSession]:
    with running_spark_connect(servers):
        session = connect_session(servers)
        for namespace in ("silver", "gold"):
            session.sql(f"CREATE NAMESPACE IF NOT EXISTS {namespace}")
        yield session
        session.stop()


class Catalog:
    """Which tables there are, and where the newest metadata file of each is."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.postgres_url("catalog", "lake")

    def locations(self, names: Iterable[str]) -> dict[str, str | None]:
        """Where each table is; None for one that is not there."""
        with psycopg.connect(self._url) as link:
            rows = link.execute("SELECT table_namespace, table_name, metadata_location FROM public.iceberg_tables")
            found = {f"{namespace}.{name}": location for namespace, name, location in rows}
        return {name: found.get(name) for name in names}

    def restore(self, locations: Mapping[str, str | None]) -> None:
        """Put each table where it was, and forget those that were not there."""
        with psycopg.connect(self._url) as link:
            for table, location in locations.items():
                namespace, name = table.split(".")
                which = "table_namespace = %s AND table_name = %s"
                link.execute(f"DELETE FROM public.iceberg_tables WHERE {which}", (namespace, name))
                if location is not None:
                    link.execute(
                        "INSERT INTO public.iceberg_tables"
                        " (catalog_name, table_namespace, table_name, metadata_location, iceberg_type)"
                        " VALUES ('lake', %s, %s, %s, 'TABLE')",
                        (namespace, name, location),
                    )

    def forget(self, names: Iterable[str]) -> None:
        """Drop tables, whose files may be gone already."""
        self.restore(dict.fromkeys(names))


@pytest.fixture(scope="package")
def catalog(servers: Settings, spark: SparkSession) -> Catalog:
    """The catalog, with its namespaces."""
    return Catalog(servers)


@pytest.fixture
def contract() -> DatasetContract:
    return load_contract(PROJECT / "contracts" / "datasets" / "nyc_yellow.yaml")


@pytest.fixture
def few_rules() -> DatasetContract:
    """The contract with four of its rules, none of which holds rows against each other.

    For tests that are not about rules: planning is most of a small file's time, and grows with the rules.
    """
    contract = load_contract(PROJECT / "contracts" / "datasets" / "nyc_yellow.yaml")
    return contract.model_copy(update={"rules": contract.rules[:4], "negation": None})


@pytest.fixture(scope="package")
def _store(servers: Settings) -> JobStore:
    return JobStore(servers)


@pytest.fixture
def store(_store: JobStore) -> JobStore:
    """The store, with no object in it."""
    for bucket in BUCKETS:
        _store.clear(bucket)
    return _store


@pytest.fixture
def lake(spark: SparkSession, store: JobStore, catalog: Catalog) -> SparkSession:
    """The session, with no table of ours in its catalog."""
    catalog.forget((*TABLES, *GREEN_TABLES, *ZONES))
    return spark


@pytest.fixture
def drop(store: JobStore) -> Callable[..., WorkItem]:
    """Put a file into bronze: an Arrow table as parquet, or bytes as they are."""

    def put(key: str, content: pa.Table | bytes, version: str = "1") -> WorkItem:
        if not isinstance(content, bytes):
            sink = pa.BufferOutputStream()
            pq.write_table(content, sink)
            content = sink.getvalue().to_pybytes()
        return store.drop(key, content, version)

    return put


@pytest.fixture(scope="package")
def zones_contract() -> DatasetContract:
    return load_contract(PROJECT / "contracts" / "datasets" / "taxi_zones.yaml")


@pytest.fixture
def drop_zones(
    lake: SparkSession, store: JobStore, zones_contract: DatasetContract, drop: Callable[..., WorkItem]
) -> Callable[..., Any]:
    """Put rows of zones into bronze, as text like a landed CSV, and take them into silver."""

    def put(*rows: tuple[Any, ...], version: str = "1", file: str = "taxi_zone_lookup", text: Any = None) -> Any:
        names = ("LocationID", "Borough", "Zone", "service_zone")
        columns = zip(*rows, strict=True) if rows else ([] for _ in names)
        content = text or pa.table(
            {
                name: pa.array([None if value is None else str(value) for value in column], pa.string())
                for name, column in zip(names, columns, strict=True)
            }
        )
        item = drop(f"taxi_zones/{file}.parquet", content, version)
        batch = make_batch(Layer.SILVER, "taxi_zones", [item.model_copy(update={"depth": Layer.SILVER})])
        return data_preprocessing_job.run(lake, store.lake, store, zones_contract, batch)

    return put


def silver_batch(*items: WorkItem) -> Batch:
    return make_batch(Layer.SILVER, "nyc_yellow", items)


def gold_batch(*items: WorkItem) -> Batch:
    return make_batch(Layer.GOLD, "nyc_yellow", items)
