"""The pinned keyword lists that decide which rows enter the build."""

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("lexicon.toml")
_ENTRY = re.compile(r"[A-Za-z0-9]+(?:[ -][A-Za-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Lexicon:
    """One keyword list.

    Attributes:
        id: Its name in recipes and fingerprints.
        stems: Phrases open on the right ("aerial imag").
        names: Phrases matched as whole words ("MODIS").
        digest: sha256 hex of the entries in their order, so that a fingerprint sees any edit.
    """

    id: str
    stems: tuple[str, ...]
    names: tuple[str, ...]
    digest: str


def make_lexicon(id_: str, stems: tuple[str, ...], names: tuple[str, ...]) -> Lexicon:
    """Build a checked lexicon and its digest.

    Args:
        id_: Name of the lexicon.
        stems: Entries open on the right.
        names: Entries matched as whole words.

    Returns:
        The lexicon.

    Raises:
        ValueError: The lexicon is empty, names an entry twice (in any case), or has an entry that is not words
            of ASCII letters and digits with single spaces or hyphens between them.
    """
    entries = stems + names
    if not entries:
        raise ValueError(f"lexicon {id_!r} has no entries")
    for entry in entries:
        if not _ENTRY.fullmatch(entry):
            raise ValueError(f"lexicon {id_!r}: {entry!r} is not ASCII words joined by single spaces or hyphens")
    folded = [entry.lower() for entry in entries]
    twice = sorted({entry for entry in folded if folded.count(entry) > 1})
    if twice:
        raise ValueError(f"lexicon {id_!r} has entries twice: {', '.join(twice)}")
    content = json.dumps({"names": names, "stems": stems}, sort_keys=True, separators=(",", ":"))
    return Lexicon(id_, stems, names, hashlib.sha256(content.encode()).hexdigest())


@cache
def load_lexicon(id_: str) -> Lexicon:
    """Read one lexicon from `manifests/lexicon.toml`, once a process.

    Args:
        id_: Name of the lexicon, for example `rs5m-1`.

    Returns:
        The lexicon.

    Raises:
        ValueError: There is no lexicon of that name; the message lists those there are.
    """
    tables: dict[str, Any] = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    if id_ not in tables:
        raise ValueError(f"no lexicon {id_!r}; known: {', '.join(sorted(tables))}")
    table = tables[id_]
    return make_lexicon(id_, tuple(table["stems"]), tuple(table["names"]))
