"""The one file that holds a stack's passwords, made at the first start with mode 0600, and the files made of it."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from contracts.settings import SECRETS_FILE, Settings

SECRETS = tuple(name for name, field in Settings.model_fields.items() if field.annotation is SecretStr)
"""Names of the settings that are secret."""

# Airflow's Fernet key has a form of its own: 32 bytes in URL-safe base64.
_FERNET = "airflow_fernet_key"


def ensure_secrets(home: Path) -> Path:
    """Make the passwords that the secrets file of `home` lacks; those that are there stay.

    Returns:
        The file, with one `SLUICE_<NAME>=<value>` a line, readable by its owner alone.
    """
    path = home / SECRETS_FILE
    home.mkdir(parents=True, exist_ok=True)
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    have = {line.partition("=")[0] for line in lines}
    missing = [name for name in SECRETS if f"SLUICE_{name.upper()}" not in have]
    if missing:
        lines += [f"SLUICE_{name.upper()}={_new_secret(name)}" for name in missing]
        write_private(path, "\n".join(lines) + "\n")
    elif path.stat().st_mode & 0o077:
        path.chmod(0o600)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read; a crash or a full disk leaves the old file or the new one.

    Raises:
        OSError: it cannot be written; what was there is there still.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        # It may hold passwords, and nobody would look for them there.
        draft.unlink(missing_ok=True)
        raise


def _new_secret(name: str) -> str:
    if name == _FERNET:
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    # Hexadecimal: safe in URLs, shells and property files alike. 40 characters is MinIO's upper limit for a key.
    return secrets.token_hex(20)
