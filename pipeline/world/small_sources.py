"""The smaller sources of a world: WIT, YFCC, RedCaps, SBU, Visual Genome, and CC3M's file with labels.

They show pictures that other sources show already, at the same url or at one of their own. `alone` pictures stand in
LAION-COCO and nowhere else until then: LAION-COCO gives way to the others, so those rows may be released.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from manifests.identity import draw
from pipeline.world.draft import Draft, Picture, Row, choose, texts_for
from pipeline.world.images import Encoded
from pipeline.world.plain import plain_rows
from pipeline.world.publish import publish_failures
from pipeline.world.refused_small import add_refused_small

SMALL = ("yfcc14m", "wit", "redcaps", "sbu", "vg")
"""Keys of the smaller sources, the one that needs pictures with a place first."""

_FIRST_FAILURE = 500
_LABELS = {
    "air": ("aerial photography", "landscape", "terrain"),
    "orbit": ("satellite imagery", "earth"),
    "texture": ("pattern", "texture", "design"),
}
_AIRBORNE = ("yell1", "yell2", "osbs", "soap_031", "soap_061", "awpe")


@dataclass(frozen=True, slots=True)
class Amount:
    """How many rows of one source.

    Attributes:
        alone: Showing pictures that only LAION-COCO shows otherwise.
        shared: Showing any other picture.
        plain: Without a keyword.
    """

    alone: int
    shared: int
    plain: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What the smaller sources of a world hold.

    Attributes:
        amounts: By source, of `SMALL`, in the order in which they choose pictures; cc3m is its file with labels.
        failures: Urls that fail: how many of each behaviour.
        foreign: WIT's rows with a keyword in another language: (language, text).
        note: What YFCC says of a picture's place and time, None for a picture without a place.
        passed_over: Records of YFCC100M that the subset does not list.
        long_text: Whether one text is longer than 64 KiB.
    """

    amounts: Mapping[str, Amount]
    failures: Mapping[str, int]
    foreign: tuple[tuple[str, str], ...]
    note: Callable[[Picture], Mapping[str, str] | None]
    passed_over: int
    long_text: bool


def add_small_sources(draft: Draft, plan: Plan, jpegs: list[Picture]) -> None:
    """Add the rows of the smaller sources.

    Args:
        draft: The world, its pictures and their copies published.
        plan: What to add.
        jpegs: JPEG pictures, whose sentences stand beside the urls that fail.
    """
    firsts = [row for row in draft.rows if row.picture and row.fetched and row.proof is None]
    firsts.sort(key=lambda row: draw("small", row.picture.name if row.picture else ""))
    coco = _shown_by_laioncoco_alone(draft)
    alone = [row for row in firsts if row.picture and row.picture.name in coco and _is_overhead(row.picture)]
    shared = [row for row in firsts if row.picture and row.picture.name not in coco]
    for source, amount in plan.amounts.items():
        where = plan if source == "yfcc14m" else None
        placed = amount.shared * 2 // 3 if where else 0
        chosen = [*_take(alone, amount.alone, where), *_take(shared, placed, where)]
        chosen += _take(shared, amount.shared - placed)
        for turn, first in enumerate(chosen):
            _show(draft, source, first, turn, plan)
        draft.rows += _plain(source, amount.plain)
    publish_failures(draft, plan.failures, jpegs, SMALL, _FIRST_FAILURE)
    for number, (language, text) in enumerate(plan.foreign):
        url = f"http://commons.rs5m.test/wikipedia/{language}/{number}.jpg"
        draft.rows.append(_foreign(url, text, language))
    sentences = jpegs[0].texts
    for number in range(plan.passed_over):
        url, texts = f"http://farm1.static.rs5m.test/unlisted/{number}.jpg", texts_for("yfcc14m", sentences, number)
        draft.rows.append(Row("yfcc14m", url, texts, True, "released", passed_over=True))
    add_refused_small(draft, tuple(plan.amounts), sentences, long_text=plan.long_text)


def _shown_by_laioncoco_alone(draft: Draft) -> set[str]:
    sources: dict[str, set[str]] = {}
    for row in draft.rows:
        if row.picture and row.fetched:
            sources.setdefault(row.picture.name, set()).add(row.source)
    return {name for name, found in sources.items() if found == {"laioncoco"}}


def _is_overhead(picture: Picture) -> bool:
    return picture.kind in ("tile", "texture")


def _take(rows: list[Row], count: int, plan: Plan | None = None) -> list[Row]:
    """Take rows out of a list, from the front; with a plan those whose place is known, from every scene in turn.

    Raises:
        ValueError: There are fewer.
    """
    fits = [row for row in rows if not plan or (row.picture and plan.note(row.picture))]
    if plan:
        seen: Counter[str] = Counter()
        turns = []
        for row in fits:
            group = row.picture.group if row.picture else ""
            turns.append(seen[group])
            seen[group] += 1
        fits = [row for _, row in sorted(zip(turns, fits, strict=True), key=lambda pair: pair[0])]
    if len(fits) < count:
        raise ValueError(f"{count} rows are planned where {len(fits)} are left")
    for row in fits[:count]:
        rows.remove(row)
    return fits[:count]


def _show(draft: Draft, source: str, first: Row, turn: int, plan: Plan) -> None:
    """Let a source show the picture of ``first``: by turns at its url, or the same bytes at a url of the source."""
    picture, image = first.picture, first.image
    if picture is None or image is None:
        raise ValueError(f"{first.url} shows no picture that could be shown again")
    said = _said(source, picture, plan)
    if turn % 2 and source != "vg":
        staged = "the url stands in another source too"
        draft.add(picture, image, source, str(first.url), turn, said, proof="url", staged=staged)
        return
    url = _url(source, picture, image)
    draft.serve(url, "ok", picture.file)
    draft.add(picture, image, source, url, turn, said, proof="bytes", staged="the same bytes at another url")


def _url(source: str, picture: Picture, image: Encoded) -> str:
    number = int(draw("small", source, picture.name, "url") * 1e9)
    name = f"{picture.name}.{image.suffix}"
    match source:
        case "wit":
            return f"http://commons.rs5m.test/wikipedia/commons/{number % 16:x}/{name}"
        case "yfcc14m" | "sbu":
            return f"http://farm{1 + number % 9}.static.rs5m.test/{number % 8000}/{source}-{name}"
        case "redcaps":
            return f"http://i.forum.rs5m.test/{number:08x}.{image.suffix}"
        case "vg":
            return f"http://campus.rs5m.test/VG_100K/{number:09d}.{image.suffix}"
    return f"http://albums.rs5m.test/labelled/{name}"


def _said(source: str, picture: Picture, plan: Plan) -> Mapping[str, Any]:
    match source:
        case "yfcc14m":
            return plan.note(picture) or {"taken": "2009-05-16 09:41:07.0"}
        case "cc3m":
            scene = picture.group.removeprefix("world:")
            kind = "texture" if picture.kind == "texture" else "air" if scene in _AIRBORNE else "orbit"
            return _labels(picture.name, _LABELS[kind] if _is_overhead(picture) else ("picture", "print", "art"))
    return {}


def _labels(key: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return labels as CC3M's file has them, the likeliest first; MIDs and probabilities are invented."""
    shares = sorted((0.6 + 0.39 * draw("label", key, name) for name in names), reverse=True)
    named = enumerate(zip(names, shares, strict=True))
    return {"labels": tuple((name, f"/m/rs5m{place}", f"{share:.4f}") for place, (name, share) in named)}


def _plain(source: str, count: int) -> list[Row]:
    """Return rows without a keyword, each as its source would have it; one of WIT and RedCaps holds a NUL."""
    key = "labelled" if source == "cc3m" else source
    return [_plainly(source, row, number) for number, row in enumerate(plain_rows(key, count))]


def _plainly(source: str, row: Row, number: int) -> Row:
    if source in ("wit", "redcaps") and number == 0:
        texts = tuple(text and f"{text} \0" for text in row.texts)
        return replace(row, texts=texts, staged="a text with a NUL")
    match source:
        case "cc3m":
            names = (choose(("table", "plant", "tool"), "label", number), "object")
            return replace(row, source=source, said=_labels(row.url or "", names))
        case "yfcc14m":
            return replace(row, said={"taken": f"200{number % 10}-08-21 12:00:00.0"})
        case "wit" if number % 4 == 3:
            return replace(row, texts=("Vue a\u00e9rienne du vieux port", "", ""), said={"language": "fr"})
    return row


def _foreign(url: str, text: str, language: str) -> Row:
    staged = "a text that is not English"
    return Row("wit", url, (text, "", ""), True, "filter.not_english", staged=staged, said={"language": language})
