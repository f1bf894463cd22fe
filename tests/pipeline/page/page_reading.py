"""Reads a page of a build back, and puts strangers' words into the stored tables that it is made from."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import polars as pl

from manifests.schemas import TABLES
from manifests.tables import read_table, write_table

_VOID = {"meta", "img"}


@dataclass
class Page(HTMLParser):
    """The elements of a page.

    Attributes:
        tags: Every element: name and attributes.
        open: Elements that are not closed yet.
        tables: By id: the cells' texts, row by row.
        images: The attributes of every picture.
        words: All text outside the style sheet.
    """

    source: str
    tags: list[tuple[str, dict]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    images: list[dict] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)
        self._rows = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes)
        named = dict(attributes)
        self.tags.append((tag, named))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "table":
            self._rows = self.tables[named["id"]] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
        elif tag == "small":
            self._rows[-1][-1] += " "
        elif tag == "img":
            self.images.append(named)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, words):
        if "style" in self.open:
            return
        self.words.append(words)
        if {"td", "th"} & set(self.open):
            self._rows[-1][-1] += words

    @property
    def text(self) -> str:
        return "\n".join(self.words)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def read_page(folder: Path) -> Page:
    return Page((folder / "index.html").read_text("utf-8"))


def rewrite(workdir, step: str, table: str, change) -> None:
    """Change the rows of a stored table as if they had come so; the commits know the new files' sizes."""
    for path in sorted((workdir.path / "commits" / step).glob("*.json")):
        manifest = json.loads(path.read_bytes())
        for output in manifest["outputs"]:
            if output["name"] != table:
                continue
            file = workdir.path / output["path"]
            frame = change(read_table(TABLES[table], file))
            file.unlink()  # it may be a link into another workdir
            output["bytes"] = write_table(TABLES[table], frame, file).bytes
        path.unlink()
        path.write_text(json.dumps(manifest))


def cycled(column: str, values: list[str]) -> pl.Expr:
    """Return a column that repeats some values, by the row's place."""
    place = pl.int_range(pl.len()) % len(values)
    return place.replace_strict(dict(enumerate(values)), return_dtype=pl.String).alias(column)
