"""The books close: every row that comes in is kept or stands in the ledger, once, per source and step."""

import shutil
from collections import Counter
from dataclasses import replace

import polars as pl
import pytest

from manifests.reasons import reasons
from manifests.sources import load_sources
from pipeline import line
from pipeline.line import LINE, step_named
from stages.dedup.inspect import Inspect
from stages.filter.pool import Pool
from stages.shard.pack import Pack

# Per step: where the ids it is given stand, and where the ids it keeps stand, as (step, output).
MOVES = {
    "filter.pool": (("filter.match", "candidates"), ("filter.pool", "candidates")),
    "download.fetch": (("filter.pool", "candidates"), ("download.fetch", "fetched")),
    "dedup.inspect": (("download.fetch", "fetched"), ("dedup.inspect", "inspected")),
    "dedup.cluster": (("dedup.inspect", "inspected"), ("dedup.cluster", "survivors")),
    "outlier.embed": (("dedup.cluster", "survivors"), ("outlier.embed", "scores")),
    "outlier.cut": (("outlier.embed", "scores"), ("outlier.cut", "survivors")),
    "caption.generate": (("outlier.cut", "survivors"), ("caption.generate", "survivors")),
    "caption.choose": (("caption.generate", "survivors"), ("caption.choose", "captions")),
    "geo.locate": (("outlier.cut", "survivors"), ("geo.locate", "places")),
    "shard.plan": (("geo.locate", "places"), ("shard.plan", "samples")),
    "shard.pack": (("shard.plan", "samples"), ("shard.pack", "packed")),
    "shard.index": (("shard.pack", "packed"), None),
}


# The world does not say what a quantile takes.
CUT = {"outlier.vlm", "outlier.detector"}


def _ledger(workdir, step):
    files = {m.ledger.path for key, m in workdir.manifests().items() if key.startswith(f"{step}/")}
    return pl.concat([pl.read_parquet(workdir.path / file) for file in sorted(files)])


def _of_lanes(workdir, output, lanes):
    """Return the ids of one output that belong to lanes."""
    sources = dict(workdir.table("filter.pool", "candidates").select("sample_id", "source").iter_rows())
    specs = load_sources()
    return [i for i in workdir.table(*output)["sample_id"] if not i or specs[sources[i]].subset in lanes]


def _released(workdir):
    return pl.read_parquet(workdir.path / "release/metafile/samples.parquet")


def test_every_step_of_the_line_is_looked_at():
    assert {step.name for step in LINE} == {"filter.match", *MOVES}


@pytest.mark.parametrize("step", list(MOVES))
def test_ids_in_are_ids_kept_and_ids_in_the_ledger(built, step):
    given, kept = MOVES[step]
    before = Counter(_of_lanes(built, given, step_named(step).lanes))
    after = Counter((built.table(*kept) if kept else _released(built))["sample_id"])
    left = Counter(_ledger(built, step)["sample_id"])
    assert before == after + left
    if step != "filter.pool":  # a row that repeats an id leaves it to the one that stays
        assert not after & left


@pytest.mark.parametrize("step", [step.name for step in LINE])
def test_counts_of_the_manifests_are_counts_of_the_tables(built, step):
    books = [m.rows for key, m in built.manifests().items() if key.startswith(f"{step}/")]
    listed = Counter((row["source"], row["class"], row["reason"]) for row in _ledger(built, step).to_dicts())
    booked = Counter()
    for source, counts in [item for book in books for item in book.items()]:
        assert counts.seen == counts.kept + counts.left
        for kind in ("dropped", "failed", "deferred"):
            booked.update({(source, kind, reason): rows for reason, rows in getattr(counts, kind).items()})
    counted_only = {key: rows for key, rows in booked.items() if not reasons()[key[2]].in_ledger}
    assert {key: rows for key, rows in booked.items() if key not in counted_only} == listed


def test_what_filter_saw_is_what_the_metadata_holds_and_what_the_world_says_of_each_row(built):
    truth = pl.read_parquet(built.path / "world/truth.parquet")
    seen = Counter()
    for key, manifest in built.manifests().items():
        if key.startswith("filter.match/"):
            seen.update({source: counts.seen for source, counts in manifest.rows.items()})
    assert seen == Counter(truth["source"])


def test_every_row_ends_as_the_world_planned_it(built):
    truth = pl.read_parquet(built.path / "world/truth.parquet").filter(pl.col("url").is_not_null())
    ended = {(row["source"], row["url"]): {"released"} for row in _released(built).to_dicts()}
    urls = dict(built.table("filter.match", "candidates").select("sample_id", "url").iter_rows())
    for step in LINE:
        for row in _ledger(built, step.name).to_dicts():
            key = (row["source"], row["url"] or urls.get(row["sample_id"]))
            ended.setdefault(key, set()).add(row["reason"])
    for row in truth.to_dicts():
        states = ended.get((row["source"], row["url"]), {"filter.no_keyword"})
        if row["expected"] == "cluster":
            copies = {"dedup.same_url", "dedup.same_bytes", "dedup.near_duplicate"}
            assert states & (copies | CUT | {"released"}), row
        elif row["expected"] == "released":
            assert states & (CUT | {"released"}), row
        else:
            assert row["expected"] in states, row


class _Losing:
    """A step that forgets its last row."""

    def process(self, task, tables, prior):
        result = super().process(task, tables, prior)
        spot = next(i for i, o in enumerate(result.outputs) if o.name == self.keeps and o.frame.height)
        shorter = replace(result.outputs[spot], frame=result.outputs[spot].frame[:-1])
        return replace(result, outputs=[*result.outputs[:spot], shorter, *result.outputs[spot + 1 :]])


class _Hiding(_Losing):
    """A step that forgets its last row and counts as if it had never come in."""

    def process(self, task, tables, prior):
        result = super().process(task, tables, prior)
        source = next(source for source, rows in sorted(result.kept.items()) if rows)
        result.seen[source] -= 1
        result.kept[source] -= 1
        return result


class _Unlisted(_Losing):
    """A step that forgets its last row and says so of its output, but not in the ledger."""

    def process(self, task, tables, prior):
        result = super().process(task, tables, prior)
        result.kept[next(source for source, rows in sorted(result.kept.items()) if rows)] -= 1
        return result


@pytest.mark.parametrize("way", [_Losing, _Hiding, _Unlisted])
@pytest.mark.parametrize("step", [Pool, Inspect, Pack])
def test_a_step_that_loses_a_row_is_refused(settled, reference, monkeypatch, step, way):
    shutil.rmtree(settled.path / "commits" / step.name)
    monkeypatch.setitem(line._BY_NAME, step.name, type(step.__name__, (way, step), {})())
    ended = settled.run()
    assert ended.exit_code == 4
    assert step.name in ended.summary.broken
    name = ended.summary.broken.split(",")[0].split(":")[0]
    assert name not in settled.manifests()
    monkeypatch.undo()
    assert settled.run().exit_code == 0
    assert settled.snapshot() == reference
