"""outlier.cut: who stays, by the stored scores of the whole pool. No model is touched."""

from __future__ import annotations

import polars as pl

from manifests.ledger import count_by_source, ledger_frame
from manifests.recipe import Settings
from stages.outlier.thresholds import Threshold, judge
from stages.places import lane
from stages.step import Input, Output, Prior, Result, Step, Tables, Task

_OF_SURVIVORS = ("sample_id", "source", "split_group")


class Cut(Step):
    """Keeps a web row iff both scores pass their cut; rows of archives pass uncut."""

    name = "outlier.cut"
    kind = "reduce"
    VERSION = 1
    reads = (
        "outlier.vlm.keep_top",
        "outlier.vlm.at_least",
        "outlier.detector_cut.keep_top",
        "outlier.detector_cut.at_least",
    )
    inputs = (Input("outlier.embed", "scores"), Input("dedup.cluster", "survivors"))
    outputs = ("survivors",)
    keeps = "survivors"

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Cut the pool."""
        del prior
        parts = tables.partitions("dedup.cluster", "survivors")
        survivors = pl.concat([part.with_columns(pl.lit(name).alias("partition")) for name, part in parts] or [_none()])
        rows = survivors.join(tables.frame("outlier.embed", "scores"), on="sample_id")
        web = [name for name, _ in parts if lane(name) == "pub11"]
        pool, uncut = rows.filter(pl.col("partition").is_in(web)), rows.filter(~pl.col("partition").is_in(web))
        judged = judge(pool, *thresholds(task.settings))
        pool = pool.hstack(judged.rows)
        stay = pl.col("reason").is_null()
        kept = pl.concat([pool.filter(stay).select(uncut.columns), uncut])
        left = pool.filter(~stay).select("source", "sample_id", "sha256", "reason", "value", "cut", "detail")
        found = {str(name): part for (name,), part in kept.partition_by("partition", as_dict=True).items()}
        return Result(
            outputs=[
                Output("survivors", found.get(name, kept.clear()).select(_OF_SURVIVORS), partition=name)
                for name, _ in parts
            ],
            ledger=ledger_frame(task.step, left),
            seen=count_by_source(rows),
            kept=count_by_source(kept),
            facts={"vlm_cut": judged.vlm_cut, "detector_cut": judged.detector_cut, "pool_rows": pool.height},
        )


def thresholds(settings: Settings) -> tuple[Threshold, Threshold]:
    """Return what the VLM score and the detector's score must pass."""
    vlm, detector = (
        Threshold(settings.number(f"outlier.{cut}.keep_top"), settings.number(f"outlier.{cut}.at_least"))
        for cut in ("vlm", "detector_cut")
    )
    return vlm, detector


def _none() -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys((*_OF_SURVIVORS, "partition"), pl.String))
