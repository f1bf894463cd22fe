"""A list that is added later takes rows out of a finished build: no row is read, fetched, decoded or scored again."""

import json

import polars as pl
import pytest

from manifests.recipe_files import RecipeError

# What a web row's takedown may touch beside the row's own partition: steps that see all rows at once.
_REDUCED = {"filter.pool/all", "dedup.cluster/all", "outlier.cut/all", "shard.plan/all", "shard.index/all"}
_FACTS = {"dedup.inspect": "decoded_images", "outlier.embed": "scored_images", "caption.generate": "captioned_images"}
_COLUMNS = {"ids": "img_name", "urls": "url", "sha256": "sha256"}
pytestmark = pytest.mark.usefixtures("no_model")


def _released(workdir):
    return pl.read_parquet(workdir.path / "release/metafile/samples.parquet")


def _victim(workdir):
    """Return a released row of the web that leads no cluster, so that no copy takes its place."""
    led = set(workdir.table("dedup.cluster", "clusters")["cluster_id"])
    rows = _released(workdir).filter((pl.col("subset") == "pub11") & ~pl.col("sample_id").is_in(list(led)))
    return rows.sort("sample_id").row(-1, named=True)


def _worked(ended, workdir):
    """Return what was committed in the newest run, as step/partition."""
    assert ended.exit_code == 0
    newest = max((workdir.path / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    events = map(json.loads, (newest / "events.jsonl").read_text().splitlines())
    return {f"{e['step']}/{e['partition']}" for e in events if e["event"] == "partition_done"}


def _listing(workdir, kind, *entries, name="list.txt"):
    (workdir.path / name).write_text("# a takedown\n" + "".join(f"{entry}\n" for entry in entries))
    return f"exclude.{kind}={name}"


@pytest.mark.parametrize("kind", ["ids", "urls", "sha256"])
def test_a_takedown_touches_the_row_and_what_holds_it(settled, asked, kind):
    before, row = _released(settled), _victim(settled)
    tars = {path: path.read_bytes() for path in (settled.path / "release").rglob("*.tar")}
    listed = _listing(settled, kind, row[_COLUMNS[kind]])
    done = _worked(settled.run(listed), settled)
    assert not asked
    assert not any(name.startswith("filter.match/") for name in done)
    assert {name for name in done if name.startswith("shard.pack/")} == {f"shard.pack/{row['tar']}"}
    for name, manifest in settled.manifests(listed).items():
        if name in done and (fact := _FACTS.get(name.split("/")[0])):
            assert manifest.facts[fact] == 0, name
    after = _released(settled)
    assert set(before["sample_id"]) - set(after["sample_id"]) == {row["sample_id"]}
    assert set(after["sample_id"]) < set(before["sample_id"])
    changed = {path.stem for path, body in tars.items() if path.read_bytes() != body}
    assert changed == {row["tar"]}


def test_a_host_leaves_with_all_its_rows(settled, asked):
    listed = _listing(settled, "hosts", "rs5m.test")
    assert settled.run(listed).exit_code == 0
    assert not asked
    assert set(_released(settled)["subset"]) == {"rs3"}
    dropped = [c.dropped.get("filter.excluded", 0) for c in settled.manifests(listed)["filter.pool/all"].rows.values()]
    assert sum(dropped) > 0


@pytest.mark.parametrize("kind", ["ids", "urls", "sha256"])
def test_a_list_that_moved_or_was_commented_changes_nothing_and_one_that_is_gone_gives_the_row_back(
    settled, reference, asked, kind
):
    entry = _victim(settled)[_COLUMNS[kind]]
    assert settled.run(_listing(settled, kind, entry)).had_work
    assert not settled.run(_listing(settled, kind, f"# why\n\n{entry}", name="moved.txt")).had_work
    assert settled.run().exit_code == 0
    assert not asked
    assert settled.snapshot() == reference


def test_excluded_bytes_are_not_asked_for_again_when_something_else_changes(settled, asked):
    row = _victim(settled)
    bodies = _listing(settled, "sha256", row["sha256"])
    assert settled.run(bodies).exit_code == 0
    more = _listing(settled, "ids", "0" * 32, name="more.txt")
    assert settled.run(bodies, more, "download.max_bytes=20000000").exit_code == 0
    assert not asked
    assert row["sample_id"] not in set(_released(settled)["sample_id"])


def test_a_fresh_build_keeps_no_excluded_bytes(fresh, settled, monkeypatch):
    monkeypatch.undo()  # a fresh build scores
    sha256 = _victim(settled)["sha256"]
    assert fresh.run(_listing(fresh, "sha256", sha256)).exit_code == 0
    assert sha256 not in set(fresh.table("download.fetch", "fetched", "exclude.sha256=list.txt")["sha256"])
    assert not any(sha256.encode() in tar.read_bytes() for tar in (fresh.path / "data/download.fetch").rglob("*.tar"))


def test_a_bad_list_is_refused_before_any_work(settled):
    with pytest.raises(RecipeError, match=r"exclude\.hosts: list\.txt, line 2: .* write a\.org$"):
        settled.run(_listing(settled, "hosts", "http://a.org/x"))
    assert not (settled.path / "runs").exists()
