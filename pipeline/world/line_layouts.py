"""Metadata that are published as lines of fields: CC3M with and without labels, CC12M, WIT, YFCC100M."""

from __future__ import annotations

import bz2
import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from urllib.parse import quote_plus

from pipeline.world.draft import Row
from pipeline.world.invented import invented, size

WIT_FIELDS = (
    "language", "page_url", "image_url", "page_title", "section_title", "hierarchical_section_title",
    "caption_reference_description", "caption_attribution_description", "caption_alt_text_description", "mime_type",
    "original_height", "original_width", "is_main_image", "attribution_passes_lang_id", "page_changed_recently",
    "context_page_description", "context_section_description",
)  # fmt: skip
"""The header of WIT's files."""

_STORED_BYTES = 65_535
_MIME = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif", "tif": "image/tiff"}


def tsv(rows: Sequence[Row]) -> bytes:
    """Encode rows of CC3M (caption, url; with labels three more fields) or CC12M (url, caption), without a header."""
    return _lines(rows, {"cc3m": _cc3m, "cc12m": _cc12m}[rows[0].source] if rows else _cc12m)


def wit(rows: Sequence[Row]) -> bytes:
    """Encode rows of WIT: gzip, a header, 17 fields, quoted where they hold a line break, a tab or a quote."""
    return stored_gzip("\t".join(WIT_FIELDS).encode() + b"\n" + _lines(rows, _wit))


def yfcc_records(rows: Sequence[Row]) -> bytes:
    """Encode records of YFCC100M: bzip2, no header, 23 fields, those that people wrote percent-encoded."""
    return bz2.compress(_lines(rows, _yfcc))


def yfcc_ids(rows: Sequence[Row]) -> bytes:
    """Encode OpenAI's list of a subset of YFCC100M: line number of the record, photo id, photo hash."""
    listed = [(number, photo_id(row)) for number, row in enumerate(rows) if not row.passed_over]
    lines = (
        f"{number}\t{photo}\t{hashlib.blake2b(photo.encode(), digest_size=16).hexdigest()}" for number, photo in listed
    )
    return "".join(f"{line}\n" for line in lines).encode()


def photo_id(row: Row) -> str:
    """Return the id of a row's photo in YFCC100M: ten digits."""
    return str(row.said.get("photo_id") or 1_000_000_000 + int(invented(row, "photo") * 8e9))


def stored_gzip(body: bytes) -> bytes:
    """Return a gzip file (RFC 1952) whose blocks are stored as they are (RFC 1951, 3.2.4), without a clock.

    The digests of a world are of its files, and what a compressor writes differs between zlib and its replacements.
    """
    pieces = [body[start : start + _STORED_BYTES] for start in range(0, len(body), _STORED_BYTES)] or [b""]
    blocks = b"".join(
        struct.pack("<BHH", number == len(pieces) - 1, len(piece), len(piece) ^ 0xFFFF) + piece
        for number, piece in enumerate(pieces)
    )
    end = struct.pack("<II", zlib.crc32(body), len(body) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + blocks + end


def _lines(rows: Sequence[Row], fields: Callable[[Row], Sequence[str]]) -> bytes:
    return b"".join((row.raw if row.raw is not None else "\t".join(fields(row)).encode()) + b"\n" for row in rows)


def _cc3m(row: Row) -> tuple[str, ...]:
    labels = row.said.get("labels", ())
    columns = (",".join(str(label[place]) for label in labels) for place in range(3))
    return (row.texts[0], row.url or "", *columns) if row.labelled else (row.texts[0], row.url or "")


def _cc12m(row: Row) -> tuple[str, ...]:
    return row.url or "", row.texts[0]


def _wit(row: Row) -> tuple[str, ...]:
    language = str(row.said.get("language", "en"))
    reference, attribution, alternative = row.texts or ("", "", "")
    width, height = size(row)
    title = f"Page {int(invented(row, 'page') * 1e6)}"
    page = f"http://{language}.wiki.rs5m.test/{title.replace(' ', '_')}"
    mime = _MIME.get((row.url or "").rpartition(".")[2], "image/jpeg")
    main = str(invented(row, "main") < 0.5).lower()
    about = "This page was written for this world."
    if invented(row, "about") < 0.25:
        about = 'This page is called "gallery".\nIt was written for this world.'
    fields = (
        language, page, row.url or "", title, "Gallery", f"{title} / Gallery", reference, attribution, alternative,
        mime, str(height), str(width), main, "true", "false", about, "",
    )  # fmt: skip
    return tuple(_quoted(field) for field in fields)


def _quoted(field: str) -> str:
    doubled = field.replace('"', '""')
    return f'"{doubled}"' if any(mark in field for mark in '\n\t"') else field


def _yfcc(row: Row) -> tuple[str, ...]:
    title, description = row.texts or ("", "")
    photo, user = photo_id(row), 10_000_000 + int(invented(row, "user") * 8e7)
    said = {name: str(row.said.get(name, "")) for name in ("taken", "lon", "lat", "tags")}
    page = f"http://photostream.rs5m.test/photos/{user}@N00/{photo}/"
    licence = "Attribution License", "http://creativecommons.org/licenses/by/2.0/"
    server, farm = str(int(invented(row, "server") * 8000)), str(1 + int(invented(row, "farm") * 9))
    secret = f"{int(invented(row, 'secret') * 2**40):010x}"
    written = ("rs5m build", str(row.said.get("device", "Invented Camera 1")), title, description, said["tags"], "")
    name, device, *texts = (quote_plus(text) for text in written)
    return (
        photo, f"{user}@N00", name, said["taken"], str(1_300_000_000 + int(invented(row, "upload") * 1e8)), device,
        *texts, said["lon"], said["lat"], "16" if said["lon"] else "", page, row.url or "", *licence, server, farm,
        secret, secret[::-1], "jpg", "0",
    )  # fmt: skip
