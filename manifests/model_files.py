"""What of a model lies on this machine, and what it is: local files, the hub's cache and open_clip's, without torch.

Nothing here downloads: a model that is not at hand is None, and whoever loads it fetches it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from manifests.open_clip_tags import tag_source

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_URL_CACHE = "~/.cache/clip"  # where open_clip keeps what it fetches from plain addresses
_SAFE_NAME, _NAME = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"  # open_clip.constants


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file, made once a process while its size, time and inode stay.

    Raises:
        OSError: It cannot be read.
    """
    stat = path.stat()
    return _sha256_of(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)


def folder_content(folder: Path, patterns: Sequence[str] = ("*",)) -> dict[str, tuple[int, str]]:
    """Return size in bytes and sha256 of the files directly in a folder, hidden ones aside, by name in order.

    Raises:
        OSError: The folder or a file cannot be read.
    """
    found = {path for path in folder.iterdir() if any(path.match(pattern) for pattern in patterns)}
    paths = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    return {path.name: (path.stat().st_size, file_sha256(path)) for path in paths}


def hub_snapshot(repository: str, revision: str = "") -> Path | None:
    """Return the folder in the hub's cache that holds a revision (its name is the commit), or None.

    Args:
        repository: ``ORG/NAME``.
        revision: Branch, tag or commit; empty: what the main branch was when it was last fetched.

    Raises:
        ValueError: The hub has no repositories of such names.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
    except HFValidationError:
        raise ValueError(f"{repository!r} cannot be the name of a model of the hub") from None
    except OSError:
        return None


def hub_commit(repository: str, revision: str = "") -> str | None:
    """Return the commit that a revision is on this machine; None: not at hand, so that the hub will say.

    Raises:
        ValueError: The hub has no repositories of such names.
    """
    if _COMMIT.fullmatch(revision):
        return revision
    folder = hub_snapshot(repository, revision)
    return folder.name if folder else None


def tag_weights(model: str, tag: str) -> Path | None:
    """Return the file that open_clip loads for a tag; None: not at hand, or no tag."""
    source = tag_source(model, tag)
    if source is None:
        return None
    if not source.hub:
        path = Path(_URL_CACHE).expanduser() / PurePosixPath(source.url).name
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    repository, _, name = source.hub.rpartition("/")
    # open_clip takes safetensors where the repository has them.
    safe = f"{PurePosixPath(name).stem}.safetensors" if name.endswith((".bin", ".pth")) else ""
    for filename in (safe, name) if name else (_SAFE_NAME, _NAME):
        found = try_to_load_from_cache(repository, filename) if filename else None
        if isinstance(found, str):
            return Path(found)
    return None


def weights_sha256(path: Path) -> str:
    """Return the hex digest of a weights file; the hub's cache names large files by it, so that they are not read.

    Raises:
        OSError: It cannot be read.
    """
    stored = path.resolve()
    if stored.parent.name == "blobs" and _SHA256.fullmatch(stored.name):
        return stored.name
    return file_sha256(path)


@lru_cache(maxsize=256)
def _sha256_of(path: str, size: int, changed_ns: int, inode: int) -> str:
    del size, changed_ns, inode
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
