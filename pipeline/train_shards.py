"""The tars to train from: of the release, each checked against its recorded digest, or those that a pattern names."""

from __future__ import annotations

import glob
import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from braceexpand import braceexpand

from manifests.commits import CommitStore
from manifests.store import Store
from pipeline.errors import UserError
from stages.wheels import cache_root

CHECKSUMS = "release/checksums.sha256"

_BLOCK_BYTES = 1 << 22
_HASHING = 4
_RELEASED = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<path>(?P<split>train|val)/[^/]+\.tar)")
_VALIDATION = re.compile(r"(^|[-_.])val(idation)?([-_.]|$)")
_AGAIN = "`rs5m-build verify` sets damaged files aside, and `rs5m-build run` makes them again"


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar.

    Attributes:
        name: ``<split>/<file name>``, which is what a fingerprint knows it by.
        split: What it is for.
        sha256: Of the whole file.
        path: Below the workdir for a released tar, else in the local file system.
        released: Whether it is of the workdir's release.
    """

    name: str
    split: Literal["train", "val"]
    sha256: str
    path: str
    released: bool


def released_shards(store: Store, commits: CommitStore) -> list[Shard]:
    """Return the tars of a complete release, as its checksums list them; nothing is hashed yet.

    Raises:
        UserError: If the release is not complete, or its list is not what was committed.
    """
    recorded = [
        output.sha256
        for name in commits.step("shard.index").all()
        for output in commits.read(name).outputs
        if output.path == CHECKSUMS
    ]
    if not recorded:
        raise UserError(
            f"{store.uri} has no complete release: shard.index is not committed; "
            "run `rs5m-build run` first, or name tars with --shards"
        )
    try:
        text = store.read(CHECKSUMS)
    except FileNotFoundError:
        raise UserError(f"{store.uri}/{CHECKSUMS} is gone; {_AGAIN}") from None
    if hashlib.sha256(text).hexdigest() not in recorded:
        raise UserError(f"{store.uri}/{CHECKSUMS} is not what was committed; {_AGAIN}")
    found = [match for line in text.decode().splitlines() if (match := _RELEASED.fullmatch(line))]
    return [
        Shard(
            m["path"], "train" if m["split"] == "train" else "val", m["sha256"], f"release/{m['path']}", released=True
        )
        for m in found
    ]


def named_shards(pattern: str) -> list[Shard]:
    """Return the local tars that a pattern names, hashed, sorted.

    A tar is for validation if its folder is called ``val`` or ``validation``, or its name has that word.

    Args:
        pattern: A path with ``*``, ``?``, ``[..]``, ``{a,b}`` or ``{0000..0031}``.

    Raises:
        UserError: If nothing matches, or a file cannot be read.
    """
    try:
        patterns = list(braceexpand(pattern))
    except ValueError as error:
        raise UserError(f"--shards {pattern!r}: its braces do not match: {error}") from error
    paths = sorted({Path(name) for part in patterns for name in glob.glob(part)})  # noqa: PTH207  (absolute patterns too)
    if not paths:
        raise UserError(f"--shards {pattern!r}: no file matches")
    digests = _digests(paths)
    found = []
    for path, digest in zip(paths, digests, strict=True):
        held_out = any(_VALIDATION.search(part) for part in (path.absolute().parent.name, path.stem))
        split: Literal["train", "val"] = "val" if held_out else "train"
        found.append(Shard(f"{split}/{path.name}", split, digest, str(path.absolute()), released=False))
    return found


def at_hand(store: Store, shards: Sequence[Shard], say: Callable[[str], None], *, check: bool) -> list[Path]:
    """Return every tar as a local file, fetched into this user's cache where the workdir is not local.

    Args:
        store: The workdir.
        shards: What is wanted.
        say: Told what is fetched.
        check: Whether released tars are hashed and fetched; else another process of this machine has done so.

    Raises:
        UserError: If a released tar is gone or is not what its release says.
    """
    paths = [_local(store, shard) for shard in shards]
    if not check:
        return paths
    for shard, path in zip(shards, paths, strict=True):
        if shard.released and store.local_path(shard.path) is None and not path.exists():
            say(f"fetching {shard.name} into {path.parent}")
            _fetch(store, shard, path)
    released = [(shard, path) for shard, path in zip(shards, paths, strict=True) if shard.released]
    for (shard, path), digest in zip(released, _digests([path for _, path in released]), strict=True):
        if digest != shard.sha256:
            if store.local_path(shard.path) is None:
                path.unlink(missing_ok=True)
            raise UserError(f"{store.uri}/{shard.path} is not what {CHECKSUMS} says; {_AGAIN}")
    return paths


def _local(store: Store, shard: Shard) -> Path:
    if not shard.released:
        return Path(shard.path)
    cached = cache_root() / "shards" / f"{shard.sha256[:16]}-{Path(shard.path).name}"
    return store.local_path(shard.path) or cached


def _fetch(store: Store, shard: Shard, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        temporary = Path(file.name)
        try:
            with store.open(shard.path) as source:
                shutil.copyfileobj(source, file, _BLOCK_BYTES)
            file.flush()
            temporary.replace(path)
        except FileNotFoundError:
            raise UserError(f"{store.uri}/{shard.path} is gone; {_AGAIN}") from None
        finally:
            temporary.unlink(missing_ok=True)


def _digests(paths: Sequence[Path]) -> list[str]:
    with ThreadPoolExecutor(_HASHING) as pool:
        return list(pool.map(_digest, paths))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; {_AGAIN}") from error
    return digest.hexdigest()
