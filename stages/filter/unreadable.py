"""What is said of a file that is to be Parquet and cannot be read as such."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa

_MAGIC = b"PAR1"
_HEAD_BYTES = 512
_KINDS = (
    (b"\x1f\x8b", "packed with gzip"),
    (b"BZh", "packed with bzip2"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd"),
    (b"\xfd7zXZ", "packed with xz"),
    (b"PK\x03\x04", "a zip archive"),
    (b"ORC", "an ORC file"),
    (b"ARROW1", "an Arrow file"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)
_PAGES = (b"<!doctype html", b"<html")
_NO_TEXT = frozenset(range(32)) - frozenset(b"\t\n\r\f")


def name_of(file: BinaryIO) -> str:
    """Return what to call an open file in an error."""
    return str(getattr(file, "path", None) or getattr(file, "name", "metadata file"))


@contextmanager
def as_parquet(file: BinaryIO, error_type: type[ValueError], name: str = "") -> Iterator[None]:
    """Give what pyarrow says about a damaged file our words; trouble of the storage passes through.

    Args:
        file: The open file.
        error_type: What is raised in place of pyarrow's errors.
        name: What to call the file; empty: by its own name.
    """
    try:
        yield
    except MemoryError as error:  # pyarrow's too
        raise error_type(
            f"{name or name_of(file)}: its rows need more memory than there is ({error}); check that the file belongs "
            "to this source, or write it anew with smaller row groups"
        ) from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise error_type(_told(file, name, error)) from error
    except OSError as error:
        if type(error) is not OSError or error.errno is not None:
            raise
        raise error_type(_told(file, name, error)) from error


def _told(file: BinaryIO, name: str, error: Exception) -> str:
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    shown = f"{name or name_of(file)}: not readable as Parquet"
    if not head or head.startswith(_MAGIC):
        return f"{shown} ({' '.join(str(error).split())}); fetch it again"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGES):
        return f"{shown} (it is an HTML page, perhaps what a server said instead of the file); fetch it again"
    return f"{shown} (it looks like {looks_like(head)}); check that the file belongs to this source"


def looks_like(head: bytes) -> str:
    """Say what a file is that begins with these bytes, in words."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    known = next((what for magic, what in _KINDS if head.startswith(magic) or start.startswith(magic)), "")
    return known or ("other bytes" if _NO_TEXT & set(head) else "text")
