"""What a workdir's storage is asked for, and the errors it answers with: one set of words for all kinds of stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

TEMPORARY_PREFIX = ".tmp-"


class AlreadyThereError(Exception):
    """A create-only object exists already, with other bytes."""


class StoreError(Exception):
    """A store did not carry out an operation though it was asked again and again: run again when it answers.

    It is no OSError: whoever takes an OSError for a damaged file must not take a store that is away for one.
    """


class StoreRefusedError(StoreError):
    """A store refuses: no such bucket, no right, no credentials, no exclusive create. Asking again would not help."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored object.

    Attributes:
        path: Below the workdir.
        bytes: Its size.
        stamp: Another one when the object was written anew: time of change and inode of a file, ETag of an object;
            empty where the store tells none. It says nothing between two stores.
    """

    path: str
    bytes: int
    stamp: str = field(default="", compare=False)


class Objects(Protocol):
    """Objects by path below one root. FileNotFoundError says that one is not there, and nothing else."""

    def read(self, path: str) -> bytes:
        """Return a whole object."""

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``; fewer at the object's end, none beyond it."""

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open an object for seekable reading."""

    def size(self, path: str) -> int | None:
        """Return an object's size in bytes, None if it is not there."""

    def scan(self, folder: str) -> Iterator[Entry]:
        """Yield all objects below a folder as they are met, in no particular order."""

    def stamp_of(self, path: str, data: bytes) -> str:
        """Return the stamp that a listing shows of an object just created with ``data``; empty: not known."""

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly below a folder, in no particular order."""

    def create(self, path: str, data: bytes) -> None:
        """Write a new object. Raises AlreadyThereError if one of other bytes is there."""

    def replace(self, path: str, data: bytes) -> None:
        """Write an object whole, whether or not it exists."""

    def put(self, local: Path, path: str, *, copied: bool) -> None:
        """Make an object of a local file; ``copied`` says that the local file may change afterwards."""

    def remove(self, path: str) -> None:
        """Remove an object, if it is there."""

    def rename(self, path: str, new: str) -> None:
        """Rename an object, replacing ``new``."""
