"""Templates of meta captions: shipped ones in wording of our own, or a user's file of the same format."""

from __future__ import annotations

import hashlib
import re
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).with_name("templates")
MAX_FILE_BYTES = 4 << 20

_SENSED = (
    "country season class_label relative_location ground_sample_distance utm_zone timestamp cloud_cover_rate "
    "scan_direction target_azimuth off_nadir"
)
KINDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "fmow_complex": frozenset(_SENSED.split()),
        "ben": frozenset(("season", "class_labels", "utm_zone", "timestamp")),
        "cc3m": frozenset(("class_label",)),
        "yfcc14m_country": frozenset(("country",)),
        "yfcc14m_timestamp": frozenset(("season", "timestamp")),
        "yfcc14m_country_timestamp": frozenset(("country", "season", "timestamp")),
        "redcaps": frozenset(("season", "timestamp")),
    }
)
"""Kinds of images and the facts that are known of them, named as in the published templates."""

_SHIPPED = re.compile(r"[a-z0-9][a-z0-9-]*")


class TemplateError(ValueError):
    """Templates that cannot be used: one line that says where, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Template:
    """One sentence.

    Attributes:
        name: ``<kind>/<place in its list>``, what the column ``template`` holds.
        parts: Text and the placeholder behind it (None at the end), in order.
        needs: Its placeholders.
    """

    name: str
    parts: tuple[tuple[str, str | None], ...]
    needs: frozenset[str]

    def filled(self, facts: Mapping[str, str]) -> str:
        """Return the sentence with its facts, the first letter a capital.

        Raises:
            KeyError: If a fact is missing.
        """
        sentence = "".join(text + (facts[fact] if fact else "") for text, fact in self.parts)
        return sentence[:1].upper() + sentence[1:]


@dataclass(frozen=True, slots=True, eq=False)
class Templates:
    """All templates of one file.

    Attributes:
        digest: sha256 hex of the file: what fingerprints see.
        kinds: Templates by kind.
    """

    digest: str
    kinds: Mapping[str, tuple[Template, ...]]

    def usable(self, kind: str, facts: Mapping[str, str]) -> list[Template]:
        """Return the templates of ``kind`` whose facts are all known and that tell the most, in file order."""
        known = [template for template in self.kinds.get(kind, ()) if template.needs <= facts.keys()]
        most = max((len(template.needs) for template in known), default=0)
        return [template for template in known if len(template.needs) == most]


@cache
def load_templates(name: str) -> Templates:
    """Read shipped templates by name, or a user's TOML file by path, once a process.

    Raises:
        TemplateError: If there is none of that name, or the file cannot be used.
    """
    if _SHIPPED.fullmatch(name):
        path = FOLDER / f"{name}.toml"
        if not path.is_file():
            known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
            raise TemplateError(
                f"geo.templates: no templates {name!r}; known: {known}; or give the path of a TOML file"
            )
    else:
        path = Path(name)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TemplateError(f"geo.templates: cannot read {name}: {error.strerror}") from None
    except ValueError as error:  # a zero byte
        raise TemplateError(f"geo.templates: {name!r} is no path: {error}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise TemplateError(f"geo.templates: {name} is larger than {MAX_FILE_BYTES:,} bytes")
    return parse_templates(raw, name)


def parse_templates(raw: bytes, name: str) -> Templates:
    """Read a file's content.

    Args:
        raw: TOML: a table for each kind (`KINDS`, any of them) with a list ``templates``.
        name: What to call it in errors.

    Raises:
        TemplateError: If it is no such file, or names a fact that its kind does not have.
    """
    try:
        tables = tomllib.loads(raw.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TemplateError(f"geo.templates: {name} is no TOML file in UTF-8: {error}") from None
    kinds: dict[str, tuple[Template, ...]] = {}
    for kind, table in tables.items():
        if kind not in KINDS:
            raise TemplateError(f"geo.templates: {name} has templates for {kind!r}; known kinds: {', '.join(KINDS)}")
        lines = table.get("templates") if isinstance(table, dict) else None
        if not isinstance(lines, list) or not lines or not all(isinstance(line, str) and line for line in lines):
            raise TemplateError(f"geo.templates: {name}: [{kind}] needs a list called templates of one text or more")
        kinds[kind] = tuple(_template(f"{kind}/{place}", line, kind, name) for place, line in enumerate(lines))
    return Templates(hashlib.sha256(raw).hexdigest(), MappingProxyType(kinds))


def _template(label: str, line: str, kind: str, name: str) -> Template:
    try:
        fields = list(string.Formatter().parse(line))
    except ValueError as error:
        raise TemplateError(f"geo.templates: {name}: {label}: {error}; write a brace as two") from None
    parts: list[tuple[str, str | None]] = []
    for text, fact, form, conversion in fields:
        if fact is not None and (fact not in KINDS[kind] or form or conversion):
            shown = ", ".join(f"{{{known}}}" for known in sorted(KINDS[kind]))
            raise TemplateError(f"geo.templates: {name}: {label}: {{{fact}}} is no fact of {kind}; use {shown}")
        parts.append((text, fact))
    return Template(label, tuple(parts), frozenset(fact for _, fact in parts if fact))
