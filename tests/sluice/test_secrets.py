"""The file of passwords."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from contracts.settings import Settings, load_settings
from sluice.secrets import ensure_secrets, write_private


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    return tmp_path


def _secrets(settings: Settings) -> dict[str, str]:
    values = settings.model_dump()
    return {name: value.get_secret_value() for name, value in values.items() if hasattr(value, "get_secret_value")}


def test_first_start_makes_every_password_and_each_is_another(home: Path) -> None:
    ensure_secrets(home)
    found = _secrets(load_settings())
    assert all(found.values())
    assert len(set(found.values())) == len(found)


def test_file_is_readable_by_its_owner_alone(home: Path) -> None:
    assert ensure_secrets(home).stat().st_mode & 0o777 == 0o600


def test_second_start_keeps_the_passwords(home: Path) -> None:
    ensure_secrets(home)
    before = _secrets(load_settings())
    ensure_secrets(home)
    assert _secrets(load_settings()) == before


def test_password_that_is_missing_is_added_to_those_that_are_there(home: Path) -> None:
    path = ensure_secrets(home)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[1:]) + "\n")
    ensure_secrets(home)
    assert all(_secrets(load_settings()).values())
    assert set(lines[1:]) <= set(path.read_text().splitlines())


def test_file_that_lacks_nothing_is_not_written_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ensure_secrets(home).stat()
    monkeypatch.setattr("sluice.secrets.write_private", lambda *_: pytest.fail("nothing is missing"))
    assert ensure_secrets(home).stat().st_ino == before.st_ino


def test_file_that_others_may_read_is_made_its_owner_s_alone(home: Path) -> None:
    ensure_secrets(home).chmod(0o644)
    assert ensure_secrets(home).stat().st_mode & 0o777 == 0o600


def test_private_file_is_the_old_one_whole_when_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_private(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_private_file_is_never_seen_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_private(path, "old")
    sync, seen = os.fsync, []

    def look(descriptor: int) -> None:
        seen.append(path.read_text())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_private(path, "new")
    assert (seen, path.read_text()) == (["old"], "new")
    assert path.stat().st_mode & 0o777 == 0o600


def test_environment_wins_over_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_secrets(home)
    monkeypatch.setenv("SLUICE_SPARK_SECRET_KEY", "from-the-environment")
    assert load_settings().spark_secret_key.get_secret_value() == "from-the-environment"


def test_one_process_follows_the_file_and_the_environment_when_they_change(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ensure_secrets(home)
    before = load_settings()
    assert load_settings() == before
    path.write_text(path.read_text().replace(before.ledger_password.get_secret_value(), "another"))
    assert load_settings().ledger_password.get_secret_value() == "another"
    monkeypatch.setenv("SLUICE_PORT_BASE", "31000")
    assert load_settings().port_base == 31000


def test_settings_do_not_print_their_secrets(home: Path) -> None:
    ensure_secrets(home)
    settings = load_settings()
    assert not any(secret in repr(settings) for secret in _secrets(settings).values())
