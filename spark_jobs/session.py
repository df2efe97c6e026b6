"""Edge: Spark sessions, their configuration, and Spark's errors as ours."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import grpc
from py4j.protocol import Py4JError
from pyspark import SparkConf
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from contracts.errors import JobFailed, ScanFailed, ServiceUnavailable
from contracts.settings import HOST, SPARK_BEHIND_TLS_PORT, Settings
from contracts.spark_remote import with_session

CATALOG = "lake"
_SESSION_ID = "51c1ce00-0000-4000-8000-000000000001"

_CATALOG = f"spark.sql.catalog.{CATALOG}"
_S3A = "spark.hadoop.fs.s3a"
# A native reader may also give up on bytes in a way that Spark has no name for.
_READ = re.compile(r"\[FAILED_READ_FILE\.|Comet native panic|CometNativeException|panicked at")
# Causes below a failed read that are the store's or the network's, not the file's.
_TRANSPORT = re.compile(
    r"AWS\w*(?:Status|IO)?Exception|software\.amazon\.awssdk\.\S*Exception|SocketException|SocketTimeout"
    r"|ConnectException|ConnectTimeout|UnknownHost|NoHttpResponse|FILE_NOT_EXIST|RemoteFileChanged|AccessDenied|OutOfMemory"
    # As Comet's native readers and writers tell it.
    r"|Generic S3 error|Error performing|error sending request|Object at location|No space left|[Rr]esources exhausted"
)


def catalog_conf(settings: Settings) -> dict[str, str]:
    """Spark properties of the Iceberg catalog `lake`, of the object store below it and of the reads and writes.

    Holds the catalog's password (Spark redacts it in its UI and logs), but no S3 credential.
    """
    return {
        _CATALOG: "org.apache.iceberg.spark.SparkCatalog",
        f"{_CATALOG}.type": "jdbc",
        f"{_CATALOG}.uri": f"jdbc:postgresql://{settings.postgres_server}/lake{settings.postgres_options}",
        f"{_CATALOG}.jdbc.user": "catalog",
        f"{_CATALOG}.jdbc.password": settings.catalog_password.get_secret_value(),
        f"{_CATALOG}.jdbc.schema-version": "V1",
        f"{_CATALOG}.warehouse": "s3://silver/",
        # S3A would ask for each object's head before it reads it, and list folders (measured: a tenth more CPU time for
        # a job).
        f"{_CATALOG}.io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        f"{_CATALOG}.s3.endpoint": settings.s3_url,
        f"{_CATALOG}.client.region": settings.s3_region,
        f"{_CATALOG}.s3.path-style-access": "true",
        # A long-lived session must see what other applications committed.
        f"{_CATALOG}.cache-enabled": "false",
        "spark.sql.defaultCatalog": CATALOG,
        **_store_conf(settings),
        **engine_conf(),
    }


def engine_conf() -> dict[str, str]:
    """Spark properties that the jobs rely on, whatever the cluster and the store."""
    return {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        # Wall-clock times pass through this zone, so it must have no daylight saving.
        "spark.sql.session.timeZone": "UTC",
        # Spark refuses parquet's nanosecond times, which pandas writes; `conform` makes times of the numbers.
        "spark.sql.legacy.parquet.nanosAsLong": "true",
        # Times before 1582 are taken as written; the default ends the job on files of some old writers.
        "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
        "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
        "spark.sql.shuffle.partitions": "4",
        # The JVM by default never compiles a method of more than 8,000 bytes, and the code that Spark makes for a
        # contract with many rules is longer (measured: 3 million rows in a third of the time).
        # The quick compiler alone has a cache of 48 MB, which a day of work fills; what has no room is compiled anew.
        "spark.executor.extraJavaOptions": "-XX:+UseParallelGC -XX:-DontCompileHugeMethods -XX:TieredStopAtLevel=1"
        " -XX:ReservedCodeCacheSize=240m",
        # Values of a filter must not be written into the generated code: it would be compiled anew for each month.
        "spark.sql.optimizer.inSetConversionThreshold": "0",
        "spark.sql.optimizer.inSetSwitchThreshold": "0",
        # Comet runs scans, expressions and parquet writers as native code, on batches of columns (measured: a month of
        # 3 million rows through both layers in 19 s of CPU time instead of 50). What it cannot do, Spark does.
        "spark.plugins": "org.apache.spark.CometPlugin",
        "spark.shuffle.manager": "org.apache.spark.sql.comet.execution.shuffle.CometShuffleManager",
        "spark.comet.write.iceberg.enabled": "true",
        # The names of a batch's files are such a scan, and one part that is not native takes the write with it.
        "spark.comet.exec.localTableScan.enabled": "true",
        "spark.comet.convert.rdd.enabled": "true",
        # Letters change their case by Unicode then, and no longer as the server's language has it.
        "spark.comet.caseConversion.enabled": "true",
        "spark.memory.offHeap.enabled": "true",
        "spark.memory.offHeap.size": "1g",
        # What follows from a filter for other columns is looked for with every name that a column ever had: with a few
        # renamed columns under many rules, planning alone takes hours. The jobs' filters need no inference.
        "spark.sql.constraintPropagation.enabled": "false",
        # Stages that are planned one by one cost a small file more than they save a large one.
        "spark.sql.adaptive.enabled": "false",
        # With the executors' cores instead, a row's place among the parts would change when an executor comes or goes.
        # Two for each core: the native reader gives a row group to the part that it begins in, so parts are uneven
        # (measured: two parts of a month had 2 and 1 million rows).
        "spark.sql.files.minPartitionNum": "4",
        # Listing 1,000 given files would otherwise be 1,000 tasks.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "40",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # For its error messages pyspark notes where in the code each column was made: a third of a small job's time.
        "spark.python.sql.dataFrameDebugging.enabled": "false",
    }


def connect_server_conf(settings: Settings) -> dict[str, str]:
    """Spark properties of the warm Spark Connect server, an application on the standalone cluster.

    S3A, Iceberg and Comet all take the S3 credentials from `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` in the
    environment of the server and its executors.
    """
    return {
        **catalog_conf(settings),
        **settings.spark_page_conf,
        "spark.master": settings.spark_master_url,
        "spark.app.name": "sluice-connect",
        "spark.cores.max": str(settings.spark_cores),
        # By compose/conf/fairscheduler.xml, between the jobs of all datasets.
        "spark.scheduler.mode": "FAIR",
        "spark.sql.files.minPartitionNum": str(2 * settings.spark_cores),
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.executor.memory": settings.spark_executor_memory,
        # Measured on two cores: the optimizing compiler took more CPU time than the jobs. The driver's code runs a few
        # times a job, and the executors' loops over rows are native, so the quick compiler does for both.
        "spark.driver.extraJavaOptions": "-XX:+UseParallelGC -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m",
        "spark.driver.host": settings.own_address,
        "spark.driver.bindAddress": settings.listen,
        # Spark's server has no TLS: with it, a listener of ours stands before it, see `sluice.tls_front`.
        "spark.connect.grpc.binding.address": settings.listen if settings.ca_file is None else HOST,
        # Kept forever: a session that has ended cannot be opened again under its id.
        "spark.connect.session.manager.defaultSessionTimeout": "-1",
        # A plan that is kept names a file's size as it was when a job read that key before: a corrected file would be
        # read by the size of the version before it.
        "spark.connect.session.planCache.enabled": "false",
        "spark.connect.grpc.binding.port": str(
            settings.ports.spark_connect if settings.ca_file is None else SPARK_BEHIND_TLS_PORT
        ),
        "spark.ui.port": str(settings.ports.spark_connect_ui),
        # The server lives for weeks; what its UI remembers must not grow.
        "spark.ui.retainedJobs": "200",
        "spark.ui.retainedStages": "200",
        "spark.ui.retainedTasks": "5000",
        "spark.sql.ui.retainedExecutions": "100",
    }


def connect_session(settings: Settings) -> SparkSession:
    """The one session that all jobs share on the Spark Connect server, the stack's own or `SLUICE_SPARK_REMOTE`.

    They set nothing in it. Executors load the code that Spark generates once a session, so a session for each job would
    have it compiled anew each time (measured: 3 million rows to gold in 55 s instead of 35 s).

    Raises:
        ServiceUnavailable: the server does not answer, or does not let us in.
    """
    # Imported here: it costs 2 s, which a classic application need not pay.
    from pyspark.sql.connect.client.retries import DefaultPolicy
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    with spark_errors(f"opening a session at {settings.spark_connect_url}"):
        session = _open(settings)
        # What a checkpoint gives belongs to the thread's active session, whichever made it: pyspark leaves an older one
        # there, and its server does not know the rows.
        ConnectSession._active_session.session = session
        # Another job may be at work in it.
        session.release_session_on_close = False  # type: ignore[attr-defined]
        # By default the client tries for ten minutes; the caller has retries of its own.
        session.client.set_retry_policies([DefaultPolicy(max_retries=8, max_backoff=5000)])
        return session


def _open(settings: Settings) -> SparkSession:
    url = with_session(settings.spark_connect_secret_url, _SESSION_ID)
    # A server elsewhere has a certificate of the world's authorities.
    if settings.ca_file is None or settings.spark_remote is not None:
        return SparkSession.builder.remote(url).create()
    from pyspark.sql.connect.client import DefaultChannelBuilder
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    authority = grpc.ssl_channel_credentials(settings.ca_file.read_bytes())
    token = grpc.access_token_call_credentials(settings.spark_connect_token.get_secret_value())

    class Channel(DefaultChannelBuilder):  # type: ignore[misc]
        """Trusts the stack's own authority, of which a URL cannot tell."""

        def toChannel(self) -> grpc.Channel:
            return self._secure_channel(self.endpoint, grpc.composite_channel_credentials(authority, token))

    # pyspark does so with a URL: its functions then make columns of this kind of session.
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    return cast(SparkSession, ConnectSession.builder.channelBuilder(Channel(url)).create())


def submit_session(settings: Settings, name: str) -> SparkSession:
    """The classic session of an application that a person starts with `spark-submit`.

    It runs on the stack's cluster unless `--master` names another than Spark's own default, `local[*]`.

    Raises:
        ServiceUnavailable: the cluster or the gateway does not answer.
    """
    with spark_errors(f"starting the application {name}"):
        builder = SparkSession.builder.appName(name).config(
            map={
                **catalog_conf(settings),
                **settings.spark_page_conf,
                f"{_S3A}.access.key": settings.spark_access_key,
                f"{_S3A}.secret.key": settings.spark_secret_key.get_secret_value(),
                f"{_CATALOG}.s3.access-key-id": settings.spark_access_key,
                f"{_CATALOG}.s3.secret-access-key": settings.spark_secret_key.get_secret_value(),
                # One core, so that it finds a place beside the warm server.
                "spark.cores.max": "1",
                "spark.driver.host": settings.own_address,
                "spark.driver.bindAddress": settings.listen,
                # Its page would be on all addresses of the machine, and asks nobody who they are.
                "spark.ui.enabled": SparkConf().get("spark.ui.enabled", "false"),
            }
        )
        if SparkConf().get("spark.master", "local[*]") == "local[*]":
            builder = builder.master(settings.spark_master_url)
        return builder.getOrCreate()


@contextmanager
def spark_errors(doing: str) -> Iterator[None]:
    """Turn Spark's errors into ours.

    Args:
        doing: what was under way, for the message.

    Raises:
        ScanFailed: a file could not be read, and nothing says that store or network are at fault.
        ServiceUnavailable: the Spark server does not answer, or does not let us in.
        JobFailed: anything else that Spark raises.
    """
    try:
        yield
    except (grpc.RpcError, ConnectionError) as error:
        raise ServiceUnavailable(
            f"Spark does not answer while {doing} ({type(error).__name__}). Is it up? `sluice status` tells."
        ) from error
    except (PySparkException, Py4JError) as error:
        status = error.getGrpcStatusCode() if hasattr(error, "getGrpcStatusCode") else None
        if status is grpc.StatusCode.UNAVAILABLE:
            raise ServiceUnavailable(
                f"Spark does not answer while {doing} (UNAVAILABLE). Is it up? `sluice status` tells."
            ) from error
        if status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise ServiceUnavailable(
                f"Spark does not let us in while {doing} ({status.name}). Is the token in SLUICE_SPARK_REMOTE its own?"
            ) from error
        # The text may hold values of rows, so it stays in the cause and out of the message.
        text = str(error)
        condition = re.search(r"\[([A-Z][A-Z0-9_]+(?:\.[A-Z0-9_]+)*)\]", text)
        what = condition[1] if condition else _java_class(text) or type(error).__name__
        if _READ.search(text) and not _TRANSPORT.search(text):
            raise ScanFailed(f"Spark cannot read a file while {doing} ({what}).") from error
        raise JobFailed(f"Spark failed while {doing}: {what}. The Spark driver's log has the details.") from error


def _java_class(text: str) -> str | None:
    found = re.search(r"\b(?:[a-z0-9_]+\.)+([A-Z]\w*(?:Exception|Error))\b", text)
    return found[1] if found else None


def _store_conf(settings: Settings) -> dict[str, str]:
    # Comet writes natively only where it understands every setting of S3A and of Iceberg's S3FileIO, and it understands
    # these (and the keys); with any other, a tuning of pools or buffers say, Spark's writer takes over without a word.
    # S3A is for what is no table's: files in bronze, and the listing that finds files of no table.
    return {
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        f"{_S3A}.endpoint": settings.s3_url,
        f"{_S3A}.endpoint.region": settings.s3_region,
        f"{_S3A}.path.style.access": "true",
    }
