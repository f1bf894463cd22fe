"""A world while it is being made: its files, what the origin answers, its metadata rows, and the truth about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from manifests.identity import draw
from pipeline.world.images import Encoded

TABLES = ("laion2b", "laion400m", "laioncoco", "coyo700m", "cc3m", "cc12m")
"""Keys of the web sources that publish tables of urls and texts; a picture is published first in one of these."""

SOURCES = (*TABLES, "wit", "yfcc14m", "redcaps", "sbu", "vg")
"""Keys of all web sources, in the order of the truth table; those of archives follow."""

Parameter = str | int | float | bool
Route = dict[str, Parameter]


@dataclass(frozen=True, slots=True)
class Picture:
    """One distinct image of the world, however often it is published.

    Attributes:
        name: ASCII name, also the stem of its file.
        kind: tile, photo, print, drawn, synthetic or texture.
        group: What must stay on one side of the split, ``world:<source image>``.
        licence: Licence and on what the claim rests.
        credit: Whom to name.
        texts: Sentences that may stand beside it, each with a keyword.
        image: The file as it is served.
    """

    name: str
    kind: str
    group: str
    licence: str
    credit: str
    texts: tuple[str, ...]
    image: Encoded

    @property
    def file(self) -> str:
        """Path of its file, relative to the world."""
        return f"images/{self.name}.{self.image.suffix}"


@dataclass(frozen=True, slots=True)
class Row:
    """One metadata row and what is true of it.

    Attributes:
        source: Source key.
        url: As published; None where the row has none.
        texts: Published text fields in the source's order; empty for a null text or an unreadable line.
        keyword: Whether the texts match the lexicon.
        expected: released, outlier, cluster, or a reason of the closed list.
        picture: What the url shows when it can be fetched.
        image: The file as served at this url; differs from the picture's for near copies.
        proof: url, bytes or near: how the row repeats its picture's first row; None for the first row.
        cluster: Name of the copies it belongs to.
        staged: What is staged about it, in words.
        raw: What is written in the row's place where it cannot be read: a line, or a JSON value.
        ordinal: Tells apart rows that are equal in everything published.
        said: What only the source's own layout has a place for: ``language`` (WIT), ``labels`` (CC3M: name, MID and
            probability of each), ``taken``, ``lon``, ``lat``, ``device``, ``tags``, ``photo_id`` (YFCC).
        passed_over: Whether it is a record of YFCC100M that the subset does not list: no row of the source.
    """

    source: str
    url: str | None
    texts: tuple[str, ...]
    keyword: bool
    expected: str
    picture: Picture | None = None
    image: Encoded | None = None
    proof: str | None = None
    cluster: str | None = None
    staged: str | None = None
    raw: bytes | None = None
    ordinal: int = 0
    said: Mapping[str, Any] = field(default_factory=dict)
    passed_over: bool = False

    @property
    def labelled(self) -> bool:
        """Whether it stands in CC3M's file with labels."""
        return "labels" in self.said

    @property
    def fetched(self) -> bool:
        """Whether the row reaches clustering with its picture intact."""
        return self.ordinal == 0 and self.expected in ("released", "outlier")


@dataclass(slots=True)
class Draft:
    """Everything of a world but its encoding on disk.

    Attributes:
        files: Bytes by path.
        routes: What the origin answers, by url.
        rows: Rows of metadata files.
        attributes: Licence, credit and group by url; no group where the source itself tells it.
        archived: Images of folders and archives, each with its path inside, by the archive's path.
        members: What is packed into an archive: bytes by path inside, by the archive's path.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    attributes: dict[str, tuple[str, str, str | None]] = field(default_factory=dict)
    archived: dict[str, list[tuple[str, Row]]] = field(default_factory=dict)
    members: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def serve(self, url: str, behaviour: str, file: str | None = None, **parameters: Parameter) -> None:
        """Let the origin answer ``url``.

        Args:
            url: Full url; must be new.
            behaviour: A word of `behaviours`.
            file: Path of the file to send, relative to the world.
            parameters: What the behaviour needs.

        Raises:
            ValueError: The url is served already.
        """
        if url in self.routes:
            raise ValueError(f"{url} is staged twice")
        self.routes[url] = {"behaviour": behaviour, **({"file": file} if file else {}), **parameters}

    def describe(self, url: str, picture: Picture) -> None:
        """Give the licence, credit and group of what ``url`` shows."""
        self.attributes[url] = (picture.licence, picture.credit, picture.group)

    def add(
        self,
        picture: Picture,
        image: Encoded,
        source: str,
        url: str,
        turn: int,
        said: Mapping[str, Any] | None = None,
        **truth: str | None,
    ) -> Row:
        """Add a row that shows ``picture``; ``turn`` chooses among its sentences.

        Args:
            picture: The picture.
            image: The file served at the url.
            source: Source key.
            url: The row's url.
            turn: 0, 1, ..: which sentence.
            said: What the source says beside url and texts.
            truth: expected, proof, staged where they differ from a plain released row.
        """
        arrived = "released" if picture.kind in ("tile", "texture") else "outlier"
        row = Row(
            source=source,
            url=url,
            texts=texts_for(source, picture.texts, turn),
            keyword=True,
            expected=truth.get("expected") or arrived,
            picture=picture,
            image=image,
            proof=truth.get("proof"),
            staged=truth.get("staged"),
            said=said or {},
        )
        self.describe(url, picture)
        self.rows.append(row)
        return row

    def images_of_archives(self) -> dict[str, list[Row]]:
        """Return the rows of each folder and archive as a build finds them: sorted by the path inside."""
        return {name: [row for _, row in sorted(rows, key=lambda of: of[0])] for name, rows in self.archived.items()}

    def clustered(self) -> list[Row]:
        """Return the rows with every picture that arrives more than once made a cluster."""
        counts = Counter(row.picture.name for row in self.rows if row.picture and row.fetched)
        out = []
        for row in self.rows:
            if row.picture and row.fetched and counts[row.picture.name] > 1:
                row = replace(row, expected="cluster", cluster=f"copies-{row.picture.name}")
            out.append(row)
        return out


def texts_for(source: str, sentences: tuple[str, ...], turn: int) -> tuple[str, ...]:
    """Return the published text fields of a row.

    LAION-COCO: the top caption, then all captions. WIT: reference, attribution, alternative text. YFCC: title and
    description. Visual Genome: phrases. RedCaps: the cleaned caption, which is lower case. The others have one text.

    Args:
        source: Source key.
        sentences: What may be said.
        turn: 0, 1, ..: which sentence comes first, and which fields stay empty.
    """
    turn %= len(sentences)
    turned = sentences[turn:] + sentences[:turn]
    match source:
        case "laioncoco":
            return (turned[0], *turned)
        case "wit":
            return ("", f"English: {turned[0]}", "") if turn else (turned[0], "", turned[-1])
        case "yfcc14m":
            return (turned[-1], turned[0]) if turn else (turned[0], "")
        case "redcaps":
            return (turned[0].lower(),)
        case "vg":
            return tuple(text.lower() for text in turned[:2])
    return turned[:1]


def choose(options: Iterable[str], *key: str | int) -> str:
    """Choose one of ``options`` by key: the same choice every time."""
    listed = tuple(options)
    return listed[int(draw(*key) * len(listed))]
