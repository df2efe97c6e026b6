"""Edge: the object store. The only place that imports minio's S3 client, and the only S3 client of Sluice."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

import urllib3
from minio import Minio
from minio.commonconfig import CopySource
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.notificationconfig import NotificationConfig, PrefixFilterRule, QueueConfig, SuffixFilterRule
from urllib3.exceptions import HTTPError

from contracts.errors import (
    NotRunning,
    ObjectChanged,
    ObjectGone,
    ObjectTooLarge,
    ServiceUnavailable,
    SluiceError,
    StoreRefused,
    UsageError,
)
from contracts.settings import Settings
from ingest.notifications import NotifyRule

Role = Literal["root", "ingest", "spark", "consumers", "reader"]

# One PUT up to here (a month of yellow trips has about 65 MiB), whose etag is the MD5; above it, parts of this size.
PART_BYTES = 128 * 1024 * 1024
_MAX_PARTS = 10_000
_SOURCE = "sluice-source"
"""User metadata of an object: see `ObjectInfo.source`."""
_GONE = {"NoSuchKey", "NoSuchBucket", "NoSuchVersion"}
_KEY_REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch"}


@dataclass(frozen=True)
class ObjectInfo:
    """One version of one object."""

    bucket: str
    key: str
    etag: str
    """Without quotes."""
    size: int
    """Bytes."""
    last_modified: datetime
    """Aware. After a put: the server's clock when it acknowledged."""
    source: str = ""
    """Where the content came from, and which version of it, as `put_file` was told; only `stat` gives it."""


class Store:
    """An S3 store, as one user of it.

    All methods raise `ServiceUnavailable` when the store does not answer or does not take the user's key, and
    `StoreRefused` when the user may not do this or the store cannot hold the name.
    """

    def __init__(
        self, endpoint: str, access_key: str, secret_key: str, region: str, ca_file: Path | None = None
    ) -> None:
        """Connect at the first request.

        Args:
            ca_file: whose certificates the store's has to be one of; None: the connection is plain.
        """
        self._endpoint = endpoint
        self._user = access_key
        self._client = Minio(
            endpoint,
            access_key=access_key,
            secret_key=secret_key,
            region=region,
            secure=ca_file is not None,
            http_client=local_http(ca_file),
        )

    def stat(self, bucket: str, key: str) -> ObjectInfo | None:
        """The newest version of an object, or None when there is none.

        Raises:
            ObjectGone: the bucket is not there.
        """
        try:
            with self._errors(bucket, key):
                found = self._client.stat_object(bucket, key)
        except ObjectGone as error:
            if error.context["code"] == "NoSuchKey":
                return None
            raise
        return _info(found)

    def put_file(
        self, bucket: str, key: str, path: Path, progress: Callable[[int], None] | None = None, source: str = ""
    ) -> ObjectInfo:
        """Put a local file, atomically: readers see the whole object or the one before it.

        Args:
            progress: called with the number of bytes read since the last call; what it raises ends the put, of which
                nothing is there then.
            source: kept with the object; ASCII.

        Raises:
            UsageError: the file cannot be read, or shrank meanwhile.
        """
        try:
            with path.open("rb") as file:
                return self._put(bucket, key, file, path.stat().st_size, progress=progress, source=source)
        except OSError as error:
            raise UsageError(f"The file {path.name!r} cannot be read ({error}); nothing was put.") from error

    def put_bytes(
        self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream"
    ) -> ObjectInfo:
        """Put bytes as one object, atomically."""
        return self._put(bucket, key, io.BytesIO(data), len(data), content_type=content_type)

    def get_bytes(self, bucket: str, key: str, limit: int, etag: str | None = None) -> bytes:
        """The whole content of a small object.

        Args:
            limit: the most bytes that are taken.
            etag: of the version that is asked for; None: whatever is there.

        Raises:
            ObjectGone: there is no such object.
            ObjectChanged: it has another etag by now.
            ObjectTooLarge: it has more than `limit` bytes; none were read.
        """
        with self._errors(bucket, key), self._body(bucket, key, etag=etag) as response:
            size = int(response.headers.get("content-length", "0"))
            if size > limit:
                raise ObjectTooLarge(
                    f"{bucket}/{key!r} has {size} bytes; at most {limit} were expected here.",
                    bucket=bucket,
                    key=key,
                )
            return bytes(response.read())

    def get_range(self, bucket: str, key: str, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset` on; fewer where the object ends.

        Raises:
            ObjectGone: there is no such object.
            StoreRefused: the object ends before `offset`.
        """
        if length == 0:  # minio-py takes 0 for "to the end"
            return b""
        with self._errors(bucket, key), self._body(bucket, key, offset=offset, length=length) as response:
            return bytes(response.read())

    def copy(self, bucket: str, key: str, etag: str, to_bucket: str, to_key: str) -> None:
        """Copy one version of an object inside the store, of any size.

        Raises:
            ObjectGone: the source is not there.
            ObjectChanged: the source has another etag by now; nothing was copied.
        """
        with self._errors(bucket, key):
            self._client.copy_object(to_bucket, to_key, CopySource(bucket, key, match_etag=etag))

    def list(self, bucket: str, prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        """All objects below a prefix, in the order of their keys, read page by page.

        Args:
            after: only keys that come after this one.

        Raises:
            ObjectGone: the bucket is not there.
        """
        with self._errors(bucket, prefix):
            for found in self._client.list_objects(bucket, prefix=prefix, recursive=True, start_after=after or None):
                yield _info(found)

    def ensure_bucket(self, bucket: str) -> None:
        """Make a bucket unless it is there."""
        with self._errors(bucket, ""):
            try:
                self._client.make_bucket(bucket)
            except S3Error as error:
                if error.code != "BucketAlreadyOwnedByYou":
                    raise

    def set_notifications(self, bucket: str, rules: Sequence[NotifyRule]) -> None:
        """Replace a bucket's notification rules.

        Raises:
            ServiceUnavailable: the server does not know a target, or not yet.
        """
        config = NotificationConfig(queue_config_list=[_queue_config(rule) for rule in rules])
        with self._errors(bucket, ""):
            try:
                self._client.set_bucket_notification(bucket, config)
            except S3Error as error:
                if "ARN" not in (error.message or ""):
                    raise
                targets = ", ".join(sorted({rule.target for rule in rules}))
                raise ServiceUnavailable(
                    f"MinIO at {self._endpoint} has no notification target {targets} (yet), which the rules of "
                    f"bucket {bucket} need. It must be started with MINIO_NOTIFY_KAFKA_ENABLE_{targets}=on."
                ) from error

    def lifecycle(self, bucket: str) -> str:
        """A bucket's lifecycle rules, as the XML document that the store has; empty where there are none."""
        with self._errors(bucket, ""):
            try:
                # Not by minio-py's own method, which leaves out what its classes do not know.
                answer = self._client._execute("GET", bucket, query_params={"lifecycle": ""})
            except S3Error as error:
                if error.code == "NoSuchLifecycleConfiguration":
                    return ""
                raise
            return str(answer.data, "utf-8")

    def set_lifecycle(self, bucket: str, document: str) -> None:
        """Replace a bucket's lifecycle rules; an empty document takes all away."""
        with self._errors(bucket, ""):
            if not document:
                self._client.delete_bucket_lifecycle(bucket)
                return
            body = document.encode()
            md5 = base64.b64encode(_md5(body).digest()).decode()
            self._client._execute(
                "PUT", bucket, body=body, headers={"Content-MD5": md5}, query_params={"lifecycle": ""}
            )

    def _put(
        self,
        bucket: str,
        key: str,
        stream: Any,
        size: int,
        content_type: str = "application/octet-stream",
        progress: Callable[[int], None] | None = None,
        source: str = "",
    ) -> ObjectInfo:
        with self._errors(bucket, key):
            done = self._client.put_object(
                bucket,
                key,
                stream,
                size,
                content_type=content_type,
                metadata={_SOURCE: source} if source else None,
                part_size=_part_bytes(size),
                # Parts are held in memory; one at a time is fast enough on one machine.
                num_parallel_uploads=1,
                progress=_Progress(progress) if progress else None,
            )
        return ObjectInfo(bucket, key, (done.etag or "").strip('"'), size, _answered_at(done.http_headers))

    @contextmanager
    def _body(self, bucket: str, key: str, offset: int = 0, length: int = 0, etag: str | None = None) -> Iterator[Any]:
        headers = {"If-Match": f'"{etag}"'} if etag else None
        response = self._client.get_object(bucket, key, offset=offset, length=length, request_headers=headers)
        try:
            yield response
        finally:
            response.close()
            response.release_conn()

    @contextmanager
    def _errors(self, bucket: str, key: str) -> Iterator[None]:
        """Turn the errors of minio-py and urllib3 into ours."""
        place = f"{bucket}/{key!r}" if key else bucket
        try:
            yield
        except S3Error as error:
            raise self._from_s3(error, bucket, key, place) from error
        except (HTTPError, ServerError, InvalidResponseError) as error:
            raise ServiceUnavailable(
                f"The object store at {self._endpoint} gave no proper answer about {place} ({type(error).__name__}). "
                "Is it up? `sluice status` tells.",
                bucket=bucket,
                key=key,
            ) from error
        except (MinioException, ValueError) as error:
            raise StoreRefused(f"{place} is no name for an object: {error}.", bucket=bucket, key=key) from error

    def _from_s3(self, error: S3Error, bucket: str, key: str, place: str) -> SluiceError:
        # The answer to a HEAD has no body, so minio-py guesses; MinIO tells the code in a header.
        code = error.response.headers.get("x-minio-error-code") or error.code or "unknown"
        context = {"bucket": bucket, "key": key, "code": code}
        if code in _GONE:
            return ObjectGone(f"{place} is not there ({code}).", **context)
        if code == "PreconditionFailed":
            return ObjectChanged(f"{place} has other content by now than the version asked for.", **context)
        if code == "AccessDenied":
            return StoreRefused(
                f"The user {self._user} may not do this with {place}; see ingest/policies.py.", **context
            )
        if code in _KEY_REFUSED:
            # Nothing is wrong with the object: whoever waits for the store can go on as soon as the key is good again.
            return ServiceUnavailable(
                f"The object store at {self._endpoint} does not let the user {self._user} in ({code}). "
                "Enable the user, or give it its key again.",
                **context,
            )
        if code == "RequestTimeTooSkewed":
            return ServiceUnavailable(
                f"The clock of the object store at {self._endpoint} is more than 15 minutes apart from that of this "
                "machine, so it takes no request. Set the clocks right; whatever waits then goes on.",
                **context,
            )
        if error.response.status >= 500 or code in {"SlowDown", "RequestTimeout"}:
            return ServiceUnavailable(f"The object store at {self._endpoint} is not ready ({code}).", **context)
        return StoreRefused(f"The object store refused a request about {place}: {code}, {error.message}", **context)


def store_for(settings: Settings, role: Role) -> Store:
    """The stack's store as one of its users.

    Raises:
        NotRunning: the stack has no secret for that user, so it was never started.
    """
    user, secret = {
        "root": (settings.minio_root_user, settings.minio_root_password),
        "ingest": (settings.ingest_access_key, settings.ingest_secret_key),
        "spark": (settings.spark_access_key, settings.spark_secret_key),
        "consumers": (settings.consumers_access_key, settings.consumers_secret_key),
        "reader": (settings.reader_access_key, settings.reader_secret_key),
    }[role]
    if not secret.get_secret_value():
        raise NotRunning(f"There is no secret for the store's user {user}. Start the stack first: `sluice up`.")
    return Store(settings.s3_endpoint, user, secret.get_secret_value(), settings.s3_region, settings.ca_file)


def local_http(ca_file: Path | None = None) -> urllib3.PoolManager:
    """Connections to a server on this machine: it answers soon or is down.

    Args:
        ca_file: the only authority whose certificates are taken; for https.
    """
    return urllib3.PoolManager(
        ca_certs=None if ca_file is None else str(ca_file),
        # 60 s: a copy of gigabytes, or the end of a multipart upload, answers only when it is done.
        timeout=urllib3.Timeout(connect=5, read=60),
        maxsize=10,
        retries=urllib3.Retry(total=3, read=1, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
    )


class _Progress:
    """minio-py's two-method progress, handed on to a function."""

    def __init__(self, report: Callable[[int], None]) -> None:
        self._report = report

    def set_meta(self, object_name: str, total_length: int) -> None:
        """Not needed: the caller knows the file."""

    def update(self, length: int) -> None:
        self._report(length)


def _info(found: Any) -> ObjectInfo:
    return ObjectInfo(
        bucket=found.bucket_name,
        key=found.object_name,
        etag=(found.etag or "").strip('"'),
        size=found.size or 0,
        last_modified=found.last_modified or datetime.now(UTC),
        source=(found.metadata or {}).get(f"x-amz-meta-{_SOURCE}", ""),
    )


def content_etag(path: Path) -> str:
    """The etag that `put_file` gives a file: its MD5, or for parts the MD5 of theirs and their number.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    part = _part_bytes(size)
    with path.open("rb") as file:
        if size <= part:
            return hashlib.file_digest(file, _md5).hexdigest()
        digests = [_md5(data).digest() for data in iter(lambda: file.read(part), b"")]
    return f"{_md5(b''.join(digests)).hexdigest()}-{len(digests)}"


def _md5(data: bytes = b"") -> Any:
    return hashlib.md5(data, usedforsecurity=False)


def _part_bytes(size: int) -> int:
    return max(PART_BYTES, math.ceil(size / _MAX_PARTS))


def _answered_at(headers: Any) -> datetime:
    date = headers.get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)


def _queue_config(rule: NotifyRule) -> QueueConfig:
    return QueueConfig(
        queue=f"arn:minio:sqs::{rule.target}:kafka",
        events=list(rule.events),
        config_id=f"sluice-{rule.target.lower()}",
        prefix_filter_rule=PrefixFilterRule(rule.prefix) if rule.prefix else None,
        suffix_filter_rule=SuffixFilterRule(rule.suffix) if rule.suffix else None,
    )
