"""What stands beside an image that someone holds: its texts and its record, read as what strangers wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from manifests.sources import SourceSpec
from stages.filter.rows import Layout
from stages.filter.values import canonical

TEXT_ENDINGS = ("caption", "txt")
"""Files that hold a text: ``.caption`` as in the released tars of RS5M, ``.txt`` as everywhere else."""

URL = ""
"""The name under which `layout_of` finds a row's url among its columns; no column of a file is called so."""

_TEXT_FIELDS = ("caption", "text")
# Where nothing else is named: what img2dataset and the sets made with it call these.
_FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "width": ("width",), "height": ("height",), "licence": ("licence", "license"), "credit": ("credit",),
        "similarity": ("similarity",), "nsfw": ("punsafe",), "watermark": ("pwatermark",),
        "lon": ("lon", "longitude"), "lat": ("lat", "latitude"),
    }
)  # fmt: skip


def read_record(body: bytes) -> dict[str, Any]:
    """Read a JSON object, in UTF-8.

    Raises:
        ValueError: It is none, is nested too deeply, or spells halves of surrogate pairs, which no UTF-8 holds.
    """
    try:
        said = json.loads(body.decode("utf-8-sig"))
        if not isinstance(said, dict):
            raise ValueError("is no JSON object")
        (canonical(said) or "").encode()
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("spells characters that no UTF-8 holds") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"is no JSON in UTF-8: {error}") from error
    return said


def read_text(body: bytes) -> str:
    """Read a text file, without the line breaks at its end. Raises ValueError for what is no UTF-8."""
    try:
        return body.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError("is no UTF-8") from error


def endings_read(source: SourceSpec) -> tuple[str, ...]:
    """Return the endings of the files that are read of a sample: a text column may be the ending of a text file."""
    return ("json", "img_name", *(tuple(name.lower() for name in source.text) or TEXT_ENDINGS))


def texts_of(source: SourceSpec, record: Mapping[str, Any], files: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return a sample's texts, and the fields of its record that they stand in.

    Args:
        source: Names its text columns: fields of the record, or endings of files. Where it names none, the text is that
            of ``.caption``, else of ``.txt``, else the field ``caption`` or ``text``.
        record: Its record.
        files: Its texts by ending.

    Raises:
        ValueError: A field holds what is no text.
    """
    if source.text:
        fields = {name: pick(name, record) for name in source.text}
        texts = [_texts(record, found) if found else [files.get(name.lower(), "")] for name, found in fields.items()]
        return [text for several in texts for text in several], [found for found in fields.values() if found]
    for ending in TEXT_ENDINGS:
        if files.get(ending, "").strip():
            return [files[ending]], []
    for name in _TEXT_FIELDS:
        if (found := pick(name, record)) and any(text.strip() for text in _texts(record, found)):
            return _texts(record, found), [found]
    return [], []


def layout_of(source: SourceSpec, record: Mapping[str, Any], used: Sequence[str]) -> Layout:
    """Return which fields of a record hold what; its own url, which is where it came from, is none of them."""
    named = source.columns.model_dump(exclude={"url"})
    fields = {
        field: found
        for field, names in named.items()
        if (found := next((f for name in names or _FIELDS.get(field, ()) if (f := pick(name, record))), None))
    }
    return Layout(tuple(used), {**fields, "url": URL}, source.text_joiner, source.source_hash_kind)


def pick(wanted: str, record: Mapping[str, Any]) -> str | None:
    """Return a field's name in a record: by exact name first, then whatever the case."""
    if wanted in record:
        return wanted
    return next((name for name in record if name.lower() == wanted.lower()), None)


def _texts(record: Mapping[str, Any], name: str) -> list[str]:
    value = record[name]
    items = value if isinstance(value, list) else [value]
    for item in items:
        if item is not None and not isinstance(item, str):
            raise ValueError(f"{name} holds {type(item).__name__}, not text")
    return [item or "" for item in items]
