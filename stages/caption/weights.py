"""Where a captioner's weights lie and what they are, without loading them and without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from manifests.canonical import canonical_digest
from manifests.model_files import folder_content, hub_snapshot
from stages.step import ModelMissingError

_READ = ("*.json", "*.txt", "*.model", "*.safetensors")


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
        return Weights(folder, _revision(folder, key))
    name, _, revision = model.partition("@")
    command = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    try:
        found = hub_snapshot(name, revision)
    except ValueError:
        raise ModelMissingError(f"{key} = {model!r} is neither a folder that exists nor a model of the hub") from None
    if found is None:
        raise ModelMissingError(
            f"{key} = {model!r} is not at hand: `{command}` gets it where there is a network; or name a local folder"
        )
    return Weights(found, found.name)


def _revision(folder: Path, key: str) -> str:
    try:
        content = folder_content(folder, _READ)
    except OSError as error:
        raise ModelMissingError(f"{key}: cannot read {folder}: {error}") from error
    return canonical_digest([[name, sha256] for name, (_, sha256) in content.items()])
