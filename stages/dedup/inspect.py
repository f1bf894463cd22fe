"""dedup.inspect: decodes every image once, under guard, and keeps what clustering needs: hashes, sizes, a thumbnail."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import polars as pl

from manifests.ledger import Departures, count_by_source
from manifests.recipe import Settings
from manifests.schemas import TABLES
from manifests.tables import empty_frame
from stages.dedup.guarded import inspect_guarded
from stages.dedup.one_image import inspected as inspected
from stages.images import Place, read_images
from stages.picture_files import codec_versions
from stages.step import Input, Output, Prior, Result, Step, Tables, Task

_OF_FETCHED = ["sample_id", "url", "tar", "offset", "length", "sha256"]
_LIBRARIES = ("numpy", "pillow", "scipy")


class Inspect(Step):
    """Drops what cannot be decoded; hashes the rest. Rows inspected before under equal settings are taken over."""

    name = "dedup.inspect"
    kind = "map"
    VERSION = 2
    reads = ("dedup.hash", "dedup.max_pixels")
    inputs = (Input("download.fetch", "fetched"), Input("filter.pool", "candidates"))
    outputs = ("inspected",)
    keeps = "inspected"
    carries = True

    def process(self, task: Task, tables: Tables, prior: Prior) -> Result:
        """Inspect the partition's images, in a process of its own: a codec's crash costs one image.

        Raises:
            CorruptFileError: Stored bytes changed.
            GuardError: That process cannot be started, or is killed again and again.
        """
        sources = tables.frame("filter.pool", "candidates", ["sample_id", "source"])
        fetched = tables.frame("download.fetch", "fetched", _OF_FETCHED).join(sources, on="sample_id")
        seen = count_by_source(fetched)
        kind, max_pixels = task.settings.text("dedup.hash"), task.settings.integer("dedup.max_pixels")
        known = _taken_over(prior, fetched)
        todo = fetched.filter(~pl.col("sha256").is_in(list(known))).unique("sha256", keep="first").sort("sha256")
        places = [Place(**row) for row in todo.select("tar", "offset", "length", "sha256").iter_rows(named=True)]
        for index, found in inspect_guarded(read_images(tables.store, places), kind, max_pixels):
            known[places[index].sha256] = found
        kept, departures = _rows(fetched, known, task)
        return Result(
            outputs=[Output("inspected", kept)],
            ledger=departures.frame(),
            seen=seen,
            kept=count_by_source(kept.join(sources, on="sample_id")),
            facts={"decoded_images": len(places), "recorded_images": len(known) - len(places)},
        )

    def profile(self, settings: Settings) -> dict[str, str]:
        """Return the versions of the codecs and of the libraries that resample and transform."""
        del settings
        return codec_versions() | {name: version(name) for name in _LIBRARIES}


def _taken_over(prior: Prior, fetched: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return what is known of the images by sha256: equal bytes under an equal row fingerprint decode alike."""
    wanted = fetched.select("sha256").unique()
    known: dict[str, dict[str, Any]] = {}
    for commit in prior.commits(fetched["url"].to_list()):
        if len(known) == wanted.height:
            break
        rows = commit.frame("inspected").join(wanted, on="sha256", how="semi").unique("sha256", keep="first")
        for row in rows.drop("sample_id").iter_rows(named=True):
            known.setdefault(row["sha256"], row)
        for row in commit.ledger().join(wanted, on="sha256", how="semi").iter_rows(named=True):
            known.setdefault(row["sha256"], {"reason": row["reason"], "detail": row["detail"]})
    return known


def _rows(fetched: pl.DataFrame, known: dict[str, dict[str, Any]], task: Task) -> tuple[pl.DataFrame, Departures]:
    departures = Departures(task.step, final=task.final)
    kept: list[dict[str, Any]] = []
    for sample_id, source, sha256 in fetched.select("sample_id", "source", "sha256").iter_rows():
        found = known[sha256]
        if "reason" in found:
            departures.add(source, sample_id, found["reason"], sha256=sha256, detail=found["detail"])
        else:
            kept.append({**found, "sample_id": sample_id, "sha256": sha256})
    schema = empty_frame(TABLES["inspected"]).schema
    columns: dict[str, Any] = {name: [row[name] for row in kept] for name in schema if name != "thumbnail"}
    pixels = [np.asarray(row["thumbnail"], dtype=np.uint8) for row in kept]
    thumbnails = np.stack(pixels) if pixels else np.empty((0, 256), dtype=np.uint8)
    columns["thumbnail"] = pl.Series(thumbnails, dtype=schema["thumbnail"])
    return pl.DataFrame({name: columns[name] for name in schema}, schema=schema), departures
