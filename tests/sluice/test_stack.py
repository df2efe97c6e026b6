"""Whose stack may be started and stopped; nothing is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import SetupError
from sluice import stack
from sluice.secrets import ensure_secrets


@pytest.mark.parametrize("command", [stack.up, stack.down, stack.start_storage])
def test_stack_of_another_user_is_neither_started_nor_stopped_nor_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., object]
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    path, owner = ensure_secrets(tmp_path), os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 54_321)
    whose = stack._user_name(owner)
    with pytest.raises(SetupError, match=f"{path} belongs to {whose}, and you are user {owner + 54_321}. Run .* as"):
        command(print)
    assert list(tmp_path.iterdir()) == [path]
