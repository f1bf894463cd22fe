"""Where every sample lies in its tar: one pass over the headers, so that any sample can be read by itself.

Members with one key that follow one another are a sample, as webdataset reads them: the key is the name up to the first
dot of its last part, what follows is the suffix. Pictures are ``img_content`` (as released here and by RS5M) or
``jpg``, ``png``, ``jpeg``, ``webp``; captions are ``caption`` or ``txt``. Other members are left alone.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PICTURES = ("img_content", "jpg", "png", "jpeg", "webp")
CAPTIONS = ("caption", "txt")

_ROW = np.dtype(
    [
        ("tar", "i4"),
        ("picture", "i8"),
        ("picture_bytes", "i8"),
        ("caption", "i8"),
        ("caption_bytes", "i8"),
        ("key", "u8"),
    ]
)


class ShardError(Exception):
    """Tars that cannot be trained from: one line that says which, and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """The samples of some tars, in their order there.

    Attributes:
        tars: The files.
        rows: One row a sample: number of its tar, offset and length in bytes of picture and caption, hash of its key;
            48 bytes each, so 5 million pairs take 240 MB.
        incomplete: Samples left out because they have no picture or no caption.
    """

    tars: tuple[Path, ...]
    rows: NDArray[np.void]
    incomplete: int

    def __len__(self) -> int:
        return len(self.rows)

    def per_tar(self) -> list[int]:
        """Return the number of samples of each tar."""
        return [int(n) for n in np.bincount(self.rows["tar"], minlength=len(self.tars))]

    def select(self, places: NDArray[np.int64]) -> Members:
        """Return only the samples at ``places``, in that order."""
        return Members(self.tars, self.rows[places], self.incomplete)


def read_members(tars: Sequence[Path]) -> Members:
    """Return the samples of the tars, in order.

    Raises:
        ShardError: If a tar cannot be read to its end.
    """
    rows: list[NDArray[np.void]] = []
    incomplete = 0
    for number, path in enumerate(tars):
        found = list(_samples(path))
        complete = [sample for sample in found if sample is not None]
        rows.append(np.array([(number, *sample) for sample in complete], dtype=_ROW))
        incomplete += len(found) - len(complete)
    return Members(tuple(tars), np.concatenate(rows) if rows else np.empty(0, _ROW), incomplete)


def _samples(path: Path) -> Iterator[tuple[int, int, int, int, int] | None]:
    """Yield picture and caption of every sample and the hash of its key; None where one of the two is not there."""
    key, parts = "", dict[str, tuple[int, int]]()
    for name, offset, length in _files(path):
        folder, _, last = name.rpartition("/")
        stem, _, suffix = last.partition(".")
        if f"{folder}/{stem}" != key:
            if parts:
                yield _sample(key, parts)
            key, parts = f"{folder}/{stem}", {}
        parts[suffix.lower()] = (offset, length)
    if parts:
        yield _sample(key, parts)


def _sample(key: str, parts: dict[str, tuple[int, int]]) -> tuple[int, int, int, int, int] | None:
    picture = next((parts[suffix] for suffix in PICTURES if suffix in parts), None)
    caption = next((parts[suffix] for suffix in CAPTIONS if suffix in parts), None)
    if picture is None or caption is None:
        return None
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8, person=b"rs5m-key-1").digest()
    return (*picture, *caption, int.from_bytes(digest, "little"))


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and length of every file in a tar."""
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it keeps all it has seen: gigabytes for a large tar
                if member.offset_data + member.size > size:
                    raise ShardError(f"{path} ends in the middle of {member.name}: get it again, or leave it out")
                if member.isfile():
                    yield member.name, member.offset_data, member.size
    except (tarfile.TarError, OSError) as error:
        raise ShardError(f"{path} is no readable tar ({error}): get it again, or leave it out") from error
