"""Scan of Visual Genome: a row an image, whose texts are the phrases that describe its regions.

The phrases stand in `region_descriptions.json`, what is known of the image in `image_data.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import pyarrow as pa

from manifests.sources import SourceSpec
from stages.filter.json_items import Refused, checked, items
from stages.filter.matcher import Matcher
from stages.filter.records import Record, scan_records
from stages.filter.rows import HITS, MetadataError, Scan, listed
from stages.filter.streams import name_of, unpacked

MAX_IMAGES = 1_000_000
"""Entries of image_data.json that are held in memory, about 0.5 kB each; the published file has 108,077."""

_FACTS = ("url", "width", "height", "coco_id", "flickr_id")

_MAX_URL_CHARS = 8_192
_MAX_FACT_CHARS = 64
_IDS = ("image_id", "id")  # the file of regions says "id", that of images "image_id"; older ones the other way round

Images = dict[str, tuple[Any, ...]]


def scan_vg(file: BinaryIO, images: BinaryIO, spec: SourceSpec, matcher: Matcher) -> Iterator[Scan]:
    """Scan Visual Genome for keywords.

    An image of which image_data.json says nothing has no url. A phrase that an image has twice counts once.

    Args:
        file: region_descriptions.json; both may be packed with gzip or bzip2.
        images: image_data.json.
        spec: The source they belong to.
        matcher: The keywords.

    Yields:
        Scans in file order. A row's position is its image's place in the file, from 0; its `texts` are the phrases as
        published, its `text` has those first that hold a keyword.

    Raises:
        MetadataError: A file is no JSON, cut short, or the other one; or there are more than `MAX_IMAGES` images.
    """
    known = _read_images(images)
    name = name_of(file)
    _, entries = checked(items(unpacked(file, name), "", name), lambda keys: _need(keys, "regions", name))
    for scan in scan_records(_records(entries, known), spec, matcher):
        yield replace(scan, hits=_keywords_first(scan.hits, spec.text_joiner, matcher))


def _need(keys: Sequence[str], wanted: str, name: str) -> None:
    if wanted not in keys:
        raise MetadataError(
            f"{name}: entries without {wanted}; their keys are {listed(keys)}. Name "
            "region_descriptions.json among the metadata of this source, and keep image_data.json beside it."
        )


def _read_images(file: BinaryIO) -> Images:
    """Read what is known of the images, by id; an entry that is malformed says nothing of its image."""
    name = name_of(file)
    images: Images = {}
    for entry in checked(items(unpacked(file, name), "", name), lambda keys: _need(keys, "url", name))[1]:
        if not isinstance(entry, dict) or (image_id := _id(entry)) is None:
            continue
        images.setdefault(image_id, tuple(_fact(entry.get(fact), fact) for fact in _FACTS))
        if len(images) > MAX_IMAGES:
            raise MetadataError(f"{name}: more than {MAX_IMAGES} images. Split the source into files of fewer images.")
    return images


def _fact(value: object, fact: str) -> int | float | str | None:
    if isinstance(value, str):
        return value if len(value) <= (_MAX_URL_CHARS if fact == "url" else _MAX_FACT_CHARS) else None
    if fact == "url" or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 2**63 else None


def _id(entry: Mapping[str, Any]) -> str | None:
    for key in _IDS:
        value = entry.get(key)
        if isinstance(value, int | str) and not isinstance(value, bool) and value != "":
            return str(value)[:_MAX_FACT_CHARS]
    return None


def _records(entries: Iterator[object], images: Images) -> Iterator[Record]:
    for row, entry in enumerate(entries):
        try:
            yield Record(row, _values(entry, images))
        except ValueError as error:
            yield Record(row, {}, str(error))


def _values(entry: object, images: Images) -> dict[str, Any]:
    """Return the columns of an image. Raises ValueError for what is not one."""
    if isinstance(entry, Refused):
        raise ValueError(entry.why)
    if not isinstance(entry, dict):
        raise ValueError(f"no object but {type(entry).__name__}")
    regions = entry.get("regions")
    if not isinstance(regions, list):
        raise ValueError(f"regions are no list but {type(regions).__name__}")
    if not all(isinstance(region, dict) for region in regions):
        raise ValueError("a region is no object")
    # A region's own "id" is the region's, so only its "image_id" tells the image.
    image_id = _id(entry) or _id({"image_id": regions[0].get("image_id")} if regions else {})
    if image_id is None:
        raise ValueError("no image_id")
    phrases = [phrase for region in regions if (phrase := region.get("phrase")) is not None]
    if not all(isinstance(phrase, str) for phrase in phrases):
        raise ValueError("a phrase is no text")
    facts = images.get(image_id, (None,) * len(_FACTS))
    return {"image_id": image_id, **dict(zip(_FACTS, facts, strict=True)), "phrases": list(dict.fromkeys(phrases))}


def _keywords_first(hits: pa.Table, joiner: str, matcher: Matcher) -> pa.Table:
    """Put the phrases with a keyword in front: an image has about 50, and a text encoder reads the first few."""
    texts = []
    for phrases in hits["texts"].to_pylist():
        told = [phrase.strip().removesuffix(".") for phrase in phrases if phrase.strip()]
        texts.append(joiner.join(sorted(told, key=lambda phrase: not matcher.keywords(phrase))))
    return hits.set_column(HITS.get_field_index("text"), HITS.field("text"), pa.array(texts, pa.string()))
