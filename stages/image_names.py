"""What released images are called: the part of a name that the table of candidates tells."""

from __future__ import annotations

import polars as pl


def own_name() -> pl.Expr:
    """Return a row's own name, from its columns sample_id, source, subset and url.

    A web row is named by its id; an image of an archive keeps its official name, without folder and suffix. fMoW
    numbers the locations of each of its splits anew: names from any but ``train`` say their split.
    """
    path = pl.col("url").str.replace(r"^[^:]*:", "")
    official = path.str.replace(r"^.*/", "").str.replace(r"\.[A-Za-z0-9]+$", "")
    split = path.str.extract(r"^([^/]+)/")
    other_split = (pl.col("source") == "fmow") & (split != "train")
    named = pl.when(other_split).then(pl.concat_str(split, pl.lit("_"), official)).otherwise(official)
    return pl.when(pl.col("subset") == "rs3").then(named).otherwise("sample_id")


def name_without_suffix() -> pl.Expr:
    """Return ``<source>_<own name>``: the released ``img_name`` without the suffix that its bytes will give it."""
    return pl.concat_str("source", pl.lit("_"), own_name())
