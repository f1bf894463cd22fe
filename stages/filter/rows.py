"""What a scan of metadata hands on: rows that matched a keyword in one shape, whatever the source's layout."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.sources import Columns, SourceSpec
from stages.filter.matcher import Matcher
from stages.filter.values import FLOAT32_MAX, canonical, number, pixels, word

HITS: pa.Schema = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # position in the file, from 0
        pa.field("url", pa.string()),  # as published; null where empty
        pa.field("texts", pa.list_(pa.string()), nullable=False),  # the published text fields, a null one as ""
        pa.field("text", pa.string(), nullable=False),  # texts that are not blank, each once, joined
        pa.field("matched", pa.list_(pa.string()), nullable=False),  # keywords, in the lexicon's order
        pa.field("source_key", pa.string()),
        pa.field("width", pa.int32()),  # pixels; null unless 1 or more
        pa.field("height", pa.int32()),
        pa.field("similarity", pa.float32()),
        pa.field("nsfw", pa.float32()),
        pa.field("nsfw_label", pa.string()),
        pa.field("watermark", pa.float32()),
        pa.field("licence", pa.string()),
        pa.field("source_hash", pa.string()),
        pa.field("source_hash_kind", pa.string()),
        pa.field("lon", pa.float64()),  # degrees
        pa.field("lat", pa.float64()),
        pa.field("taken_at", pa.string()),
        pa.field("language", pa.string()),
        pa.field("credit", pa.string()),
        pa.field("group", pa.string()),
        pa.field("tags", pa.list_(pa.struct([("name", pa.string()), ("mid", pa.string()), ("prob", pa.float32())]))),
        pa.field("extra", pa.string()),  # canonical JSON of the columns that have no field of their own
    ]
)
"""Schema of `Scan.hits`."""

_NUMBERS = ("similarity", "nsfw", "watermark", "lon", "lat")
_PIXELS = ("width", "height")
_TAGS = ("tags", "tag_ids", "tag_probs")
_WORDS = ("source_key", "nsfw_label", "licence", "source_hash", "taken_at", "language", "credit", "group")

_FIELDS = tuple(Columns.model_fields)
_TOLD_NAMES = 20
_TOLD_CHARS = 60

_FindName = Callable[[Sequence[str]], str | None]


class MetadataError(ValueError):
    """A metadata file that cannot be read, or that lacks what its source promises."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One piece of a metadata file, scanned.

    Attributes:
        rows_seen: Rows of the piece: those without a keyword, the hits and the bad ones.
        hits: The rows that matched, schema `HITS`, in file order.
        bad: Rows that cannot be read: (position in the file, why), in file order.
    """

    rows_seen: int
    hits: pa.Table
    bad: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns of one file, or of one record, hold what.

    Attributes:
        text: Text columns, in the source's order.
        fields: Field of `HITS` to column; only those that are there.
        joiner: What joins the texts.
        hash_kind: Kind of the digest in `source_hash`.
    """

    text: tuple[str, ...]
    fields: Mapping[str, str]
    joiner: str
    hash_kind: str | None


def resolve(spec: SourceSpec, names: Sequence[str], file: str) -> Layout:
    """Find a source's columns in a table, by exact name first, then whatever the case.

    Args:
        spec: The source.
        names: Column names of the file.
        file: What to call the file in an error.

    Returns:
        The layout.

    Raises:
        MetadataError: A name stands twice; the url column or one of the text columns is missing, or any other column
            that a source of the recipe's own names; or one column is a text and something else.
    """
    if len(set(names)) != len(names):
        twice = listed([name for name, count in Counter(names).items() if count > 1])
        raise MetadataError(f"{file}: a column name stands twice: {twice}")
    find_name = _finder(names)
    fields = _fields(spec, find_name)
    wanted = [(f"{field} column", tried) for field, tried in spec.columns.model_dump().items() if tried]
    needed = [one for one in wanted if spec.own or one[0] == "url column"]
    needed += [("text column", _text_names(spec, name)) for name in spec.text]
    if lacking := [f"{what} {' or '.join(tried)}" for what, tried in needed if find_name(tried) is None]:
        raise _without(lacking, spec, names, file)
    found = (find_name(_text_names(spec, name)) for name in spec.text)
    text = tuple(dict.fromkeys(column for column in found if column is not None))
    if both := [field for field, column in fields.items() if column in text]:
        raise MetadataError(
            f"{file}: column {listed([fields[both[0]]])} is named as a text and as {both[0]} of source {spec.key}. "
            "Name another column for one of them in the recipe."
        )
    return Layout(text, fields, spec.text_joiner, spec.source_hash_kind)


def check_names(spec: SourceSpec, names: Sequence[str], file: str) -> None:
    """Check that records which need not hold every column are of a source at all.

    Args:
        spec: The source.
        names: Names that records of the file have.
        file: What to call the file in an error.

    Raises:
        MetadataError: None of them is that of the url, or none that of a text.
    """
    find_name = _finder(names)
    lacking = []
    if find_name(spec.columns.url) is None:
        lacking.append("url column " + " or ".join(spec.columns.url))
    tried = [name for text in spec.text for name in _text_names(spec, text)]
    if find_name(tried) is None:
        lacking.append("text column " + " or ".join(tried))
    if lacking:
        raise _without(lacking, spec, names, file)


def record_layout(spec: SourceSpec, names: Iterable[str]) -> Layout:
    """Return which columns of one record hold what; it depends on nothing but the record.

    Args:
        spec: The source.
        names: The record's columns.

    Returns:
        The layout: a column for each text of the source, by its own name where the record lacks it, so that a record
        has as many texts whatever stands beside it; and those fields that the record has, perhaps without a url.
    """
    find_name = _finder(names)
    found = ((name, find_name(_text_names(spec, name))) for name in spec.text)
    text = tuple(name if column is None else column for name, column in found)
    return Layout(text, _fields(spec, find_name), spec.text_joiner, spec.source_hash_kind)


def listed(names: Sequence[str]) -> str:
    """Write names that strangers chose for an error: at most 20 of them, each of at most 60 characters."""
    shown = [(name if name.isprintable() else ascii(name)[1:-1])[:_TOLD_CHARS] for name in names[:_TOLD_NAMES]]
    more = f" and {len(names) - _TOLD_NAMES} more" if len(names) > _TOLD_NAMES else ""
    return ", ".join(shown) + more


def _without(lacking: Sequence[str], spec: SourceSpec, names: Sequence[str], file: str) -> MetadataError:
    return MetadataError(
        f"{file}: no {', no '.join(lacking)}, which source {spec.key} needs; its columns are {listed(names)}. "
        "Check that the file belongs to this source, or name its columns in the recipe."
    )


def _text_names(spec: SourceSpec, name: str) -> tuple[str, ...]:
    return (name, *spec.instead.get(name, ()))


def _fields(spec: SourceSpec, find_name: _FindName) -> dict[str, str]:
    wanted = ((field, getattr(spec.columns, field)) for field in _FIELDS)
    return {field: found for field, tried in wanted if tried and (found := find_name(tried)) is not None}


def _finder(names: Iterable[str]) -> _FindName:
    """Return what finds the first of some names that is there: each by its exact spelling, else in any case."""
    exact = dict.fromkeys(names)
    folded: dict[str, str] = {}
    for name in exact:
        folded.setdefault(name.lower(), name)

    def find_name(tried: Sequence[str]) -> str | None:
        for name in tried:
            found = name if name in exact else folded.get(name.lower())
            if found is not None:
                return found
        return None

    return find_name


def flat_texts(values: Iterable[Any]) -> list[bytes]:
    """Flatten the text fields of a row.

    Args:
        values: UTF-8 bytes, None, or lists of these, in the source's order.

    Returns:
        One text a field or list entry; a null is empty.
    """
    flat: list[bytes] = []
    for value in values:
        flat.extend(item or b"" for item in value) if isinstance(value, list) else flat.append(value or b"")
    return flat


def find(texts: list[bytes], layout: Layout, matcher: Matcher) -> tuple[str, tuple[str, ...]]:
    """Join the texts of a row and find its keywords.

    Args:
        texts: Its texts (`flat_texts`); bytes that are no UTF-8 read as U+FFFD here.
        layout: The file's columns.
        matcher: The keywords.

    Returns:
        The texts that are not blank, joined, one that equals an earlier one left out; and the keywords, empty when none
        matches. `Matcher.accepts` judges them.
    """
    decoded = dict.fromkeys(text.decode(errors="replace") for text in texts)
    joined = layout.joiner.join([text for text in decoded if text.strip()])
    return joined, matcher.keywords(joined)


def _tags(names: object, ids: object, probs: object) -> list[dict[str, Any]] | None:
    """Read tags, their ids and probabilities, each a list or text with commas; of another length, they are not its."""
    found = _listed(names)
    mids, shares = _listed(ids), _listed(probs)
    if len(mids) != len(found):
        mids = [None] * len(found)
    if len(shares) != len(found):
        shares = [None] * len(found)
    tags = [
        {"name": name, "mid": word(mid), "prob": number(prob)}
        for tag, mid, prob in zip(found, mids, shares, strict=True)
        if (name := word(tag))
    ]
    return tags or None


def _listed(value: object) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    text = word(value)
    return text.split(",") if text else []


def make_hit(
    row: int, texts: list[bytes], found: tuple[str, tuple[str, ...]], raw: Mapping[str, object], layout: Layout
) -> dict[str, Any]:
    """Bring a row that matched into the shape of `HITS`.

    Args:
        row: Position in the file.
        texts: Its texts (`flat_texts`).
        found: Joined text and keywords (`find`).
        raw: Its other columns by name.
        layout: The columns of its file or record.

    Returns:
        The row.

    Raises:
        ValueError: A text or the url is not UTF-8.
    """
    text, matched = found
    value = {field: raw[column] for field, column in layout.fields.items()}
    used = {*layout.text, *layout.fields.values()}
    source_hash = word(value.get("source_hash"))
    return {
        "row": row,
        "url": word(value.get("url")),
        "texts": [raw_text.decode() for raw_text in texts],
        "text": text,
        "matched": list(matched),
        **{field: word(value.get(field)) for field in _WORDS},
        **{field: number(value.get(field)) for field in _NUMBERS},
        **{field: pixels(value.get(field)) for field in _PIXELS},
        "source_hash_kind": layout.hash_kind if source_hash else None,
        "tags": _tags(value.get("tags"), value.get("tag_ids"), value.get("tag_probs")),
        "extra": canonical({name: item for name, item in raw.items() if name not in used}),
    }


def make_hits(
    rows: Sequence[int],
    texts: Sequence[list[bytes]],
    found: Sequence[tuple[str, tuple[str, ...]]],
    raw: Mapping[str, pa.Array],
    layout: Layout,
) -> pa.Table:
    """Bring rows that matched into the shape of `HITS`, a column at a time; the same as `make_hit` row by row.

    Args:
        rows: Positions in the file.
        texts: The texts of each (`flat_texts`).
        found: Joined text and keywords of each (`find`).
        raw: The other columns by name.
        layout: The file's columns.

    Raises:
        ValueError: A text or a url is not UTF-8, or a value is none that Python can hold.
    """
    value = {field: raw[column] for field, column in layout.fields.items()}
    used = {*layout.text, *layout.fields.values()}
    others = [name for name in raw if name not in used]
    columns: dict[str, Any] = {
        "row": rows,
        "url": [word(url) for url in value["url"].to_pylist()],
        "texts": [[text.decode() for text in of_row] for of_row in texts],
        "text": [text for text, _ in found],
        "matched": [matched for _, matched in found],
    }
    columns |= {field: [word(item) for item in value[field].to_pylist()] for field in _WORDS if field in value}
    columns |= {field: _numbers(value[field]) for field in _NUMBERS if field in value}
    columns |= {field: _all_pixels(value[field]) for field in _PIXELS if field in value}
    if "source_hash" in columns:
        columns["source_hash_kind"] = [layout.hash_kind if item else None for item in columns["source_hash"]]
    if "tags" in value:
        told = [value[field].to_pylist() if field in value else [None] * len(rows) for field in _TAGS]
        columns["tags"] = [_tags(*of_row) for of_row in zip(*told, strict=True)]
    if others:
        extras = zip(*(raw[name].to_pylist() for name in others), strict=True)
        columns["extra"] = [canonical(dict(zip(others, items, strict=True))) for items in extras]
    arrays = [
        _array(columns[field.name], field.type) if field.name in columns else pa.nulls(len(rows), field.type)
        for field in HITS
    ]
    return pa.Table.from_arrays(arrays, schema=HITS)


def _array(values: object, kind: pa.DataType) -> pa.Array:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)


def _numbers(values: pa.Array) -> pa.Array | list[float | None]:
    """Read a column as `values.number` reads each value."""
    if not _is_number(values.type):
        return [number(item) for item in values.to_pylist()]
    read = values.to_numpy(zero_copy_only=False).astype(np.float64)
    return pa.array(read, mask=~(np.abs(read) <= FLOAT32_MAX))


def _all_pixels(values: pa.Array) -> pa.Array | list[int | None]:
    """Read a column as `values.pixels` reads each value."""
    if not _is_number(values.type):
        return [pixels(item) for item in values.to_pylist()]
    read = values.to_numpy(zero_copy_only=False).astype(np.float64)
    counts = (read >= 1) & (read < 2**31)
    return pa.array(np.where(counts, read, 0).astype(np.int32), mask=~counts)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind))
