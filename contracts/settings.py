"""The settings of a stack: one model, read from the environment and from the stack's secrets file.

Environment variables begin with `SLUICE_`. Secrets come from the environment or from a file of mode 0600,
`$SLUICE_HOME/secrets.env` or what `SLUICE_SECRETS_FILE` names, which the first start makes; nothing else holds them.

Everything is on this machine by default. Where the parts are on machines or in containers of their own, each listens
on an address that the others reach (`listen`) and is told where the others are (`*_address`).

Whether the connections are encrypted is one setting, `ca_file`; every client asks this module what follows from it.
"""

from __future__ import annotations

import os
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts import spark_remote as remotes
from contracts.errors import UsageError

PROJECT = Path(__file__).resolve().parent.parent
SECRETS_FILE = "secrets.env"
HOST = "127.0.0.1"
SPARK_BEHIND_TLS_PORT = 15012
"""Where the Spark Connect server listens, on its own container's loopback address, when TLS is before it."""
MOST_DAYS = 36_500

# Where users of these servers look first. The order fixes the offsets from SLUICE_PORT_BASE.
USUAL_PORTS = {
    "minio": 9000,
    "minio_console": 9001,
    "kafka": 9092,
    "kafka_controller": 9093,
    "postgres": 5442,
    "spark_master": 7077,
    "spark_master_ui": 8081,
    "router_metrics": 9108,
    "spark_worker_ui": 8082,
    "spark_connect": 15002,
    "spark_connect_ui": 4040,
    "airflow": 8080,
    "airflow_scheduler_health": 8974,
    "airflow_worker_log": 8793,
    "airflow_triggerer_log": 8794,
}


class Ports(BaseModel):
    """The ports of a stack, on the address that it listens on."""

    model_config = ConfigDict(frozen=True)

    minio: int
    minio_console: int
    kafka: int
    kafka_controller: int
    postgres: int
    spark_master: int
    spark_master_ui: int
    router_metrics: int
    spark_worker_ui: int
    spark_connect: int
    spark_connect_ui: int
    airflow: int
    airflow_scheduler_health: int
    airflow_worker_log: int
    airflow_triggerer_log: int


def ports_from(base: int | None) -> Ports:
    """The usual ports, or `base`, `base + 1`, … in the order of `USUAL_PORTS`."""
    if base is None:
        return Ports(**USUAL_PORTS)
    return Ports(**{name: base + offset for offset, name in enumerate(USUAL_PORTS)})


def _absolute(path: Path) -> Path:
    """The path from the root, where `~` is the user's home if it is known which that is.

    Links in it stay: a folder of contracts may be one that is turned to the next version.
    """
    # `Path.expanduser` raises where no home is known, and this is asked at import.
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111


class KafkaLogin(BaseModel):
    """Where Kafka is, and as whom one signs in there."""

    model_config = ConfigDict(frozen=True)

    bootstrap: str
    """`host:port`."""
    user: str | None = None
    """None: the broker asks nobody who they are."""
    password: SecretStr = SecretStr("")
    ca_file: Path | None = None
    """Whose certificates the broker's has to be one of; None: the connection is plain."""

    @property
    def protocol(self) -> str:
        """What Kafka's clients call `security.protocol`, for one who signs in."""
        return "SASL_PLAINTEXT" if self.ca_file is None else "SASL_SSL"


class Settings(BaseSettings):
    """Everything that differs between two stacks."""

    # What is wrong with a setting is told without its value, which may be a secret.
    model_config = SettingsConfigDict(env_prefix="SLUICE_", extra="ignore", frozen=True, hide_input_in_errors=True)

    stack: Literal["processes", "compose"] = "processes"
    """Whether the servers are processes that `sluice up` starts here, or containers of compose/compose.yaml."""
    home: Path = PROJECT / ".sluice"
    """Where a stack keeps its data, logs and secrets."""
    cache: Path = _absolute(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sluice")
    """Servers that were built or fetched once, shared by all stacks of a user."""
    port_base: int | None = Field(default=None, ge=1024, le=65000)
    """First of a block of ports; the usual ports when unset."""
    contracts_dir: Path = PROJECT / "contracts" / "datasets"

    listen: str = HOST
    """Address that the servers of the stack listen on."""
    own_address: str = HOST
    """Host name by which Spark's parts reach the one that reads this setting."""
    minio_address: str | None = None
    """`host:port` by which clients reach MinIO, where something stands between; its own port when unset."""
    minio_console_address: str | None = None
    """The same of MinIO's page for people."""
    kafka_address: str | None = None
    """The same of the Kafka broker; it tells its clients to come by this address."""
    kafka_outside_address: str | None = None
    """`host:port` that the broker tells those who come to its second listener, from outside the containers' network.
    None: it has no second listener."""
    postgres_address: str | None = None
    """The same of Postgres."""
    postgres_name: str | None = None
    """Host name that Postgres' certificate has to be for, where `postgres_address` is a container's IP address, which
    is in no certificate. None: the host of the address."""
    redis_address: str | None = None
    """The same of Celery's queue, which makes the Celery executor run Airflow's tasks. None: the scheduler does."""
    spark_master_address: str | None = None
    """The same of the standalone cluster's master."""
    spark_master_page: str | None = None
    """URL of its page for people, where its workers and applications are at names that a browser does not know: their
    pages are then behind it. None: each is at its own address."""
    spark_connect_address: str | None = None
    """The same of the Spark Connect server."""
    spark_remote: SecretStr | None = None
    """`sc://host:port/;use_ssl=true;token=…`: a Spark Connect server elsewhere does the jobs, in place of this stack's
    own Spark. None, or empty: the stack has its own."""
    airflow_address: str | None = None
    """The same of Airflow's api-server, for the other parts."""
    airflow_page: str | None = None
    """URL of Airflow's pages for people, where it differs from that address."""

    ca_file: Path | None = None
    """Certificate of the authority that vouches for MinIO, Kafka, Postgres and Spark Connect, as PEM. Every client then
    speaks TLS to them and checks their certificates against it. None: all connections are plain."""

    s3_region: str = "us-east-1"
    postgres_superuser: str = "sluice"

    minio_root_user: str = "sluice-admin"
    minio_root_password: SecretStr = SecretStr("")
    ingest_access_key: str = "sluice-ingest"
    ingest_secret_key: SecretStr = SecretStr("")
    spark_access_key: str = "sluice-spark"
    spark_secret_key: SecretStr = SecretStr("")
    consumers_access_key: str = "sluice-consumers"
    consumers_secret_key: SecretStr = SecretStr("")
    reader_access_key: str = "sluice-reader"
    reader_secret_key: SecretStr = SecretStr("")
    """Reads silver and gold, nothing else; `sluice sql` signs in with it."""

    postgres_password: SecretStr = SecretStr("")
    """Of the superuser; used by the bootstrap alone."""
    ledger_password: SecretStr = SecretStr("")
    """Postgres role `ledger`: the schema of that name in database `lake`."""
    catalog_password: SecretStr = SecretStr("")
    """Postgres role `catalog`: Iceberg's JDBC catalog in database `lake`."""
    reader_password: SecretStr = SecretStr("")
    """Postgres role `reader`: may read the catalog's tables, nothing else."""
    airflow_db_password: SecretStr = SecretStr("")
    """Postgres role `airflow`: database `airflow`."""

    kafka_admin_password: SecretStr = SecretStr("")
    """Kafka user `admin`, who may do anything: the broker itself, and the bootstrap. For the others see
    `consumers.grants`."""
    kafka_minio_password: SecretStr = SecretStr("")
    kafka_router_password: SecretStr = SecretStr("")
    kafka_listener_password: SecretStr = SecretStr("")
    kafka_reconcile_password: SecretStr = SecretStr("")
    kafka_operator_password: SecretStr = SecretStr("")
    """Kafka user `operator`: a person's commands."""

    spark_connect_token: SecretStr = SecretStr("")
    """What a client shows the Spark Connect server, where it speaks TLS."""

    redis_password: SecretStr = SecretStr("")
    """Of Celery's queue."""

    airflow_admin_user: str = "admin"
    airflow_admin_password: SecretStr = SecretStr("")
    airflow_service_user: str = "sluice-listener"
    airflow_service_password: SecretStr = SecretStr("")
    airflow_fernet_key: SecretStr = SecretStr("")
    airflow_jwt_secret: SecretStr = SecretStr("")
    airflow_secret_key: SecretStr = SecretStr("")

    airflow_connections_file: Path | None = None
    """File from which Airflow takes its connections; None: they are in its processes' environment."""
    airflow_secrets_backend: str | None = None
    """Class of an Airflow secrets backend that has the connections instead, for example of a vault."""
    airflow_secrets_backend_kwargs: str = "{}"
    """Its arguments, as a JSON object."""

    tlc_base_url: str = "https://d37ci6vzurychx.cloudfront.net/trip-data"
    """Where the TLC publishes its months."""

    kafka_retention_days: int = Field(default=7, ge=1, le=MOST_DAYS)
    """How long Kafka keeps messages at least, and so how long a part may be down without reconcile having to help."""
    dead_letter_retention_days: int = Field(default=365, ge=1, le=MOST_DAYS)
    """The same of dead letters: how long a person has to look at one."""
    airflow_retention_days: int = Field(default=90, ge=1, le=MOST_DAYS)
    """How long Airflow keeps runs, and with them the logs of tasks. Longer than Kafka keeps messages: that a message
    was handed on already is told by its run."""

    spark_cores: int = Field(default_factory=lambda: os.cpu_count() or 2, ge=1)
    """Cores of the warm Spark Connect application."""
    spark_driver_memory: str = "1g"
    spark_executor_memory: str = "2g"
    spark_worker_memory: str = "6g"
    """What a worker of the standalone cluster offers to executors."""

    @model_validator(mode="after")
    def _runs_outlive_messages(self) -> Self:
        if self.airflow_retention_days <= self.kafka_retention_days:
            raise ValueError(
                f"SLUICE_AIRFLOW_RETENTION_DAYS is {self.airflow_retention_days}; more than the "
                f"{self.kafka_retention_days} of SLUICE_KAFKA_RETENTION_DAYS were expected"
            )
        if self.dead_letter_retention_days < self.kafka_retention_days:
            raise ValueError(
                f"SLUICE_DEAD_LETTER_RETENTION_DAYS is {self.dead_letter_retention_days}; at least the "
                f"{self.kafka_retention_days} of SLUICE_KAFKA_RETENTION_DAYS were expected"
            )
        return self

    @cached_property
    def ports(self) -> Ports:
        """The ports of this stack."""
        return ports_from(self.port_base)

    @property
    def s3_endpoint(self) -> str:
        """`host:port` of MinIO."""
        return self.minio_address or f"{HOST}:{self.ports.minio}"

    @property
    def s3_url(self) -> str:
        """URL of MinIO."""
        return f"{self._web}://{self.s3_endpoint}"

    @property
    def minio_console_url(self) -> str:
        """MinIO's page for people."""
        return f"{self._web}://{self.minio_console_address or f'{HOST}:{self.ports.minio_console}'}"

    @property
    def kafka_bootstrap(self) -> str:
        """`host:port` of the Kafka broker."""
        return self.kafka_address or f"{HOST}:{self.ports.kafka}"

    @property
    def postgres_server(self) -> str:
        """`host:port` of Postgres."""
        return self.postgres_address or f"{HOST}:{self.ports.postgres}"

    @property
    def kafka_passwords(self) -> dict[str, SecretStr]:
        """Every user of Kafka with its password."""
        return {
            "admin": self.kafka_admin_password,
            "minio": self.kafka_minio_password,
            "router": self.kafka_router_password,
            "listener": self.kafka_listener_password,
            "reconcile": self.kafka_reconcile_password,
            "operator": self.kafka_operator_password,
        }

    def kafka_login(self, user: str) -> KafkaLogin:
        """How a user signs in to Kafka."""
        return KafkaLogin(
            bootstrap=self.kafka_bootstrap, user=user, password=self.kafka_passwords[user], ca_file=self.ca_file
        )

    @field_validator("cache", "contracts_dir")
    @classmethod
    def _from_the_root(cls, value: Path) -> Path:
        # Servers have / as their directory.
        return _absolute(value)

    @field_validator("spark_remote")
    @classmethod
    def _address_of_spark(cls, value: SecretStr | None) -> SecretStr | None:
        return SecretStr(remotes.checked(value.get_secret_value())) if value else None

    @property
    def spark_connect_secret_url(self) -> str:
        """Address of the Spark Connect server; may hold its token, so never log it."""
        if self.spark_remote is not None:
            return self.spark_remote.get_secret_value()
        own = f"sc://{self.spark_connect_address or f'{HOST}:{self.ports.spark_connect}'}"
        if self.ca_file is None:
            return own
        return f"{own}/;use_ssl=true;token={self.spark_connect_token.get_secret_value()}"

    @property
    def spark_connect_url(self) -> str:
        """The same without a token, to be shown."""
        return remotes.shown(self.spark_connect_secret_url)

    @property
    def spark_master_url(self) -> str:
        """Address of the standalone master."""
        return f"spark://{self.spark_master_address or f'{HOST}:{self.ports.spark_master}'}"

    @property
    def spark_page_conf(self) -> dict[str, str]:
        """Spark properties of each master, worker and application, by which their pages link to each other.

        All must have the same: https://spark.apache.org/docs/4.1.0/configuration.html#spark-ui
        """
        if self.spark_master_page is None:
            return {}
        return {"spark.ui.reverseProxy": "true", "spark.ui.reverseProxyUrl": self.spark_master_page}

    @property
    def airflow_url(self) -> str:
        """Address of the Airflow UI and REST API."""
        return f"http://{self.airflow_address or f'{HOST}:{self.ports.airflow}'}"

    @property
    def redis_url(self) -> str | None:
        """Connection URL of Celery's queue; holds its password, so never log it."""
        if self.redis_address is None:
            return None
        return f"redis://:{self.redis_password.get_secret_value()}@{self.redis_address}/0"

    def postgres_url(self, role: str, database: str, driver: str = "postgresql") -> str:
        """Connection URL of a role; holds the role's password, so never log it."""
        password = {
            self.postgres_superuser: self.postgres_password,
            "ledger": self.ledger_password,
            "catalog": self.catalog_password,
            "reader": self.reader_password,
            "airflow": self.airflow_db_password,
        }[role].get_secret_value()
        server, options = self.postgres_server, self.postgres_options
        if self.ca_file is not None and self.postgres_name is not None:
            # libpq then goes to the IP address, and holds the certificate against the name.
            ip, _, port = server.rpartition(":")
            server, options = f"{self.postgres_name}:{port}", f"{options}&hostaddr={ip}"
        return f"{driver}://{role}:{password}@{server}/{database}{options}"

    @property
    def postgres_options(self) -> str:
        """How a connection to Postgres is encrypted, as the end of its URL; libpq and Java's driver know the same."""
        if self.ca_file is None:
            return ""
        return f"?sslmode=verify-full&sslrootcert={quote(str(self.ca_file))}"

    @property
    def _web(self) -> str:
        return "http" if self.ca_file is None else "https"


def secrets_file(home: Path) -> Path:
    """The file with a stack's passwords: what `SLUICE_SECRETS_FILE` names, or the one in its home."""
    return Path(os.environ.get("SLUICE_SECRETS_FILE") or home / SECRETS_FILE)


def load_settings() -> Settings:
    """The settings by the environment and the secrets file, if there is one; read anew where either has changed.

    Raises:
        UsageError: a variable has no such value; names the variables, and no value, which may be a password. Or the
            home or the secrets file cannot be read.
    """
    named = os.environ.get("SLUICE_HOME") or str(PROJECT / ".sluice")
    try:
        home = Path(named).expanduser().resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead to themselves, or a user without a home
        raise _unreadable("SLUICE_HOME", named, error) from error
    secrets = secrets_file(home)
    try:
        content = secrets.read_bytes() if secrets.is_file() else None
    except OSError as error:
        variable = "SLUICE_SECRETS_FILE" if os.environ.get("SLUICE_SECRETS_FILE") else "SLUICE_HOME"
        raise _unreadable(variable, str(secrets), error) from error
    given = tuple(sorted((name, value) for name, value in os.environ.items() if name.upper().startswith("SLUICE_")))
    return _settings(home, secrets, content, given)


def _unreadable(variable: str, path: str, error: OSError | RuntimeError) -> UsageError:
    if isinstance(error, PermissionError):
        return UsageError(
            f"{path} cannot be read: it belongs to the user who started the stack. Run the command as that user, or "
            f"point {variable} at what is your own."
        )
    why = getattr(error, "strerror", None) or error
    return UsageError(f"{path} cannot be read: {why}. Point {variable} elsewhere, or unset it.")


# 30 ms, and each task asks several times; forked ones find what was read before.
@lru_cache(maxsize=4)
def _settings(home: Path, secrets: Path, content: bytes | None, given: tuple[tuple[str, str], ...]) -> Settings:
    """Settings that depend on nothing else than the arguments, whether or not they are passed on.

    Relative paths are taken from the folder that this process was in when it first asked.
    """
    try:
        return Settings(_env_file=secrets, home=home)  # type: ignore[call-arg]
    except ValidationError as error:
        told = "; ".join(_told(*map(str, each["loc"]), message=each["msg"]) for each in error.errors())
        raise UsageError(f"{told}. Put it right in the environment or in {secrets}, or unset it.") from None


def _told(*names: str, message: str) -> str:
    # What several settings are about together names them itself.
    return f"{'_'.join(('SLUICE', *names)).upper()}: {message}" if names else message.removeprefix("Value error, ")
