"""Shell text that says what it is told and nothing else: quoting, job options with their comments, refusals."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence

from pipeline.errors import UserError

_BARE = re.compile(r"[A-Za-z0-9_./:,=+@%|&()\[\]*-]+")
_EXPANDABLE = re.compile(r"(?:[A-Za-z0-9_./:,=+@-]|\$[A-Za-z_][A-Za-z0-9_]*|\$\{[A-Za-z_][A-Za-z0-9_]*\})+")
_COMMENT_COLUMN = 44


def quoted(text: str) -> str:
    """Return one word of a shell, for data. Raises UserError at a line break or another control character."""
    return shlex.quote(_printable(text))


def expandable(key: str, text: str) -> str:
    """Return a double-quoted word in which ``$NAME`` is expanded where the job runs, and nothing else is.

    Raises:
        UserError: If it holds anything but a path's usual characters and names of variables.
    """
    if not _EXPANDABLE.fullmatch(text):
        raise UserError(f"{key} = {text!r}: write a path of letters, digits, ./_-+=@:, and variables as $NAME")
    return f'"{text}"'


def option(name: str, value: str, comment: str = "") -> str:
    """Return a line of options for sbatch; nothing expands there, and a value with spaces stands in quotes.

    Raises:
        UserError: If the value cannot be written there.
    """
    if '"' in value or "\\" in value:
        raise UserError(f"--{name}={value}: a quote or a backslash cannot be handed to sbatch; use another name")
    text = f"--{name}={value}" if _BARE.fullmatch(_printable(value)) else f'--{name}="{value}"'
    return noted(f"#SBATCH {text}", comment)


def raw_option(text: str) -> str:
    """Return a line of options as the user wrote it. Raises UserError."""
    if not text.startswith("-"):
        raise UserError(f"cluster.extra: {text!r} is no option of sbatch: write it as --name=value")
    return noted(f"#SBATCH {_printable(text)}", "cluster.extra")


def noted(line: str, comment: str) -> str:
    """Return a line with a comment beside it."""
    return f"{line:<{_COMMENT_COLUMN}}  # {comment}" if comment else line


def pattern(path: str) -> str:
    """Return a path for use in a file name pattern of Slurm, where ``%`` stands for something."""
    return path.replace("%", "%%")


def clock(hours: float) -> str:
    """Return a time limit as HH:MM:SS, in whole minutes: Slurm knows no shorter ones."""
    minutes = max(1, math.ceil(hours * 60 - 1e-9))
    return f"{minutes // 60:02}:{minutes % 60:02}:00"


def array(name: str, words: Sequence[str]) -> list[str]:
    """Return the lines of a shell array; each item is a line of words that are quoted already."""
    return [f"{name}=(", *(f"    {line}" for line in words), ")"]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise UserError(f"{text!r} holds a line break or another control character: job files cannot")
    return text
