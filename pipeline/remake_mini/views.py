"""Views of the training pictures, and the texts each may be paired with."""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import Image

from manifests.identity import draw
from pipeline.remake_mini.corpus import Item

KINDS = ("remote sensing", "aerial", "satellite")
NOUNS = ("image", "photo", "view", "picture")
_PREFIXED_SHARE = 0.3
_TURNS = tuple(Image.Transpose)
_CORNERS = ((0.0, 0.0, 0.7, 0.7), (0.3, 0.3, 1.0, 1.0))


def views(item: Item) -> Iterator[bytes]:
    """Yield PNG files of a picture seen in other ways.

    An overhead picture comes in its eight turns and reflections and in grey; a photograph, which does not stand on
    its head, as it is, mirrored, in grey, and as two cuts.
    """
    with Image.open(io.BytesIO(item.body)) as image:
        picture = image.convert("RGB")
    grey = picture.convert("L").convert("RGB")
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if item.kind == "overhead":
        shown = [picture, *(picture.transpose(turn) for turn in _TURNS), grey]
    else:
        width, height = picture.size
        boxes = [tuple(int(side * share) for side, share in zip((width, height) * 2, c, strict=True)) for c in _CORNERS]
        shown = [picture, mirrored, grey, *(picture.crop(box) for box in boxes)]  # type: ignore[arg-type]
    for view in shown:
        out = io.BytesIO()
        view.save(out, "PNG", compress_level=1)
        yield out.getvalue()


def texts(item: Item) -> list[tuple[str, float]]:
    """Return the texts a training picture may be paired with, and how often each, as shares.

    People who describe aerial pictures leave out that they are aerial, which the outlier score must know: three in
    ten captions get "an aerial image of" or the like in front, and bare kinds and class names come along.
    """
    if item.kind == "photo":
        return [
            (f"{_article(item.label)} {item.label}", 0.2),
            (f"a photo of {_article(item.label)} {item.label}", 0.5),
            ("a photo", 0.3),
        ]
    each = 0.8 / len(item.captions)
    found = []
    for place, caption in enumerate(item.captions):
        said = caption.strip()
        found.append((said, each * (1 - _PREFIXED_SHARE)))
        found.append((f"{_shown(item.file, place)} of {said}", each * _PREFIXED_SHARE))
    found += [(f"{_shown(item.file, 'class', n)} of {_article(item.label)} {item.label}", 0.05) for n in range(3)]
    return [*found, (_shown(item.file, "bare"), 0.05)]


def _shown(*key: str | int) -> str:
    kind = KINDS[int(draw("mini kind", *key) * len(KINDS))]
    noun = NOUNS[int(draw("mini noun", *key) * len(NOUNS))]
    return f"{_article(kind)} {kind} {noun}"


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"
