"""The recipe: every setting of a build in one frozen model. A key enters the model with the code that reads it.

Each class is one TOML table. `manifests.recipe_files` reads files and overrides; nothing here touches a disk.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from manifests.canonical import JsonValue
from manifests.recipe_cluster import Cluster
from manifests.recipe_run import Run
from manifests.recipe_train import Train

_BENCHMARK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MEDIA = ("jpeg", "png", "webp", "gif", "bmp", "tiff")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class World(_Table):
    """A miniature web built into the workdir and served on loopback, instead of the real one."""

    kind: Literal["mini", "nano"]
    bind: str = "127.0.0.1"


class Source(_Table):
    """One source's files; and for a source of one's own, how they are read."""

    enabled: bool = True
    metadata: list[str] = Field(default=[], description="paths, globs or fsspec URIs; relative to the workdir")
    attributes: str = Field(default="", description="Parquet keyed by url: licence, credit, group")
    format: Literal["", "parquet", "tsv", "csv", "jsonl", "webdataset", "imagefolder"] = Field(
        default="", description="of a source of your own; empty: one of those that `rs5m-build sources` lists"
    )
    columns: dict[str, str | list[str]] = Field(
        default={}, description="url, text (one or several), width, licence ..: the columns that hold them"
    )
    header: list[str] = Field(default=[], description="tsv, csv: names of the columns of files without a header line")
    keywords: Literal["", "match", "all"] = Field(
        default="", description="all: every row enters; empty: match, and all for webdataset and imagefolder"
    )
    licence: str = Field(default="", description="of a source of your own")
    credit: str = Field(default="", description="of a source of your own")

    @field_validator("metadata", mode="before")
    @classmethod
    def _one_is_a_list(cls, metadata: object) -> object:
        return [metadata] if isinstance(metadata, str) and metadata else metadata


class Filter(_Table):
    """Keyword match and pooling."""

    lexicon: str = "rs5m-1"
    mode: Literal["stem", "substring"] = "stem"
    english_only: bool = Field(default=True, description="rows that name another language leave")
    max_text_bytes: Annotated[int, Field(ge=1)] = 65_536
    buckets: Annotated[int, Field(ge=1, le=65_536)] = 8
    host_cap: Annotated[int, Field(ge=1)] = 20_000
    archive_rows: Annotated[int, Field(ge=1)] = Field(default=20_000, description="rows of a part of an archive")
    max_nsfw: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, description="the source's own score, 0 to 1, above which a row leaves; 1: no cut"
    )
    unsafe_labels: list[str] = Field(
        default=[], description="the source's own labels, whatever the case, that a row leaves for, e.g. NSFW, UNSURE"
    )


class Network(_Table):
    """How the web is asked; never part of a fingerprint."""

    connections: Annotated[int, Field(ge=1)] = 64
    per_host: Annotated[int, Field(ge=1)] = 4
    connect_s: Annotated[float, Field(gt=0)] = 5.0
    read_s: Annotated[float, Field(gt=0)] = 10.0
    total_s: Annotated[float, Field(gt=0)] = 30.0
    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    backoff_s: Annotated[float, Field(ge=0)] = 1.0
    spacing_s: Annotated[float, Field(ge=0)] = Field(default=0.0, description="least time between requests to one host")
    crawl_delay_max_s: Annotated[float, Field(ge=0)] = Field(
        default=2.0, description="a Crawl-delay of robots.txt is kept up to this; 0: not at all"
    )
    nameservers: list[str] = Field(default=[], description="address or address:port; empty: this machine's")
    resolve: dict[str, str] = Field(
        default={}, description="host or .suffix to ADDRESS:PORT; empty: the name does not exist"
    )


class Consent(_Table):
    """Which refusals of site owners are heeded: rows they name leave as download.opt_out."""

    robots: bool = Field(default=True, description="robots.txt, RFC 9309")
    headers: bool = Field(default=True, description="X-Robots-Tag: noai, noimageai, noindex, noimageindex, noml")
    tdm: bool = Field(default=True, description="TDMRep: tdm-reservation")


class Download(_Table):
    """What is accepted from the web."""

    engine: Literal["native", "img2dataset"] = "native"
    max_bytes: Annotated[int, Field(ge=1)] = 26_214_400
    media: list[Literal["jpeg", "png", "webp", "gif", "bmp", "tiff"]] = ["jpeg", "png", "webp", "gif", "bmp", "tiff"]
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 5
    allow_private: bool = False
    on_hash_differs: Literal["keep", "drop"] = Field(
        default="keep", description="rows whose bytes are not what their source's md5, sha256 or phash64 says"
    )
    consent: Consent = Consent()
    contact: str = Field(default="", description="a url or address for site owners, sent in the User-Agent")
    network: Network = Network()


class Dedup(_Table):
    """Copies across all sources."""

    hash: Literal["exact", "fast"] = Field(
        default="exact", description="exact: imagehash.phash bit for bit; fast: of JPEG's brightness, reduced first"
    )
    radius: Annotated[int, Field(ge=0, le=16)] = 4
    # Twice Pillow's MAX_IMAGE_PIXELS: beyond it Pillow takes a picture for a decompression bomb and opens none.
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)] = Field(
        default=100_000_000, description="all frames together; at most 178,956,970, Pillow's bound for one picture"
    )
    subsets: list[Literal["pub11", "rs3"]] = Field(default=["pub11"], description="subsets that lose their copies")
    order: list[str] = ["laion2b,laion400m,coyo700m", "*", "laioncoco"]
    confirm: Literal["thumbnail", "none"] = "thumbnail"
    confirm_noise: Annotated[float, Field(ge=0, le=255)] = Field(
        default=0.8, description="grey levels that an encoder may add to a thumbnail"
    )
    confirm_correlation: Annotated[float, Field(ge=-1, le=1)] = Field(
        default=0.86, description="least correlation of the thumbnails of pictures whose hashes are equal"
    )
    benchmarks: list[str] = Field(
        default=[], description="NAME=PATH each: hash lists, folders or archives of evaluation images, to keep out"
    )

    @field_validator("benchmarks")
    @classmethod
    def _named_once(cls, benchmarks: list[str]) -> list[str]:
        names = [benchmark_of(entry)[0] for entry in benchmarks]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ValueError(f"{twice} is named twice")
        return benchmarks


def benchmark_of(entry: str) -> tuple[str, str]:
    """Return name and path of an evaluation set written as NAME=PATH.

    Raises:
        ValueError: If it is written otherwise.
    """
    name, equals, path = (part.strip() for part in entry.partition("="))
    if not (equals and path and _BENCHMARK.fullmatch(name)):
        raise ValueError(f"{entry!r}: write NAME=PATH, e.g. rsicd=lists/rsicd.parquet or ucm=UCMerced.zip")
    return name, path


Share = Annotated[float, Field(gt=0, le=1)]
Precision = Literal["fp32", "bf16", "fp16"]


class Cut(_Table):
    """Which scores stay: those in the top share of the whole pool that are also at least a value."""

    keep_top: Share = Field(default=1.0, description="share of the pool that stays; 1: no cut by share")
    at_least: Annotated[float, Field(ge=-1, le=1)] = Field(default=-1.0, description="least score; -1: no cut by value")


class Outlier(_Table):
    """What is no remote sensing."""

    encoder: str = Field(default="mini", description="a shipped model, or open_clip:NAME/WEIGHTS, hf-hub:, local-dir:")
    prompts: str = "rs5m-33"
    detector: str = Field(default="mini", description="a shipped head, or a file that `detector fit` wrote")
    batch: Annotated[int, Field(ge=1)] = 64
    precision: Precision = "fp32"
    vlm: Cut = Cut(keep_top=0.90)
    detector_cut: Cut = Cut(keep_top=0.80)


class Caption(_Table):
    """Captions for the images that have none."""

    captioner: Literal["compose", "blip2"] = "compose"
    model: str = Field(default="", description="blip2: hub id or local folder")
    lora: str = Field(default="", description="blip2: a folder of LoRA weights; empty: none")
    prompt: str = ""
    vocabulary: str = Field(default="scenes-1", description="compose: its scenes and objects")
    candidates: Annotated[int, Field(ge=1, le=1000)] = 20
    max_tokens: Annotated[int, Field(ge=1, le=512)] = 50
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = Field(default=50, description="0: no limit")
    top_p: Share = 0.95
    batch: Annotated[int, Field(ge=1)] = Field(default=8, description="images at a time")
    precision: Precision = "fp32"
    rank: str = "mini"
    keep: Annotated[int, Field(ge=1)] = 10
    rerank: str = "mini"
    keep_again: Annotated[int, Field(ge=1)] = 5
    rotate: str = Field(default="mini", description="the encoder of the rotation rule")
    rotations: Annotated[int, Field(ge=2, le=360)] = 12


class Geo(_Table):
    """Places, coordinates, seasons, meta captions."""

    ner: list[Literal["gazetteer", "nltk", "spacy"]] = ["gazetteer"]
    gazetteer: str = "geonames-1"
    templates: str = Field(default="ours-1", description="shipped templates, or a TOML file of your own")
    season: Literal["hemisphere", "northern"] = "hemisphere"
    point: Literal["centroid", "first_vertex"] = "centroid"


class Shard(_Table):
    """The release."""

    tars_per_split: Annotated[int, Field(ge=1, le=9_999)] = 32
    val_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    caption: dict[str, list[Literal["text", "meta", "chosen", "top", "ssl"]]] = Field(
        default={"fmow": ["meta", "chosen"], "ben": ["meta", "chosen"], "millionaid": ["chosen"], "*": ["text"]},
        description="parts of the released text by source, in order; *: every other source",
    )


class Exclude(_Table):
    """What must not be in the build: text files, one entry a line; paths or fsspec URIs, relative to the workdir."""

    ids: str = Field(default="", description="sample ids, or names of released images")
    urls: str = Field(default="", description="whole urls")
    hosts: str = Field(default="", description="hosts, with their subdomains")
    sha256: str = Field(default="", description="digests of bytes as fetched")


class StoreAccess(_Table):
    """How an object store that holds the workdir is reached; never part of a fingerprint, and no place for secrets.

    What is not set is the SDK's own: AWS_ENDPOINT_URL, AWS_PROFILE, AWS_REGION, AWS_MAX_ATTEMPTS and the like.
    """

    endpoint: str = Field(default="", description="URL of an S3, GCS or OSS server; empty: the provider's")
    profile: str = Field(default="", description="S3: a profile of the SDK's configuration")
    region: str = Field(default="", description="S3: e.g. eu-central-1")
    concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=32, description="S3: connections a process keeps to the store"
    )
    attempts: Annotated[int, Field(ge=0, le=50)] = Field(
        default=0, description="S3: of the SDK for one request; 0: its own number, AWS_MAX_ATTEMPTS or 5"
    )
    patience_s: Annotated[float, Field(ge=0)] = Field(
        default=300.0, description="how long one operation is tried again after the SDK gave up"
    )

    @field_validator("endpoint")
    @classmethod
    def _no_secret(cls, endpoint: str) -> str:
        if endpoint and ("://" not in endpoint or "@" in endpoint):
            raise ValueError("write http(s)://HOST:PORT; credentials belong to the SDK's environment or a profile")
        return endpoint


class Recipe(_Table):
    """A build, whole."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    seed: int = 2023
    world: World | None = None
    sources: dict[str, Source] = {}
    filter: Filter = Filter()
    download: Download = Download()
    dedup: Dedup = Dedup()
    outlier: Outlier = Outlier()
    caption: Caption = Caption()
    geo: Geo = Geo()
    shard: Shard = Shard()
    train: Train = Train()
    exclude: Exclude = Exclude()
    store: StoreAccess = StoreAccess()
    run: Run = Run()
    cluster: Cluster = Cluster()

    @field_validator("sources")
    @classmethod
    def _source_names(cls, sources: dict[str, Source]) -> dict[str, Source]:
        bad = [name for name in sources if not name.isidentifier() or not name.islower()]
        if bad:
            msg = f"a source's name is lower-case letters and digits, not {bad[0]!r}"
            raise ValueError(msg)
        return sources

    def flat(self) -> dict[str, JsonValue]:
        """Return every setting by dotted key, e.g. ``dedup.radius``."""
        return dict(_flatten("", self))

    def enabled_sources(self) -> dict[str, Source]:
        """Return the enabled sources."""
        return {name: source for name, source in self.sources.items() if source.enabled}


def _flatten(prefix: str, table: BaseModel) -> list[tuple[str, JsonValue]]:
    found: list[tuple[str, JsonValue]] = []
    for name in type(table).model_fields:
        value, key = getattr(table, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            found.extend(_flatten(f"{key}.", value))
        elif name == "sources" and not prefix:
            for source, body in value.items():
                found.extend(_flatten(f"{key}.{source}.", body))
        elif value is not None:
            found.append((key, value))
    return found


class Settings:
    """The recipe as one step sees it: only the keys it declared, by dotted name.

    Raises:
        KeyError: From every getter, for a key that was not declared.
    """

    def __init__(self, values: dict[str, JsonValue]) -> None:
        self.values = values

    def integer(self, key: str) -> int:
        """Return an integer setting."""
        value = self.values[key]
        if not isinstance(value, int):
            raise TypeError(f"{key} is {value!r}, not an integer")
        return value

    def number(self, key: str) -> float:
        """Return a number setting."""
        value = self.values[key]
        if not isinstance(value, int | float):
            raise TypeError(f"{key} is {value!r}, not a number")
        return float(value)

    def flag(self, key: str) -> bool:
        """Return a yes-or-no setting."""
        return bool(self.values[key])

    def text(self, key: str) -> str:
        """Return a text setting."""
        return str(self.values[key])

    def texts(self, key: str) -> list[str]:
        """Return a list of texts."""
        value = self.values[key]
        if not isinstance(value, list):
            raise TypeError(f"{key} is {value!r}, not a list")
        return [str(item) for item in value]

    def lists(self, key: str) -> dict[str, list[str]]:
        """Return a table of lists of texts."""
        value = self.values[key]
        if not isinstance(value, dict) or not all(isinstance(item, list) for item in value.values()):
            raise TypeError(f"{key} is {value!r}, not a table of lists")
        return {name: [str(part) for part in item] for name, item in value.items() if isinstance(item, list)}

    def mapping(self, key: str) -> dict[str, str]:
        """Return a table of texts."""
        value = self.values[key]
        if not isinstance(value, dict):
            raise TypeError(f"{key} is {value!r}, not a table")
        return {name: str(item) for name, item in value.items()}
