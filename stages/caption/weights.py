"""Where a captioner's weights lie and what they are, without loading them and without torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from manifests.canonical import canonical_digest
from stages.step import ModelMissingError

_READ = ("*.json", "*.txt", "*.model", "*.safetensors")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """A folder of weights, and its revision: the hub's commit, or the digest of the files that are read."""

    folder: Path
    revision: str


def locate(model: str, key: str) -> Weights:
    """Return where a model lies. Nothing is downloaded: a step never waits for a hub.

    Args:
        model: A local folder, or a hub id ``ORG/NAME`` or ``ORG/NAME@REVISION`` that was downloaded before.
        key: The recipe key, for messages.

    Raises:
        ModelMissingError: If it is neither.
    """
    if not model:
        raise ModelMissingError(f"{key} is empty: name a folder, or a model of the hub such as ORG/NAME")
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Weights(folder, _content(folder))
    name, _, revision = model.partition("@")
    command = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        found = Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except HFValidationError:
        raise ModelMissingError(f"{key} = {model!r} is neither a folder that exists nor a model of the hub") from None
    except OSError as error:
        raise ModelMissingError(
            f"{key} = {model!r} is not at hand: `{command}` gets it where there is a network; or name a local folder"
        ) from error
    return Weights(found, found.name)


def _content(folder: Path) -> str:
    files = sorted({path for pattern in _READ for path in folder.glob(pattern) if path.is_file()})
    digests = []
    for path in files:
        stat = path.stat()
        digests.append([path.name, _sha256(path, stat.st_size, stat.st_mtime_ns)])
    return canonical_digest(digests)


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    """Return the digest of a file, made once a process while its size and time stay."""
    del size, changed_ns
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
