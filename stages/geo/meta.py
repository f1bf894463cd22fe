"""Meta captions: the facts that are known of an image, as text, and one template drawn for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from manifests.identity import draw
from manifests.templates import Template, Templates
from stages.geo.coordinates import Extra, boxes_of, number
from stages.geo.zones import Moment
from stages.wording import clean_fact

SURE = 0.9
"""Probability from which a CC3M tag counts (published script); below it the likeliest one does."""
MOST_TAGS = 3
"""CC3M tags in one caption (published script)."""
MOST_LABELS = 12
"""BigEarthNet labels in one caption: its patches have 1 to 12 (Sumbul et al. 2019)."""
MOST = 1e6
"""Metres or degrees from which a sidecar's number is no fact (ours): it would be told with all its digits."""

_ROWS, _COLUMNS = ("top", "center", "bottom"), ("left", "center", "right")
_CELLS = tuple(
    "center" if (row, column) == ("center", "center") else f"{row}-{column}" for row in _ROWS for column in _COLUMNS
)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of an image before it is put into words.

    Attributes:
        place: ``City, Country``, or the country alone.
        utm: UTM zone with band letter.
        season: winter, spring, summer or fall.
        when: When it was taken.
        gsd_m: Metres a pixel.
        tags: (name, probability) of its labels.
        extra: Its sidecar.
    """

    place: str | None
    utm: str | None
    season: str | None
    when: Moment | None
    gsd_m: float | None
    tags: Sequence[tuple[str, float | None]]
    extra: Extra


def meta_caption(
    source: str, known: Known, templates: Templates, seed: int, sample_id: str
) -> tuple[str, Template] | None:
    """Return the meta caption of an image and its template; None for sources without, and where too little is known.

    One of the templates that tell the most of what is known is drawn by seed and sample id.
    """
    facts = {name: value for name, value in _facts(source, known).items() if value}
    kind = _kind(source, facts)
    usable = templates.usable(kind, facts) if kind else []
    if not usable:
        return None
    template = usable[int(draw("meta", seed, sample_id) * len(usable))]
    return template.filled(facts), template


def _kind(source: str, facts: Mapping[str, str]) -> str | None:
    if source == "yfcc14m":
        parts = [part for part in ("country", "timestamp") if part in facts]
        return "_".join(["yfcc14m", *parts]) if parts else None
    return {"fmow": "fmow_complex", "ben": "ben", "cc3m": "cc3m", "redcaps": "redcaps"}.get(source)


def _facts(source: str, known: Known) -> dict[str, str | None]:
    """Return the facts as text, by placeholder; an unknown one is None or empty.

    What a sidecar or a source wrote is told as one clean line each; the rest is made of numbers and pinned names.
    """
    when = known.when.text(hour=source != "redcaps") if known.when else None
    facts = {"country": known.place, "season": known.season, "timestamp": when, "utm_zone": known.utm}
    if source == "fmow":
        return facts | _sensed(known)
    if source == "ben":
        labels = [label for name, _ in known.tags if (label := _phrase(name, "-"))]
        return facts | {"class_labels": ", ".join(labels[:MOST_LABELS])}
    if source == "cc3m":
        tags = [(name, prob) for tag, prob in known.tags if (name := clean_fact(tag))]
        return {"class_label": ", ".join(sure_tags(tags))}
    return facts


def _sensed(known: Known) -> dict[str, str | None]:
    extra = known.extra
    boxes = boxes_of(extra)
    first = boxes[1] if len(boxes) > 1 else boxes[0] if boxes else {}
    labels = (first.get("category"), extra.get("category"), *(name for name, _ in known.tags))
    clouds = number(extra.get("cloud_cover"))
    return {
        "class_label": next(filter(None, (_phrase(label, " ") for label in labels)), None),
        "relative_location": relative_location(first.get("box"), extra.get("img_width"), extra.get("img_height")),
        "ground_sample_distance": two_decimals(known.gsd_m),
        # Negative: the vendor's mark for "not assessed".
        "cloud_cover_rate": f"{clouds:g}" if clouds is not None and clouds >= 0 else None,
        "scan_direction": _phrase(extra.get("scan_direction"), "_"),
        "target_azimuth": two_decimals(extra.get("target_azimuth_dbl")),
        "off_nadir": two_decimals(extra.get("off_nadir_angle_dbl")),
    }


def _phrase(name: object, underscore: str) -> str:
    """Return a class's name as words of a sentence; empty for what is no text."""
    return clean_fact(name.lower().replace("_", underscore)) if isinstance(name, str) else ""


def two_decimals(value: object) -> str | None:
    """Return a number with two decimals, None for what is no number, or none that a sensor has."""
    read = number(value)
    return None if read is None or abs(read) >= MOST else f"{read:.2f}"


def relative_location(box: object, width: object, height: object) -> str | None:
    """Return where a box lies in a 3 x 3 grid over its image: ``center block``, ``center and top-left blocks``.

    The two cells of largest overlap are named, the second only if the box reaches into it.

    Args:
        box: [x, y, width, height] in pixels from the top left.
        width: Of the image, pixels.
        height: Of the image, pixels.
    """
    if not isinstance(box, list | tuple) or len(box) != 4:
        return None
    x, y, w, h, across, down = (number(value) for value in (*box, width, height))
    if x is None or y is None or w is None or h is None or not across or not down:
        return None
    areas = [_shared(y, h, row * down / 3, down / 3) * _shared(x, w, column * across / 3, across / 3)
             for row in range(3) for column in range(3)]  # fmt: skip
    ranked = sorted(range(9), key=lambda cell: (-areas[cell], cell))
    first, second = ranked[:2]
    if areas[first] <= 0:
        return None
    if areas[second] <= 0:
        return f"{_CELLS[first]} block"
    return f"{_CELLS[first]} and {_CELLS[second]} blocks"


def _shared(start: float, length: float, cell: float, size: float) -> float:
    return max(0.0, min(start + length, cell + size) - max(start, cell))


def sure_tags(tags: Sequence[tuple[str, float | None]]) -> list[str]:
    """Return the first tags with a probability of at least `SURE`, else the likeliest one; none without any."""
    sure = [name for name, prob in tags if prob is not None and prob >= SURE - 1e-6]  # stored as float32
    if sure:
        return sure[:MOST_TAGS]
    known = [(prob, name) for name, prob in tags if prob is not None and math.isfinite(prob)]
    best = max(known, key=lambda pair: pair[0], default=None)
    return [best[1]] if best else []
