"""Prepares a MinIO for Sluice: buckets, users with their policies, notification and lifecycle rules. Safe to repeat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from minio.credentials import StaticProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin
from pydantic import SecretStr
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed
from urllib3.exceptions import HTTPError

from contracts.errors import NotRunning, ServiceUnavailable, SetupError
from contracts.loading import load_contracts
from contracts.settings import Settings
from ingest.lifecycle import ExpiryRule, expiry_rules, wanted_rules, with_rules
from ingest.notifications import RULES
from ingest.policies import BUCKETS, consumers_policy, ingest_policy, reader_policy, spark_policy
from ingest.store import Store, local_http, store_for


def bootstrap_store(settings: Settings, patience: float = 30) -> None:
    """Make the buckets, the users with their policies, and the rules of both kinds, whatever is there already.

    Files expire as the contracts say. Lifecycle rules of others stay; ours that no contract asks for go.

    Args:
        patience: seconds to go on trying while MinIO starts up or does not know its notification targets yet.

    Raises:
        ServiceUnavailable: MinIO does not answer, or was started without a notification target.
        SetupError: MinIO refused a user or a policy.
        ContractError: a contract is not valid, so it is not known how long its files are kept.
        NotRunning: the stack has no secrets yet.
    """
    waiting = retry(
        retry=retry_if_exception_type(ServiceUnavailable),
        stop=stop_after_delay(patience),
        wait=wait_fixed(0.5),
        reraise=True,
    )
    store = store_for(settings, "root")
    waiting(_make_buckets)(store)
    waiting(_make_users)(settings)
    waiting(_set_rules)(store)
    contracts = load_contracts(settings.contracts_dir).values()
    for bucket, rules in wanted_rules(contracts).items():
        waiting(_set_expiry)(store, bucket, rules)


def _make_buckets(store: Store) -> None:
    for bucket in BUCKETS:
        store.ensure_bucket(bucket)


def _set_rules(store: Store) -> None:
    for bucket, rules in RULES.items():
        store.set_notifications(bucket, rules)


def _set_expiry(store: Store, bucket: str, rules: tuple[ExpiryRule, ...]) -> None:
    document = store.lifecycle(bucket)
    # A store that has no such rules and is to have none is not asked to change anything.
    if tuple(rule for rule in expiry_rules(document) if rule.ours) != rules:
        store.set_lifecycle(bucket, with_rules(document, rules))


def _make_users(settings: Settings) -> None:
    admin = MinioAdmin(
        endpoint=settings.s3_endpoint,
        credentials=StaticProvider(settings.minio_root_user, settings.minio_root_password.get_secret_value()),
        region=settings.s3_region,
        secure=settings.ca_file is not None,
        http_client=local_http(settings.ca_file),
    )
    _make_user(admin, settings.ingest_access_key, settings.ingest_secret_key, ingest_policy())
    _make_user(admin, settings.spark_access_key, settings.spark_secret_key, spark_policy())
    _make_user(admin, settings.consumers_access_key, settings.consumers_secret_key, consumers_policy())
    _make_user(admin, settings.reader_access_key, settings.reader_secret_key, reader_policy())


def _make_user(admin: MinioAdmin, user: str, secret: SecretStr, policy: dict[str, Any]) -> None:
    if not secret.get_secret_value():
        raise NotRunning(f"There is no secret for the store's user {user}. Start the stack first: `sluice up`.")
    with _admin_errors(user):
        # The policy has the user's name, and replaces whatever policies the user had.
        admin.policy_add(user, policy=policy)
        admin.user_add(user, secret.get_secret_value())
        admin.policy_set(user, user=user)


@contextmanager
def _admin_errors(user: str) -> Iterator[None]:
    """Turn the errors of minio's admin client into ours."""
    try:
        yield
    except HTTPError as error:
        raise ServiceUnavailable(f"MinIO gave no answer while the user {user} was made.", user=user) from error
    except MinioAdminException as error:
        status = str(error.args[0]).partition("Status: ")[2][:3]
        # While it starts it may read its policies anew, and not know the one that was made a moment ago.
        if status.startswith("5") or "XMinioAdminNoSuchPolicy" in str(error):
            raise ServiceUnavailable(f"MinIO is not ready to make the user {user} ({status}).", user=user) from error
        raise SetupError(f"MinIO refused to make the user {user} or its policy: {error}", user=user) from error
