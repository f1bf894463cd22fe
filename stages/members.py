"""What every folder and archive of images is to its readers: a list of members, and their bytes within a bound.

Names come from strangers: links, devices, hidden files and names that are absolute or climb out with ``..`` are ignored
and counted, and nothing is ever written to a name from an archive.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Problem = Literal["", "too_large", "gone", "damaged"]


class ArchiveError(Exception):
    """A folder or archive that cannot be read: one line that says what was tried and what to do."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive.

    Attributes:
        path: Its path, parts joined by "/", from the archive's root.
        bytes: Its size, unpacked, as the archive declares it.
    """

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Piece:
    """One member as read.

    Attributes:
        path: Its path.
        body: Its bytes; empty where there is a problem.
        problem: too_large: more bytes than allowed, and not read; gone: no such member; damaged: cannot be unpacked.
        detail: The problem in words, or the size in bytes of what is too large.
    """

    path: str
    body: bytes = b""
    problem: Problem = ""
    detail: str = ""


class Archive(ABC):
    """A folder or archive, open.

    Attributes:
        name: Its own name without a suffix.
        ignored: Members that were passed over, known once it is listed.
        streamed: Whether each `read_many` costs a pass over the whole archive.
    """

    streamed = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.ignored = 0
        self._members: dict[str, int] | None = None
        self._places: dict[str, Any] = {}

    def members(self) -> list[Member]:
        """Return the files, sorted by path; of two with one path the later counts, as when unpacking.

        Raises:
            ArchiveError: If it is damaged.
        """
        return [Member(path, size) for path, size in sorted(self._listed().items())]

    def read(self, path: str, max_bytes: int) -> Piece:
        """Read one member; see `read_many`."""
        return next(iter(self.read_many([path], max_bytes)))

    def read_many(self, paths: Collection[str], max_bytes: int) -> Iterator[Piece]:
        """Read members, each once, in an order that is cheap for this kind of archive.

        Args:
            paths: Which.
            max_bytes: A member that declares or unpacks to more is not read.

        Raises:
            ArchiveError: If the archive as a whole is damaged.
        """
        listed, wanted = self._listed(), list[str]()
        for path in dict.fromkeys(paths):
            size = listed.get(path)
            if size is None:
                yield Piece(path, problem="gone", detail="is not in the archive")
            elif size > max_bytes:
                yield Piece(path, problem="too_large", detail=str(size))
            else:
                wanted.append(path)
        if wanted:
            yield from self._read(wanted)

    def _listed(self) -> dict[str, int]:
        if self._members is None:
            self._members = {}
            for name, size, place in self._scan():
                path = inside(name)
                if path is None or size is None:
                    self.ignored += 1
                    continue
                self.ignored += path in self._members
                self._members[path], self._places[path] = size, place
        return self._members

    @abstractmethod
    def _scan(self) -> Iterator[tuple[str, int | None, Any]]:
        """Yield (name, size, place) of every entry but folders; no size for what is no plain file.

        The place is what the archive needs to find the entry again, kept in ``_places``.
        """

    @abstractmethod
    def _read(self, paths: list[str]) -> Iterator[Piece]:
        """Read listed members that are small enough."""


def inside(name: str) -> str | None:
    """Return an entry's name as a path below the archive's root.

    None for a name that is absolute, climbs out, is hidden (a part begins with a dot, or is ``__MACOSX``) or is no
    UTF-8 text.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    odd = name.startswith("/") or "\0" in name or any(part.startswith(".") or part == "__MACOSX" for part in parts)
    if odd or not parts:
        return None
    try:
        return "/".join(parts).encode().decode()
    except UnicodeError:
        return None
