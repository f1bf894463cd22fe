"""The digest of the project's own code, and a folder that holds nothing but it: what Ray workers are given to run."""

from __future__ import annotations

import hashlib
import shutil
from functools import cache
from pathlib import Path

PACKAGES = ("manifests", "stages", "pipeline")
_CACHES = "__pycache__"


@cache
def code_digest() -> str:
    """Return 32 hex digits over every file of the three packages that this process imports from."""
    digest = hashlib.blake2b(digest_size=16)
    for name, path in _files():
        body = path.read_bytes()
        digest.update(f"{name}:{len(body)};".encode())
        digest.update(body)
    return digest.hexdigest()


def copy_code(folder: Path) -> None:
    """Copy the three packages, without caches, into an empty folder."""
    for name, path in _files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _files() -> list[tuple[str, Path]]:
    root = Path(__file__).resolve().parent.parent
    found = [
        path
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.is_file() and _CACHES not in path.parts
    ]
    return sorted((path.relative_to(root).as_posix(), path) for path in found)
