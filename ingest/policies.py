"""Decision: what each user of the store may do. Policy documents in the S3 policy language, no I/O."""

from __future__ import annotations

from typing import Any

from contracts.markers import PREFIX

BRONZE, SILVER, GOLD, QUARANTINE = "bronze", "silver", "gold", "quarantine"
BUCKETS = (BRONZE, SILVER, GOLD, QUARANTINE)

_READ = ("s3:GetObject",)
_WRITE = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
_DELETE = ("s3:DeleteObject",)
_LIST = ("s3:ListBucket", "s3:GetBucketLocation")
_LIST_UPLOADS = ("s3:ListBucketMultipartUploads",)


def ingest_policy() -> dict[str, Any]:
    """Whoever drops files: reads and writes bronze, deletes nothing, sees no other bucket."""
    return _policy(_objects(BRONZE, _READ + _WRITE), _bucket(BRONZE, _LIST + _LIST_UPLOADS))


def spark_policy() -> dict[str, Any]:
    """The jobs: read bronze, own silver and gold, put into quarantine."""
    tables = [
        statement
        for bucket in (SILVER, GOLD)
        for statement in (_objects(bucket, _READ + _WRITE + _DELETE), _bucket(bucket, _LIST + _LIST_UPLOADS))
    ]
    return _policy(_objects(BRONZE, _READ), _bucket(BRONZE, _LIST), *tables, _objects(QUARANTINE, _WRITE))


def consumers_policy() -> dict[str, Any]:
    """The router: reads commit markers, and lists and reads bronze to reconcile; writes nothing."""
    markers = [
        statement
        for bucket in (SILVER, GOLD)
        for statement in (
            _objects(bucket, _READ, prefix=PREFIX),
            _bucket(bucket, ("s3:ListBucket",)) | {"Condition": {"StringLike": {"s3:prefix": [f"{PREFIX}*"]}}},
        )
    ]
    return _policy(_objects(BRONZE, _READ), _bucket(BRONZE, _LIST), *markers)


def reader_policy() -> dict[str, Any]:
    """Whoever queries: reads the tables of silver and gold, writes nothing, sees no raw file."""
    return _policy(
        *(statement for bucket in (SILVER, GOLD) for statement in (_objects(bucket, _READ), _bucket(bucket, _LIST)))
    )


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _objects(bucket: str, actions: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": [f"arn:aws:s3:::{bucket}/{prefix}*"]}


def _bucket(bucket: str, actions: tuple[str, ...]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": [f"arn:aws:s3:::{bucket}"]}
