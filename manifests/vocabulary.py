"""The pinned words that captions are composed of: scenes, objects and sentences."""

from __future__ import annotations

import hashlib
import json
import string
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).with_name("vocabulary")
_LISTS = ("scenes", "objects", "templates")
_PROMPTS = {"scene_prompt": {"scene"}, "object_prompt": {"object"}}
_FIELDS = {"scene", "object", "other"}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One vocabulary.

    Attributes:
        id: Its name in recipes and fingerprints.
        scenes: What a picture may show as a whole, with an article where one is needed: "a harbor".
        objects: What may be seen in it, in the plural: "boats".
        templates: Sentences with ``{scene}`` and, some of them, ``{object}`` and ``{other}``.
        scene_prompt: Sentence around a ``{scene}`` that an encoder is asked about.
        object_prompt: Sentence around an ``{object}``.
        digest: sha256 hex of all of it, so that a fingerprint sees any edit.
    """

    id: str
    scenes: tuple[str, ...]
    objects: tuple[str, ...]
    templates: tuple[str, ...]
    scene_prompt: str
    object_prompt: str
    digest: str


def make_vocabulary(id_: str, content: dict[str, Any]) -> Vocabulary:
    """Build a checked vocabulary and its digest.

    Args:
        id_: Its name.
        content: The lists and prompts, by the names of `Vocabulary`.

    Raises:
        ValueError: A part is missing, unknown, empty or repeats an entry, there are fewer than two objects, or a
            sentence has other fields than it may.
    """
    if set(content) != {*_LISTS, *_PROMPTS}:
        raise ValueError(f"vocabulary {id_!r} must have {', '.join((*_LISTS, *_PROMPTS))} and nothing else")
    for name in _LISTS:
        entries = content[name]
        if not entries or not all(isinstance(entry, str) and entry.strip() == entry != "" for entry in entries):
            raise ValueError(f"vocabulary {id_!r}: {name} must be texts, at least one, none empty or padded")
        if len(set(entries)) != len(entries):
            raise ValueError(f"vocabulary {id_!r}: {name} has an entry twice")
    if len(content["objects"]) < 2:
        raise ValueError(f"vocabulary {id_!r}: objects must be at least two")
    for prompt, wanted in _PROMPTS.items():
        if _fields(content[prompt]) != wanted:
            raise ValueError(f"vocabulary {id_!r}: {prompt} must have the field {{{next(iter(wanted))}}} alone")
    for template in content["templates"]:
        if "scene" not in _fields(template) or not _fields(template) <= _FIELDS:
            raise ValueError(
                f"vocabulary {id_!r}: {template!r} must have {{scene}}, and may have {{object}}, {{other}}"
            )
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return Vocabulary(
        id=id_,
        scenes=tuple(content["scenes"]),
        objects=tuple(content["objects"]),
        templates=tuple(content["templates"]),
        scene_prompt=content["scene_prompt"],
        object_prompt=content["object_prompt"],
        digest=hashlib.sha256(canonical.encode()).hexdigest(),
    )


@cache
def load_vocabulary(id_: str) -> Vocabulary:
    """Read ``manifests/vocabulary/<id>.toml``, once a process.

    Raises:
        ValueError: There is no vocabulary of that name; the message lists those there are.
    """
    files = {path.stem: path for path in _FOLDER.glob("*.toml")}
    if id_ not in files:
        raise ValueError(f"no vocabulary {id_!r}; known: {', '.join(sorted(files))}")
    return make_vocabulary(id_, tomllib.loads(files[id_].read_text(encoding="utf-8")))


def _fields(sentence: object) -> set[str]:
    """Return the names of a sentence's fields; a sentence that is no format string has one that is allowed nowhere."""
    try:
        parsed = list(string.Formatter().parse(str(sentence)))
    except ValueError:
        return {"?"}
    return {name if not spec and not conversion else "?" for _, name, spec, conversion in parsed if name is not None}
