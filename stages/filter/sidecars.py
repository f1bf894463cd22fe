"""What fMoW and BigEarthNet say of an image in the files beside it: reduced to what later stages need, and bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from stages.filter.values import pixels
from stages.geotiff import Place

MAX_SIDECAR_BYTES = 1 << 20
"""A sidecar has a few kilobytes; a larger one is refused unread."""
MAX_TEXT = 4_096
"""Characters of a text that is kept."""
MAX_LABELS = 64
"""Labels that are kept of an image."""

_FMOW_FIELDS = (
    "country_code", "timestamp", "img_width", "img_height", "multi_resolution_dbl", "gsd", "utm", "cloud_cover",
    "scan_direction", "target_azimuth_dbl", "off_nadir_angle_dbl", "raw_location",
)  # fmt: skip
_FMOW_BOX_FIELDS = ("raw_location", "category")
_FMOW_BOXES = 2  # the first locates the scene, the second names and boxes the object
_BOX_NUMBERS = 4
_CORNERS = ("ulx", "uly", "lrx", "lry")
_BEN_METRES_A_PIXEL = 10
_BEN_TIME = re.compile(r"_(\d{4})(\d\d)(\d\d)T(\d{1,2})(\d\d)(\d\d)_")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one image beside its pixels.

    Attributes:
        extra: What later stages read, under the names that the set uses.
        tags: Class labels.
        width: Pixels.
        height: Pixels.
        taken_at: ISO 8601, as given.
    """

    extra: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    width: int | None = None
    height: int | None = None
    taken_at: str | None = None


def read_fmow(body: bytes) -> Facts:
    """Read the JSON beside an fMoW frame: its own key names, at most two boxes, nothing that is not asked for.

    Raises:
        ValueError: It is no JSON object.
    """
    said = _object(body)
    extra = {name: value for name in _FMOW_FIELDS if (value := _plain(said.get(name))) is not None}
    boxes = said.get("bounding_boxes")
    entries = [_fmow_box(box) for box in boxes[:_FMOW_BOXES]] if isinstance(boxes, list) else []
    if entries:
        extra["bounding_boxes"] = entries
    categories = [box["category"] for box in entries if isinstance(box.get("category"), str)]
    return Facts(
        extra,
        tuple(categories[-1:]),
        pixels(said.get("img_width")),
        pixels(said.get("img_height")),
        _iso(said.get("timestamp")),
    )


def _fmow_box(box: object) -> dict[str, Any]:
    if not isinstance(box, dict):
        return {}
    kept = {name: value for name in _FMOW_BOX_FIELDS if (value := _plain(box.get(name))) is not None}
    sides = box.get("box")
    if isinstance(sides, list) and len(sides) == _BOX_NUMBERS and all(_is_number(side) for side in sides):
        kept["box"] = sides
    return kept


def read_bigearthnet(body: bytes) -> Facts:
    """Read the labels_metadata.json of a BigEarthNet v1 patch: labels, corners, projection, date.

    Raises:
        ValueError: It is no JSON object.
    """
    said = _object(body)
    extra: dict[str, Any] = {}
    labels = _labels(said.get("labels"))
    if labels:
        extra["labels"] = list(labels)
    corners = said.get("coordinates")
    width = height = None
    if isinstance(corners, dict) and all(_is_number(corners.get(name)) for name in _CORNERS):
        extra["corners"] = {name: corners[name] for name in _CORNERS}
        width = pixels((corners["lrx"] - corners["ulx"]) / _BEN_METRES_A_PIXEL)
        height = pixels((corners["uly"] - corners["lry"]) / _BEN_METRES_A_PIXEL)
    for name in ("projection", "acquisition_date"):
        if isinstance(value := _plain(said.get(name)), str):
            extra[name] = value
    return Facts(extra, labels, width, height, _iso(said.get("acquisition_date")))


def from_band(place: Place | None, patch: str, row: Mapping[str, Any]) -> Facts:
    """Tell the same of a BigEarthNet patch without such a file, as in v2.

    Args:
        place: Where its bands lie.
        patch: Its name, which holds the time.
        row: Its row of metadata.parquet; empty where there is none.
    """
    extra: dict[str, Any] = {name: value for name in ("country", "split") if _is_text(value := row.get(name))}
    labels = _labels(row.get("labels"))
    if labels:
        extra["labels"] = list(labels)
    width = height = None
    if place:
        extra["corners"] = {name: getattr(place, name) for name in _CORNERS}
        width = pixels((place.lrx - place.ulx) / _BEN_METRES_A_PIXEL)
        height = pixels((place.uly - place.lry) / _BEN_METRES_A_PIXEL)
        if place.epsg:
            extra["epsg"] = place.epsg
    time = _BEN_TIME.search(patch)
    taken_at = _iso("{}-{}-{} {:0>2}:{}:{}".format(*time.groups())) if time else None
    if taken_at:
        extra["acquisition_date"] = taken_at
    return Facts(extra, labels, width, height, taken_at)


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"is no JSON in UTF-8: {error}") from error
    if not isinstance(said, dict):
        raise ValueError("is no JSON object")
    return said


def _plain(value: object) -> object:
    """Return a number, a truth value or a text that can be stored and is not overlong; None for everything else."""
    if isinstance(value, str):
        return value if _is_text(value) else None
    return value if isinstance(value, bool) or _is_number(value) else None


def _is_text(value: object) -> bool:
    # JSON can spell halves of surrogate pairs, which no UTF-8 holds.
    return isinstance(value, str) and len(value) <= MAX_TEXT and not any("\ud800" <= c <= "\udfff" for c in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _labels(value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    return tuple(str(label) for label in value[:MAX_LABELS] if _is_text(label))


def _iso(value: object) -> str | None:
    """Return a time as ISO 8601, with the "T" that BigEarthNet leaves out; None for what is no time."""
    if not isinstance(value, str):
        return None
    text = value.strip().replace(" ", "T", 1)
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return None
    return text
