"""The declared tables: columns, types, sort key, and which columns a fingerprint looks at.

A column is nullable only where its type is written with ``opt``. *Located* columns say where bytes lie in the
image store; they may move without the rows changing, so the rows digest leaves them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import pyarrow as pa

_STRINGS = pa.list_(pa.field("item", pa.string(), nullable=False))
_HASHES = pa.list_(pa.field("item", pa.uint64(), nullable=False), 8)
_THUMBNAIL = pa.list_(pa.field("item", pa.uint8(), nullable=False), 256)
_TAGS = pa.list_(
    pa.field(
        "item",
        pa.struct([pa.field("name", pa.string(), nullable=False), ("mid", pa.string()), ("prob", pa.float32())]),
        nullable=False,
    )
)

_ENTITIES = pa.list_(
    pa.field(
        "item",
        pa.struct(
            [
                pa.field("name", pa.string(), nullable=False),
                pa.field("backend", pa.string(), nullable=False),
                ("geonameid", pa.int64()),
                ("country", pa.string()),
                ("lon", pa.float64()),
                ("lat", pa.float64()),
                pa.field("ambiguity", pa.float32(), nullable=False),
            ]
        ),
        nullable=False,
    )
)


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A declared table.

    Attributes:
        name: Output name, e.g. ``candidates``.
        schema: Arrow schema; a field that is not nullable never holds a null.
        sort_key: Columns that order the rows; together they are unique.
        located: Columns left out of the rows digest.
    """

    name: str
    schema: pa.Schema
    sort_key: tuple[str, ...]
    located: frozenset[str] = frozenset()


def _table(name: str, columns: str, sort_key: tuple[str, ...], located: frozenset[str] = frozenset()) -> TableSpec:
    return TableSpec(name, pa.schema([_field(column) for column in columns.split()]), sort_key, located)


def _field(column: str) -> pa.Field:
    name, _, kind = column.partition(":")
    nullable = kind.endswith("?")
    return pa.field(name, _TYPES[kind.removesuffix("?")], nullable=nullable)


_TYPES = {
    "str": pa.string(),
    "i8": pa.int8(),
    "i16": pa.int16(),
    "i32": pa.int32(),
    "i64": pa.int64(),
    "u8": pa.uint8(),
    "u64": pa.uint64(),
    "f32": pa.float32(),
    "f64": pa.float64(),
    "strings": _STRINGS,
    "hashes": _HASHES,
    "thumbnail": _THUMBNAIL,
    "tags": _TAGS,
    "entities": _ENTITIES,
    "bytes": pa.binary(),
}

_CANDIDATE = """sample_id:str source:str subset:str source_key:str? group:str? url:str text:str matched:strings
    width:i32? height:i32? lon:f64? lat:f64? taken_at:str? tags:tags? source_hash:str? source_hash_kind:str?
    similarity:f32? nsfw:f32? nsfw_label:str? watermark:f32? licence:str? credit:str? extra:str?"""

_SAMPLE = """img_name:str caption:str sample_id:str source:str subset:str split:str tar:str url:str sha256:str {}
    width:i32 height:i32 phash:u64 matched:strings vlm:f32? detector:f32? meta:str? top:str? ssl:str? chosen:str?
    lon:f64? lat:f64? utm:str? country:str? month:i8? season:str? licence:str? credit:str? split_group:str"""

LEDGER = _table(
    "ledger",
    """step:str source:str sample_id:str locator:str? url:str? sha256:str? reason:str class:str value:f64? cut:f64?
    status:i16? other_id:str? detail:str?""",
    ("sample_id", "locator"),
)

_ALL = (
    # What filter.match finds: candidates with the place each was read from.
    _table("matched", "locator:str " + _CANDIDATE, ("sample_id", "locator")),
    _table("candidates", _CANDIDATE, ("sample_id",)),
    _table(
        "fetched",
        """sample_id:str url:str tar:str offset:i64 length:i64 sha256:str media_type:str http_status:i16? final_url:str?
        content_type:str? etag:str? hash_verdict:str rendered:str?""",
        ("sample_id",),
        frozenset({"tar", "offset"}),
    ),
    _table(
        "inspected",
        """sample_id:str sha256:str width:i32 height:i32 mode:str frames:i32 exif_orientation:u8 exif_lon:f64?
        exif_lat:f64? hash_kind:str phash:u64 phash_d4:hashes? thumbnail:thumbnail texture:f32""",
        ("sample_id",),
    ),
    _table(
        "clusters",
        "cluster_id:str sample_id:str via_id:str proof:str distance:i16? confirm:f32?",
        ("cluster_id", "sample_id"),
    ),
    _table("survivors", "sample_id:str source:str split_group:str", ("sample_id",)),
    _table("leaks", "sample_id:str benchmark:str item:str distance:i16 view:u8", ("sample_id", "benchmark", "item")),
    # A hash list: the images of an evaluation set, by their paths there.
    _table(
        "hash_list",
        "item:str sha256:str hash_kind:str phash:u64 phash_d4:hashes thumbnail:thumbnail texture:f32",
        ("item",),
    ),
    # One row per sample that was scored; null: the model could not take the image.
    _table("scores", "sample_id:str sha256:str vlm:f32? detector:f32?", ("sample_id",)),
    # embedding: the unit vector as little-endian float16, as many as the encoder has dimensions.
    _table("embeddings", "sample_id:str sha256:str embedding:bytes", ("sample_id",)),
    _table(
        "caption_candidates",
        """sample_id:str sha256:str index:i16 text:str seed:u64 score_a:f32 rank_a:i16 score_b:f32? rank_b:i16?
        rotation_variance:f32?""",
        ("sample_id", "index"),
    ),
    _table("captions", "sample_id:str top:str ssl:str chosen:str rule:str", ("sample_id",)),
    _table(
        "places",
        """sample_id:str lon:f64? lat:f64? coord_from:str? utm:str? country:str? month:i8? season:str? gsd_m:f32?
        entities:entities meta:str? template:str?""",
        ("sample_id",),
    ),
    _table(
        "plan",
        """tar:str position:i32 sample_id:str source:str img_name:str caption:str image_tar:str offset:i64 length:i64
        sha256:str""",
        ("tar", "position"),
        frozenset({"image_tar", "offset"}),
    ),
    # samples.parquet as planned, and as released: the latter knows the sha256 of the released bytes.
    _table("samples", _SAMPLE.format(""), ("sample_id",)),
    _table("released", _SAMPLE.format("released_sha256:str"), ("sample_id",)),
    _table("packed", "sample_id:str tar:str offset:i64 length:i64 released_sha256:str", ("sample_id",)),
)

TABLES = MappingProxyType({spec.name: spec for spec in _ALL})
