"""The sources as pinned inputs: how to read them, on what terms, what was published of them.

Eleven web sources (PUB11) and three archives of images (RS3), one TOML file each in `manifests/sources/`. The published
rows of PUB11 are tables VII and VIII of arXiv 2306.11300v5. Of RS3 the amounts and splits are published; nothing is
filtered out of it, so the other columns follow from the amount.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

PUB11 = (
    "laion2b",
    "coyo700m",
    "laioncoco",
    "laion400m",
    "wit",
    "yfcc14m",
    "cc12m",
    "redcaps",
    "cc3m",
    "sbu",
    "vg",
)
"""Source keys of PUB11 in the order of the published table."""

RS3 = ("fmow", "ben", "millionaid")
"""Source keys of RS3 in the order of the published table."""

_FOLDER = Path(__file__).with_name("sources")

TableFormat = Literal["parquet", "tsv", "csv", "jsonl", "redcaps", "sbu", "vg", "wit", "yfcc"]
ArchiveFormat = Literal["fmow", "bigearthnet", "millionaid"]
HeldFormat = Literal["webdataset", "imagefolder"]
Format = TableFormat | ArchiveFormat | HeldFormat
_ARCHIVES = get_args(ArchiveFormat)
_HELD = get_args(HeldFormat)
Names = tuple[str, ...]
Count = Annotated[int, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(_Frozen):
    """Which columns of the metadata hold what: names tried in order, whatever their case; empty means none."""

    url: Names = ()
    source_key: Names = ()
    width: Names = ()
    height: Names = ()
    similarity: Names = ()
    nsfw: Names = ()
    nsfw_label: Names = ()
    watermark: Names = ()
    licence: Names = ()
    source_hash: Names = ()
    lon: Names = ()
    lat: Names = ()
    taken_at: Names = ()
    language: Names = ()
    credit: Names = ()
    group: Names = ()
    tags: Names = ()
    tag_ids: Names = ()
    tag_probs: Names = ()


class Published(_Frozen):
    """A source's row in the published table; all counts are rows.

    Attributes:
        amount: Size of the source, rounded as published.
        amount_text: The same as printed ("2.3B").
        after_keyword: Rows that matched a keyword.
        download: Images downloaded.
        invalid: Broken or empty images.
        duplicate: Duplicates by url or by content.
        outlier: Images that are not remote sensing.
        remain: Rows released.
    """

    amount: Count
    amount_text: str
    after_keyword: Count
    download: Count
    invalid: Count
    duplicate: Count
    outlier: Count
    remain: Count


class SourceSpec(_Frozen):
    """One source: metadata that name images and texts, or an archive of images.

    Attributes:
        key: Name in ids, files and recipes.
        name: Name in the published table.
        subset: Lane it belongs to.
        format: Layout of its metadata files, or of its archive.
        columns: Where the fields of a row stand.
        text: Columns whose text is matched and published, in order. A table must have all of them; a record of a file
            of objects may lack some, whose text is empty then.
        instead: Text column to the names that are tried where a file lacks it.
        text_joiner: Joins several texts into one caption.
        own: Whether the recipe describes it: then a table must have every column that is named, not only url and text.
        headers: Names of the columns of a file without a header line: one list for each number of columns such files
            are published with. Empty: the file's first line names them.
        beside: Files that belong to every file of rows, by role: a pattern of their names, in any case.
        keywords: ``match``: rows without a keyword leave; ``all``: every row stays, whatever its text.
        source_hash_kind: Kind of digest in `columns.source_hash`.
        licence: Terms of the metadata as published.
        credit: Whom to credit.
        home: Where the source lives.
        get: What to get there, as a user names the files.
        availability: Whether it can still be had.
        successor: What replaced it, and can be read in its place; empty: nothing.
        matched_by: Who says that `text` is what is matched: the paper, or we where it is silent.
        original_split: The split of an archive that was published.
        has_class_label: Whether that split of an archive has class labels.
        published: Its row in the published table; None for a source RS5M does not have.
    """

    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$")]
    name: str
    subset: Literal["pub11", "rs3"] = "pub11"
    format: Format
    columns: Columns = Columns()
    text: Names = ()
    instead: Mapping[str, Names] = Field(default_factory=dict)
    text_joiner: str = ". "
    own: bool = False
    headers: tuple[Names, ...] = ()
    beside: Mapping[str, str] = Field(default_factory=dict)
    keywords: Literal["match", "all"] = "match"
    source_hash_kind: Literal["md5", "sha256", "phash64"] | None = None
    licence: str = "unknown"
    credit: str = ""
    home: str = ""
    get: str = ""
    availability: str = ""
    successor: str = ""
    matched_by: str = ""
    original_split: Literal["", "train", "val", "test"] = ""
    has_class_label: bool | None = None
    published: Published | None = None

    @property
    def is_archive(self) -> bool:
        """Whether it is folders or archives of images, not files of metadata."""
        return self.format in _ARCHIVES or self.is_held

    @property
    def is_held(self) -> bool:
        """Whether its images are web images that someone already holds: a folder of them, or webdataset tars."""
        return self.format in _HELD

    @property
    def digest(self) -> str:
        """sha256 hex of what decides how rows are read; words and published numbers are not in it.

        Licence and credit of an archive are those of its rows, so there they are.
        """
        words = {"name", "home", "get", "availability", "successor", "matched_by", "original_split", "has_class_label"}
        words |= {"published"} if self.is_archive else {"published", "licence", "credit"}
        content = json.dumps(self.model_dump(mode="json", exclude=words), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.format in _ARCHIVES) != (self.subset == "rs3"):
            raise ValueError(f"source {self.key}: formats {', '.join(_ARCHIVES)} are of subset rs3, and only they")
        if not self.is_archive and not (self.columns.url and self.text):
            raise ValueError(f"source {self.key}: name the url column and at least one text column")
        if strange := sorted(set(self.instead) - set(self.text)):
            raise ValueError(f"source {self.key}: instead names {strange[0]}, which is no text column")
        if self.headers and self.format not in ("tsv", "csv", "yfcc"):
            raise ValueError(f"source {self.key}: headers belong to files without a header line, not to {self.format}")
        if len({len(names) for names in self.headers}) != len(self.headers):
            raise ValueError(f"source {self.key}: two of its headers have the same number of columns")
        if any(len(set(names)) != len(names) for names in self.headers):
            raise ValueError(f"source {self.key}: a header has a name twice")
        if bool(self.columns.source_hash) != bool(self.source_hash_kind):
            raise ValueError(f"source {self.key}: source_hash needs source_hash_kind, and the other way round")
        if not any(
            char.isascii() and char.isprintable() and not char.isalnum() and char not in " -"
            for char in self.text_joiner
        ):
            # The scan looks at each text alone before they are joined: no keyword may run across the joint.
            raise ValueError(f"source {self.key}: text_joiner needs a punctuation mark other than a hyphen")
        return self


def load_source(path: Path) -> SourceSpec:
    """Read one source from a TOML file.

    Args:
        path: The file.

    Returns:
        The source.

    Raises:
        pydantic.ValidationError: Unknown, missing or wrong keys (a ValueError).
    """
    return SourceSpec.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


@cache
def load_sources() -> Mapping[str, SourceSpec]:
    """Read all sources, once a process: planning asks for them once a partition.

    Returns:
        Source key to source, in the order of the published tables.
    """
    return MappingProxyType({key: load_source(_FOLDER / f"{key}.toml") for key in (*PUB11, *RS3)})
