"""What the documents tell people to type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer.main

from contracts.settings import PROJECT
from sluice.cli import app

DOCUMENTS = (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")))

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def shell_lines(document: Path) -> list[str]:
    """The lines of a document's `sh` blocks, without their comments."""
    blocks = (body for language, body in _FENCED.findall(document.read_text("utf-8")) if language == "sh")
    lines = (line.partition("  #")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


def prose(document: Path) -> str:
    """A document without its fenced blocks."""
    return _FENCED.sub("", document.read_text("utf-8"))


def inline_code(document: Path) -> list[str]:
    """What stands between backticks in a document's text; a line break in it is a space."""
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose(document))]


def sluice_commands(document: Path) -> list[str]:
    """The commands `sluice …` of a document's blocks and text, each once."""
    found = [*shell_lines(document), *inline_code(document)]
    return list(dict.fromkeys(line for line in found if line.startswith("sluice ")))


def docker_commands(document: Path) -> list[str]:
    """The commands `docker …` of a document's blocks and text, each once; of a line of several, each by itself."""
    lines = [*shell_lines(document), *inline_code(document)]
    found = (part.strip() for line in lines for part in re.split(r"&&|\||;", line))
    return list(dict.fromkeys(part for part in found if part.startswith("docker ")))


def resolve(command: str) -> tuple[Any, list[str]]:
    """The command, or group of commands, that a line `sluice …` names, and the words after its name.

    Raises:
        KeyError: there is no command of that name.
    """
    found: Any = typer.main.get_command(app)
    words = shlex.split(command)[1:]
    if words[:1] == ["--stack"]:
        words = words[2:]
    while words and hasattr(found, "commands"):
        found, words = found.commands[words[0]], words[1:]
    return found, words
