"""What the mini model learns from: aerial pictures with captions, photographs, and which of them are held out."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manifests.identity import draw
from stages.decode import decode
from stages.phash import phash_d4

NEAR_BITS = 10
HELD_OUT_SHARE = 0.4

_MAX_PIXELS = 10_000_000
_PHOTO_NAME = re.compile(r"n\d{8}_(?P<name>[\w'-]+)", re.ASCII)


class CorpusError(Exception):
    """Training data that cannot be used: one line that says what is wanted."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture.

    Attributes:
        file: Its path below the data folder.
        kind: ``overhead`` or ``photo``.
        label: Its class in words, e.g. ``baseball field`` or ``king penguin``.
        captions: What people wrote of it; empty for photographs.
        held_out: Whether it is kept for the evaluation.
        body: The file.
    """

    file: str
    kind: str
    label: str
    captions: tuple[str, ...]
    held_out: bool
    body: bytes


def read_corpus(folder: Path) -> list[Item]:
    """Return all pictures in order of file, split.

    Args:
        folder: Has ``rs-pairs/captions.json`` (a list of ``{file, class, captions}``) with the files it names beside
            it, and ``photos/<synset>_<name>.jpg``.

    Raises:
        CorpusError: Something is missing or not as described.
    """
    try:
        pairs = json.loads((folder / "rs-pairs" / "captions.json").read_text("utf-8"))
        listed = [(f"rs-pairs/{p['file']}", "overhead", _spaced(p["class"]), tuple(p["captions"])) for p in pairs]
        listed += [
            (f"photos/{path.name}", "photo", _photo_name(path), ()) for path in (folder / "photos").glob("*.jpg")
        ]
        items = [
            Item(f, kind, label, said, False, (folder / f).read_bytes()) for f, kind, label, said in sorted(listed)
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(
            f"cannot read {folder} ({error}); it must hold rs-pairs/captions.json with its pictures and photos/*.jpg"
        ) from error
    held_out = _held_out(items, _near_groups(items))
    return [Item(i.file, i.kind, i.label, i.captions, i.file in held_out, i.body) for i in items]


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _photo_name(path: Path) -> str:
    found = _PHOTO_NAME.fullmatch(path.stem)
    if not found:
        raise ValueError(f"{path.name} is not named <synset>_<name>.jpg")
    return found["name"].replace("_", " ").lower()


def _near_groups(items: Sequence[Item]) -> list[int]:
    """Return a group number for each picture: equal for near-duplicates, in whatever turn or reflection."""
    hashes = np.array([phash_d4(decode(item.body, _MAX_PIXELS).luma32) for item in items], dtype=np.uint64)
    group = list(range(len(items)))

    def leader(place: int) -> int:
        while group[place] != place:
            place = group[place]
        return place

    for place in range(1, len(items)):
        distances = np.bitwise_count(hashes[:place] ^ hashes[place, 0]).min(axis=1)
        for other in np.flatnonzero(distances <= NEAR_BITS):
            first, second = sorted((leader(place), leader(int(other))))
            group[second] = first
    return [leader(place) for place in range(len(items))]


def _held_out(items: Sequence[Item], groups: Sequence[int]) -> set[str]:
    """Choose groups by hash within each class until the class has its share held out; photographs are one class."""
    members: dict[int, list[Item]] = defaultdict(list)
    for item, group in zip(items, groups, strict=True):
        members[group].append(item)
    by_class: dict[str, list[list[Item]]] = defaultdict(list)
    for alike in members.values():
        by_class[_class_of(alike[0])].append(alike)
    return {item.file for found in by_class.values() for alike in _share(found) for item in alike}


def _share(groups: list[list[Item]]) -> Iterator[list[Item]]:
    wanted = HELD_OUT_SHARE * sum(len(group) for group in groups)
    taken = 0
    for group in sorted(groups, key=lambda group: draw("mini held out", group[0].file)):
        if taken + len(group) <= wanted:
            taken += len(group)
            yield group


def _class_of(item: Item) -> str:
    return item.label if item.kind == "overhead" else "photo"
