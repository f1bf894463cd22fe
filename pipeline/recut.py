"""`rs5m-build recut`: what other thresholds would leave of the scored pool, from stored scores alone.

With ``--dry-run`` nothing is written: it shows the funnel that the thresholds would give and the paper's heat map for
this pool. Without it the step ``outlier.cut`` is run under them as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace

import polars as pl

from manifests.canonical import JsonValue
from manifests.ledger import RowCounts, close_books, count_by_source, ledger_frame, to_counts
from manifests.manifest import FORMAT
from manifests.recipe import Recipe, Settings
from manifests.source_specs import enabled_specs
from manifests.sources import SourceSpec
from manifests.store import Store
from pipeline.books import leak_counts, read_books
from pipeline.build import planner_over
from pipeline.commands import run_build
from pipeline.errors import UserError
from pipeline.funnel import REMOVED, FunnelRow, funnel, total
from pipeline.line import step_named
from pipeline.outlier_page import recut_lines
from pipeline.planner import Planner
from pipeline.progress import stderr_say
from pipeline.table_scan import scan, spec_of
from stages.outlier.cut import thresholds
from stages.outlier.heat import SHARES, heat_map
from stages.outlier.thresholds import Judged, Threshold, exact, judge, rows_in_top
from stages.places import lane
from stages.step import CorruptFileError

_CUT, _SCORES, _SURVIVORS = "outlier.cut", "outlier.embed", "dedup.cluster"
_SUBSETS = ("pub11", "rs3")


@dataclass(frozen=True, slots=True)
class Pool:
    """What the stored scores say.

    Attributes:
        web: One row per row that the cuts judge: sample_id, source, vlm, detector.
        uncut: Rows of archives, which pass: by source.
    """

    web: pl.DataFrame
    uncut: dict[str, int]


def recut(recipe: Recipe, store: Store, *, dry_run: bool, as_json: bool, arguments: list[str]) -> int:
    """Show what the recipe's thresholds leave, and cut by them unless it is a dry run; returns the exit code.

    Args:
        recipe: The current recipe with the thresholds to try.
        store: The workdir.
        dry_run: Whether nothing is written.
        as_json: Whether to print JSON.
        arguments: The command line, for the run's record.

    Raises:
        UserError: If there are no scores under this recipe, or a stored table cannot be read: says what to run.
        ModelMissingError: If the recipe's models cannot be told by digest.
    """
    try:
        document = recut_document(recipe, store)
    except CorruptFileError as error:
        raise UserError(f"{error}; run `rs5m-build verify`, which sets it aside, then `rs5m-build run`") from error
    code = 0
    if not dry_run:
        code = run_build(recipe, store, _CUT, "", [], "", "", "", arguments)
        if code:
            return code
        stderr_say(f"{_CUT} holds these thresholds; `rs5m-build run` with the same --set carries them to the release")
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in recut_lines(document)))
    return code


def recut_document(recipe: Recipe, store: Store) -> dict[str, JsonValue]:
    """Return what the thresholds would leave, as JSON.

    Columns of the funnel are those of `pipeline.funnel`; ``remain`` is what goes on from the cut. ``heat_map`` has
    shares of the VLM score as rows and shares of the detector's as columns.
    """
    planner = _planned(recipe, store)
    pool = read_pool(planner, store)
    vlm, detector = thresholds(Settings(planner.settings(step_named(_CUT))))
    judged = judge(pool.web, vlm, detector)
    books = _books(pool, judged)
    rows = _funnel(planner, recipe, books)
    return {
        "format": FORMAT,
        "recipe": recipe.name,
        "thresholds": {"vlm": asdict(vlm), "detector_cut": asdict(detector)},
        "cuts": {"vlm": judged.vlm_cut, "detector": judged.detector_cut},
        "pool_rows": pool.web.height,
        "kept_rows": int(judged.rows["reason"].null_count()),
        "reasons": {reason: _rows_of(judged, reason) for reason in ("vlm", "detector", "no_score")},
        "funnel": {subset: _table(subset, rows, enabled_specs(recipe)) for subset in _SUBSETS},
        "heat_map": {
            "shares": list[JsonValue](SHARES),
            "rows": heat_map(exact(pool.web["vlm"]), exact(pool.web["detector"])).tolist(),
        },
        "notes": list[JsonValue](_notes(pool.web.height, vlm, detector)),
    }


def read_pool(planner: Planner, store: Store) -> Pool:
    """Return the stored scores of every row that is settled.

    Raises:
        CorruptFileError: If a table cannot be read.
    """
    scores = _tables(planner, store, _SCORES, "scores", ("sample_id", "vlm", "detector"))
    survivors = _tables(planner, store, _SURVIVORS, "survivors", ("sample_id", "source"))
    rows = pl.concat(survivors).join(pl.concat(scores), on="sample_id") if survivors and scores else _no_rows()
    web = rows.filter(pl.col("lane") == "pub11").drop("lane")
    return Pool(web, count_by_source(rows.filter(pl.col("lane") == "rs3")))


def _tables(planner: Planner, store: Store, step: str, output: str, columns: tuple[str, ...]) -> list[pl.DataFrame]:
    """Return the tables of one output; those of survivors know their lane."""
    found = []
    for partition, manifest in sorted(planner.plan(step_named(step)).settled().items()):
        for receipt in manifest.outputs:
            spec = spec_of(step, receipt) if receipt.name == output else None
            if spec:
                frame = scan(store, spec, receipt.path, columns=columns)
                walked = pl.lit(lane(receipt.partition or partition)).alias("lane")
                found.append(frame.with_columns(walked) if output == "survivors" else frame)
    return found


def _planned(recipe: Recipe, store: Store) -> Planner:
    """Return a planner over a workdir that holds scores for this recipe. Raises UserError where it does not."""
    if recipe.world and store.size("world/world.json") is None:
        raise UserError(f"{store.uri}: its world is not built yet; run `rs5m-build run --until outlier` first")
    planner, _ = planner_over(recipe, store, reading=True)
    plan = planner.plan(step_named(_SCORES))
    skip = set(recipe.run.skip)
    missing = [*plan.waiting, *(p.name for p in plan.partitions if p.state != "done" and p.name not in skip)]
    if missing or not plan.partitions:
        steps = ", ".join(dict.fromkeys(name.split("/")[0] for name in missing)) or _SCORES
        raise UserError(
            f"{store.uri}: not every image has its scores under this recipe ({steps} is not settled); run "
            "`rs5m-build run --until outlier.embed` with the same settings first"
        )
    return planner


def _books(pool: Pool, judged: Judged) -> dict[str, RowCounts]:
    """Return the books that the cut would have, closed as the driver closes them."""
    rows = pool.web.hstack(judged.rows)
    stay = pl.col("reason").is_null()
    left = ledger_frame(_CUT, rows.filter(~stay).select("source", "sample_id", "reason", "value", "cut", "detail"))
    kept = count_by_source(rows.filter(stay))
    seen = count_by_source(rows)
    for source, passed in pool.uncut.items():
        seen[source] = seen.get(source, 0) + passed
        kept[source] = kept.get(source, 0) + passed
    return close_books(_CUT, seen, kept, to_counts(left), {})


def _funnel(planner: Planner, recipe: Recipe, books: dict[str, RowCounts]) -> dict[str, FunnelRow]:
    """Return the funnel's rows by source, up to the cut and under its books."""
    sought = bool(leak_counts(planner))
    rows = funnel(read_books(planner) | {_CUT: books}, enabled_specs(recipe), leaks_sought=sought)
    return {source: replace(row, other=None, remain=_remain(row)) for source, row in rows.items()}


def _remain(row: FunnelRow) -> int | None:
    if row.download is None:
        return None
    return row.download - sum(getattr(row, column) or 0 for column in REMOVED if column != "other")


def _table(subset: str, rows: dict[str, FunnelRow], specs: Mapping[str, SourceSpec]) -> JsonValue:
    mine = {source: row for source, row in rows.items() if specs[source].subset == subset}
    listed: list[JsonValue] = [
        {"source": source, "name": specs[source].name, **asdict(row)} for source, row in mine.items()
    ]
    return {"rows": listed, "total": asdict(total(mine.values()))}


def _rows_of(judged: Judged, reason: str) -> int:
    return int((judged.rows["reason"] == f"outlier.{reason}").sum())


def _notes(pool_rows: int, vlm: Threshold, detector: Threshold) -> Iterable[str]:
    """Say which shares cut nobody because the pool is too small for them."""
    for key, cut in (("vlm", vlm), ("detector_cut", detector)):
        if cut.keep_top < 1 and rows_in_top(pool_rows, cut.keep_top) == pool_rows:
            yield (
                f"outlier.{key}.keep_top = {cut.keep_top} cuts nobody: of {pool_rows} rows less than one is to leave"
            )


def _no_rows() -> pl.DataFrame:
    schema = {"sample_id": pl.String, "source": pl.String, "lane": pl.String, "vlm": pl.Float32, "detector": pl.Float32}
    return pl.DataFrame(schema=schema)
