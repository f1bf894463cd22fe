import time

import polars as pl

from manifests.commits import CommitStore
from manifests.fingerprint import Parts
from manifests.manifest import LedgerReceipt, Manifest
from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.garbage import collect
from pipeline.locks import Lock
from stages.outlier import embed
from tests.pipeline.read_commands import ask


def files(workdir):
    return {str(p.relative_to(workdir.path)) for p in workdir.path.rglob("*") if p.is_file()}


def test_a_settled_build_has_no_garbage(settled):
    before = files(settled)
    answer = ask(settled, "gc")
    assert answer.exit_code == 0
    assert answer.out == "removed 0 files, 0 bytes\n"
    assert files(settled) == before


def test_leftovers_go_and_what_commits_point_at_stays(settled, reference):
    before = files(settled)
    leftovers = {
        "data/dedup.cluster/all/survivors-000000000000.parquet": b"12345",
        "data/download.fetch/web-0001/images-000000000000.tar": b"1",
        "ledger/filter.pool/all-000000000000.parquet": b"22",
        "data/shard.plan/all/.tmp-0123": b"333",
        "release/train/.tmp-4567": b"4444",
        "release/train/pub11-train-0000.tar.corrupt": b"55555",
        "commits/filter.pool/all@0000000000000000.0000.json.corrupt": b"6",
    }
    for name, body in leftovers.items():
        (settled.path / name).write_bytes(body)
    planned = ask(settled, "gc", "--dry-run").out
    assert files(settled) == before | set(leftovers)
    assert planned.endswith("would remove 7 files, 21 bytes\n")
    assert "would remove data/shard.plan/all/.tmp-0123 (3 bytes)\n" in planned
    assert ask(settled, "gc").out == planned.replace("would remove", "removed")
    assert files(settled) == before
    assert settled.snapshot() == reference
    assert not settled.run().had_work


def test_superseded_commits_go_with_what_only_they_point_at(settled, reference):
    assert settled.run("dedup.radius=0").exit_code == 0
    changed = settled.snapshot("dedup.radius=0")
    with_both = files(settled)
    assert ask(settled, "gc", "--set", "dedup.radius=0").out == "removed 0 files, 0 bytes\n"
    answer = ask(settled, "gc", "--set", "dedup.radius=0", "--superseded")
    assert answer.exit_code == 0
    assert "commits\n" in answer.out
    assert files(settled) < with_both
    commits = sorted((settled.path / "commits/dedup.cluster").iterdir())
    assert len(commits) == 1
    assert not any(".0000.json" in path.name for path in (settled.path / "commits/download.fetch").glob("web-*"))
    assert settled.snapshot("dedup.radius=0") == changed
    assert not settled.run("dedup.radius=0").had_work
    assert ask(settled, "verify", "--set", "dedup.radius=0").exit_code == 0
    before = settled.table("download.fetch", "fetched", "dedup.radius=0")
    assert settled.run().exit_code == 0
    assert settled.snapshot() == reference
    assert settled.table("download.fetch", "fetched").equals(before)


def test_superseded_leaves_alone_what_a_run_may_still_take_over(settled, reference):
    """Under settings that have not run yet, recorded answers of the web are not thrown away."""
    unsettled = ("--set", "download.max_bytes=20000")
    answer = ask(settled, "gc", "--superseded", *unsettled)
    assert "kept the earlier commits of download.fetch: it is not settled under these settings\n" in answer.out
    assert settled.snapshot() == reference


def test_never_beside_a_run(settled):
    with Lock(Store(str(settled.path)), "run", 0.02, lambda _: None):
        answer = ask(settled, "gc")
    assert answer.exit_code == 2
    assert "in use" in answer.err


def test_an_unreadable_commit_stops_it(settled):
    path = next((settled.path / "commits/dedup.cluster").iterdir())
    path.unlink()
    path.write_bytes(b"{}")
    before = files(settled)
    answer = ask(settled, "gc")
    assert answer.exit_code == 2
    assert "`rs5m-build verify`, which sets it aside" in answer.err
    assert files(settled) == before


class Lagging(Store):
    """An object store whose lists show no commit for a while."""

    since_s = 0.0

    def scan(self, folder):
        hidden = time.monotonic() - self.since_s < 0.3
        return (entry for entry in super().scan(folder) if not (hidden and entry.path.startswith("commits/")))


def test_files_of_commits_that_a_list_does_not_show_yet_stay(tmp_path):
    store = Lagging(f"memory://{tmp_path.name}")
    receipt = LedgerReceipt(path="ledger/filter.match/a.parquet", sha256="0", bytes=1, rows=0)
    parts = Parts(inputs=[], recipe={}, code=1)
    made = Manifest(
        step="filter.match", partition="a", fingerprint=parts.fingerprint,
        row_fingerprint=parts.row_fingerprint(recording=False), parts=parts, open=False, outputs=[], ledger=receipt,
        rows={}, facts={},
    )  # fmt: skip
    store.replace(receipt.path, b"x")
    store.replace("ledger/filter.match/orphan.parquet", b"x")
    CommitStore(store).commit(made, 0)
    store.since_s = time.monotonic()
    collect(load_recipe("nano", ["run.lock_beat_s=0.2"]), store, lambda _: None, dry_run=False, superseded=False)
    assert [entry.path for entry in store.find("ledger")] == [receipt.path]


def commits(workdir):
    return {str(p.relative_to(workdir.path)) for p in (workdir.path / "commits").rglob("*.json")}


def under(monkeypatch, version):
    """Let scores be computed under another numeric profile."""
    monkeypatch.setattr("stages.outlier.embed.numeric_profile", lambda _: {"library": version})


def test_what_another_machine_counts_stays(settled, monkeypatch):
    """A machine that could have made neither of two generations of scores removes neither."""
    for version in ("1", "2"):
        under(monkeypatch, version)
        assert settled.run().exit_code == 0
    made = {path for path in commits(settled) if path.startswith("commits/outlier.embed/")}
    under(monkeypatch, "3")
    answer = ask(settled, "gc", "--superseded")
    assert "kept" not in answer.out
    assert answer.out.endswith(" commits\n"), "lower passes go as ever"
    assert made <= commits(settled)
    for version in ("1", "2"):
        under(monkeypatch, version)
        assert not settled.run().had_work


def test_what_reads_different_scores_of_two_machines_stays(settled, monkeypatch):
    scores = embed._scores
    assert settled.run().exit_code == 0
    under(monkeypatch, "2")
    monkeypatch.setattr(embed, "_scores", lambda *given: scores(*given).with_columns(pl.col("vlm") * 0.5))
    assert settled.run().exit_code == 0
    made = {path for path in commits(settled) if path.startswith(("commits/outlier.", "commits/shard."))}
    assert len(list((settled.path / "commits/outlier.cut").iterdir())) == 2
    under(monkeypatch, "3")
    answer = ask(settled, "gc", "--superseded")
    assert "kept all commits of outlier.cut: what it reads was made under more than one numeric profile" in answer.out
    assert made <= commits(settled)
