"""shard.plan: which sample goes into which tar, under which name, with which caption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl

from manifests.identity import bucket, draw, tar_stem
from manifests.ledger import count_by_source, ledger_frame
from manifests.recipe import Settings
from manifests.schemas import LEDGER, TABLES
from manifests.tables import empty_frame
from stages.exclusions import Exclusions
from stages.image_names import name_without_suffix
from stages.images import EXTENSIONS
from stages.step import Input, Output, Prior, Result, Step, Tables, Task

SUBSETS = ("pub11", "rs3")
SPLITS = ("train", "val")

_OF_CANDIDATES = "sample_id subset url text matched licence credit".split()
_OF_PLACES = "sample_id lon lat utm country month season meta".split()
_OF_FETCHED = "sample_id tar offset length sha256 media_type".split()
_PLAN = list(TABLES["plan"].schema.names)


class Plan(Step):
    """Draws the split by split group, spreads groups over tars, and composes names and captions.

    Both draws hash the split group alone, so they are stable when rows are added, and no group stands on both sides.
    What [exclude] names leaves here at the latest, by what is known by now: the bytes' digest, the url that a redirect
    led to, the released name. So does a row for which there are no words at all: an image someone held without any.
    """

    name = "shard.plan"
    kind = "reduce"
    VERSION = 1
    reads = ("seed", "shard.tars_per_split", "shard.val_fraction", "shard.caption")
    asks = ("exclude.ids", "exclude.urls", "exclude.hosts", "exclude.sha256")
    inputs = (
        Input("outlier.cut", "survivors", lane="pub11"),
        Input("caption.generate", "survivors", lane="rs3", rows=True),
        Input("download.fetch", "fetched", places=True),
        Input("filter.pool", "candidates"),
        Input("dedup.inspect", "inspected"),
        Input("outlier.embed", "scores"),
        Input("caption.choose", "captions"),
        Input("geo.locate", "places"),
    )
    outputs = ("plan", "samples")
    keeps = "plan"

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Plan the release. Raises ListChangedError for a list that is not as it was planned."""
        del prior
        exclusions = Exclusions.planned(task.settings, tables.store)
        seen: Counter[str] = Counter()
        kept, left = [_nothing()], [empty_frame(LEDGER)]
        # A partition at a time: what is dropped on the way, and the columns that names and captions are made of, are
        # never held for all rows at once.
        for given in self.rows_in:
            for name in dict.fromkeys(file.partition for file in tables.files(given.step, given.table)):
                survivors = tables.part(given.step, given.table, name)
                seen.update(count_by_source(survivors))
                staying, leaving = self._planned(task.settings, tables, name, survivors, exclusions)
                kept.append(staying)
                left.append(leaving)
        rows = pl.concat(kept)
        kept.clear()
        rows = rows.sort("sample_id")
        rows = rows.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).over("tar").alias("position"))
        tars = task.settings.integer("shard.tars_per_split")
        stems = [tar_stem(s, split, n) for s in _subsets(tables) for split in SPLITS for n in range(tars)]
        return Result(
            outputs=[
                *(Output("plan", rows.filter(pl.col("tar") == s).select(_PLAN), partition=s) for s in stems),
                Output("samples", _samples(rows)),
            ],
            ledger=pl.concat(left),
            seen=dict(seen),
            kept=count_by_source(rows),
        )

    def _planned(
        self, settings: Settings, tables: Tables, partition: str, survivors: pl.DataFrame, exclusions: Exclusions
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the rows of one partition that are released, and the ledger of those that are not."""
        tars, val_fraction = settings.integer("shard.tars_per_split"), settings.number("shard.val_fraction")
        placed = _placed(survivors, settings.integer("seed"), val_fraction, tars)
        described = _described(placed, tables, partition, redirects=bool(exclusions))
        described = described.with_columns(exclusions.naming(described).alias("detail"))
        described = described.with_columns(composed(settings.lists("shard.caption")).alias("caption"))
        excluded = pl.col("detail").is_not_null()
        wordless = pl.col("caption").fill_null("").str.strip_chars() == ""
        reason = pl.when(excluded).then(pl.lit("shard.excluded")).otherwise(pl.lit("shard.no_caption")).alias("reason")
        left = described.filter(excluded | wordless).with_columns(reason)
        left = left.select("source", "sample_id", "sha256", "detail", "reason")
        return _held(described.filter(~excluded & ~wordless)), ledger_frame(self.name, left)


def _placed(survivors: pl.DataFrame, seed: int, val_fraction: float, tars: int) -> pl.DataFrame:
    """Add split and tar number, both drawn from the split group."""
    groups = survivors["split_group"].unique().to_list()
    drawn = pl.DataFrame(
        {
            "split_group": groups,
            "split": ["val" if draw("split", seed, group) < val_fraction else "train" for group in groups],
            "number": [bucket(group, tars) for group in groups],
        },
        schema={"split_group": pl.String, "split": pl.String, "number": pl.Int32},
    )
    return survivors.join(drawn, on="split_group")


def _described(placed: pl.DataFrame, tables: Tables, partition: str, *, redirects: bool) -> pl.DataFrame:
    """Join every side table and compose tar and image name; ``redirects``: with the urls that redirects led to."""
    urls = ["final_url"] if redirects else []
    candidates = tables.part("filter.pool", "candidates", partition, _OF_CANDIDATES)
    fetched = tables.part("download.fetch", "fetched", partition, [*_OF_FETCHED, *urls])
    inspected = tables.part("dedup.inspect", "inspected", partition, ["sample_id", "width", "height", "phash"])
    scores = tables.part("outlier.embed", "scores", partition, ["sample_id", "vlm", "detector"])
    captions = tables.part("caption.choose", "captions", partition, ["sample_id", "top", "ssl", "chosen"])
    places = tables.part("geo.locate", "places", partition, _OF_PLACES)
    rows = placed.join(candidates, on="sample_id").join(fetched, on="sample_id").join(inspected, on="sample_id")
    rows = rows.join(scores, on="sample_id", how="left").join(captions, on="sample_id", how="left")
    rows = rows.join(places, on="sample_id", how="left")
    extension = pl.col("media_type").replace_strict(dict(EXTENSIONS), default=None, return_dtype=pl.String)
    number = pl.col("number").cast(pl.String).str.zfill(4)
    return rows.with_columns(
        pl.concat_str("subset", pl.lit("-"), "split", pl.lit("-"), number).alias("tar"),
        pl.concat_str(name_without_suffix(), pl.lit("."), extension).alias("img_name"),
        pl.col("tar").alias("image_tar"),
    )


def composed(parts: Mapping[str, Sequence[str]]) -> pl.Expr:
    """Return the released text of each row.

    Args:
        parts: Columns (text, meta, chosen, top, ssl) by source, joined by a space in that order; what a row lacks is
            left out. ``*``: every source that is not named. A row that has none of them gets what it does have, the
            chosen caption or its text.
    """
    text = _joined(parts.get("*", ["text"]))
    for source, columns in sorted(parts.items()):
        if source != "*":
            text = pl.when(pl.col("source") == source).then(_joined(columns)).otherwise(text)
    return pl.when(text.str.len_bytes() > 0).then(text).otherwise(pl.coalesce("chosen", "text"))


def _joined(columns: Sequence[str]) -> pl.Expr:
    if not columns:
        return pl.lit("")
    known = [pl.when(pl.col(name).str.len_bytes() > 0).then(name) for name in columns]
    return pl.concat_str(known, separator=" ", ignore_nulls=True)


def _subsets(tables: Tables) -> list[str]:
    """Return the subsets that a build has candidates of; the web's, where there are none at all."""
    pooled = dict.fromkeys(file.partition for file in tables.files("filter.pool", "candidates"))
    parts = (tables.part("filter.pool", "candidates", name, ["subset"])["subset"].unique() for name in pooled)
    there = {subset for part in parts for subset in part}
    return [subset for subset in SUBSETS if subset in there] or [SUBSETS[0]]


def _nothing() -> pl.DataFrame:
    """Return what is held of a planned row, without rows: what the tables `plan` and `samples` say of it."""
    schema = {**empty_frame(TABLES["samples"]).schema, **empty_frame(TABLES["plan"]).schema}
    return pl.DataFrame(schema={name: kind for name, kind in schema.items() if name != "position"})


def _held(rows: pl.DataFrame) -> pl.DataFrame:
    """Return what is held of planned rows; columns that later steps fill are null."""
    schema = _nothing().schema
    missing = [pl.lit(None, schema[name]).alias(name) for name in schema if name not in rows.columns]
    return rows.with_columns(missing).select(pl.col(name).cast(kind) for name, kind in schema.items())


def _samples(rows: pl.DataFrame) -> pl.DataFrame:
    """Return samples.parquet as planned."""
    return rows.select(empty_frame(TABLES["samples"]).columns)
