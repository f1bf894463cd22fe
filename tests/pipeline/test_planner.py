"""The planner: what is done, open and to do, what waits for what, and which part of a fingerprint changed."""

from collections import Counter
from pathlib import Path

import pytest

from manifests.commits import CommitStore
from manifests.fingerprint import Change
from manifests.store import Store
from pipeline.line import LINE, step_named
from pipeline.metadata import metadata_slices
from pipeline.planner import Planner
from pipeline.repair import set_aside
from tests.world_building import Workdir


def _planner(
    workdir: Workdir,
    *overrides: str,
    retry_failed: bool = False,
    reading: bool = False,
    store: Store | None = None,
    commits: CommitStore | None = None,
) -> Planner:
    store, recipe = store or Store(str(workdir.path)), workdir.recipe(*overrides)
    slices = metadata_slices(recipe, store)
    commits = commits or CommitStore(store)
    return Planner(recipe, store, commits, slices, retry_failed=retry_failed, reading=reading)


def _states(planner: Planner) -> dict[str, dict[str, int]]:
    return {step.name: dict(Counter(p.state for p in planner.plan(step).partitions)) for step in LINE}


def _plan(planner: Planner, step: str):
    return planner.plan(step_named(step))


def _forget(workdir: Workdir, step: str, pattern: str) -> list[str]:
    files = sorted((workdir.path / "commits" / step).glob(pattern))
    for file in files:
        file.unlink()
    return [file.name.split("@")[0] for file in files]


def test_nothing_built_all_of_the_first_step_is_to_do(bare):
    planner = _planner(bare)
    match = _plan(planner, "filter.match")
    assert {p.state for p in match.partitions} == {"todo"}
    assert all(p.why == [] and p.prior == [] and p.number == 0 for p in match.partitions)
    assert _plan(planner, "filter.pool").waiting == [p.name for p in match.partitions]
    assert not _plan(planner, "shard.index").complete
    assert sum(_states(planner)["shard.index"].values()) == 0


def test_a_settled_build_is_done_throughout(built):
    planner = _planner(built)
    assert all(set(states) == {"done"} for states in _states(planner).values())
    assert all(planner.plan(step).complete for step in LINE)
    assert all(planner.plan(step).waiting == [] for step in LINE)


@pytest.mark.parametrize("override", ["run.workers=7", "run.retries=0", "download.network.connections=3"])
def test_how_the_work_is_run_changes_no_plan(built, override):
    assert _states(_planner(built, override)) == _states(_planner(built))


@pytest.mark.parametrize(
    ("override", "step", "change"),
    [
        ("dedup.radius=6", "dedup.cluster", Change("recipe", "dedup.radius", 4, 6)),
        ("filter.max_text_bytes=9", "filter.match", Change("recipe", "filter.max_text_bytes", 65536, 9)),
        ("shard.tars_per_split=3", "shard.plan", Change("recipe", "shard.tars_per_split", 2, 3)),
    ],
)
def test_a_setting_is_told_and_only_what_reads_it_is_to_do(built, override, step, change):
    planner = _planner(built, override)
    states, names = _states(planner), [s.name for s in LINE]
    assert all(p.why == [change] for p in _plan(planner, step).partitions)
    assert set(states[step]) == {"todo"}
    for name in names[: names.index(step)]:
        assert set(states[name]) == {"done"}, name
    after = planner.plan(LINE[names.index(step) + 1])
    assert [n.split("/")[0] for n in after.waiting] == [step] * len(_plan(planner, step).partitions)


@pytest.mark.parametrize(
    ("attribute", "value", "change"),
    [
        ("VERSION", 99, ("code", "VERSION", 99)),
        ("profile", lambda *_: {"codec": "other"}, ("profile", "codec", "other")),
        ("pins", lambda *_: {"list": "cafe"}, ("pins", "list", "cafe")),
    ],
)
def test_code_profile_and_pins_are_told(built, monkeypatch, attribute, value, change):
    cluster = step_named("dedup.cluster")
    was = cluster.VERSION if attribute == "VERSION" else None
    monkeypatch.setattr(type(cluster), attribute, value)
    (partition,) = _plan(_planner(built), "dedup.cluster").partitions
    part, key, now = change
    assert partition.state == "todo"
    assert Change(part, key, was, now) in partition.why
    assert {w.part for w in partition.why} == {part}


def test_rows_that_changed_upstream_are_told_as_inputs(settled):
    short = "filter.max_text_bytes=45"
    settled.run(short, stage="filter.match")
    (pool,) = _plan(_planner(settled, short), "filter.pool").partitions
    assert pool.state == "todo"
    assert {(w.part, w.key.split(" ")[0]) for w in pool.why} == {("inputs", "filter.match")}


def test_an_earlier_setting_is_still_done(settled):
    settled.run("dedup.radius=2", stage="dedup.cluster")
    assert set(_states(_planner(settled, "dedup.radius=2"))["dedup.cluster"]) == {"done"}
    assert all(set(states) == {"done"} for states in _states(_planner(settled)).values())


def test_a_partition_with_deferred_rows_is_open_and_what_follows_waits(settled):
    reopened = _forget(settled, "download.fetch", "*.0001.json")
    assert reopened
    planner = _planner(settled)
    fetch = _plan(planner, "download.fetch")
    opened = [p for p in fetch.partitions if p.state == "open"]
    assert [p.partition for p in opened] == reopened
    for partition in opened:
        assert partition.number == 1
        assert partition.why == []
        assert [prior.ledger for prior in partition.prior] == [partition.manifest.ledger.path]
    assert _plan(planner, "dedup.inspect").waiting == [p.name for p in opened]
    assert _plan(planner, "dedup.cluster").waiting[: len(opened)] == [p.name for p in opened]


def test_failed_rows_open_their_partitions_once_when_they_are_to_be_retried(built):
    planner = _planner(built, retry_failed=True)
    fetch = _plan(planner, "download.fetch")
    opened = [p for p in fetch.partitions if p.state == "open"]
    assert opened
    assert all(p.prior[0].retry_failed for p in opened)
    planner.mark_retried(opened[0])
    again = planner.plan(step_named("download.fetch"), fresh=True)
    assert [p.name for p in again.partitions if p.state == "open"] == [p.name for p in opened[1:]]
    assert set(_states(planner)["filter.match"]) == {"done"}, "only recordings are tried again"


def test_a_partition_that_is_skipped_by_name_is_not_waited_for(settled):
    (partition,) = _forget(settled, "filter.match", "cc12m-*")
    name = f"filter.match/{partition}"
    assert _plan(_planner(settled), "filter.pool").waiting == [name]
    pool = _plan(_planner(settled, f'run.skip=["{name}"]'), "filter.pool")
    assert pool.waiting == []
    (plan,) = pool.partitions
    assert [(w.part, w.key, w.now) for w in plan.why] == [("inputs", f"filter.match {partition}", None)]


def test_a_source_that_is_added_brings_new_partitions_and_leaves_the_others(settled):
    without = "sources.cc12m.enabled=false"
    assert settled.run(without, until="filter").exit_code == 0
    one, both = _planner(settled, without), _planner(settled)
    assert _states(one)["filter.match"]["done"] == _states(both)["filter.match"]["done"] - 1
    (pool,) = _plan(_planner(settled, without, "filter.buckets=2"), "filter.pool").partitions
    assert pool.why == [Change("recipe", "filter.buckets", 3, 2)], "the nearest earlier commit is compared"


def test_files_that_are_gone_or_cut_short_are_named(settled):
    gone = next((settled.path / "data/dedup.cluster/all").glob("clusters-*"))
    gone.unlink()
    short = next((settled.path / "ledger/dedup.inspect").glob("web-0000-*"))
    Path(short).unlink()
    Path(short).write_bytes(b"PAR1")
    planner = _planner(settled)
    inspect = _plan(planner, "dedup.inspect")
    assert [(Path(path).name, "has 4 bytes" in what) for path, what in inspect.corrupt.items()] == [(short.name, True)]
    assert [p.partition for p in inspect.partitions if p.state == "todo"] == ["web-0000"]
    assert _plan(planner, "dedup.cluster").waiting == ["dedup.inspect/web-0000"]


def test_each_lane_walks_its_own_steps(built):
    planner = _planner(built)
    names = {step.name: set(_plan(planner, step.name).names) for step in LINE}
    web = {name for name in names["download.fetch"] if name.startswith("web-")}
    archives = names["download.fetch"] - web
    assert len(web) >= 2
    assert len(archives) >= 2
    assert names["outlier.embed"] == names["geo.locate"] == web | archives
    assert names["caption.generate"] == names["caption.choose"] == archives
    inputs = {p.partition: {(f.step, f.table) for f in p.inputs} for p in _plan(planner, "geo.locate").partitions}
    assert all((("outlier.cut", "survivors") in found) == (name in web) for name, found in inputs.items())
    assert all((("caption.generate", "survivors") in found) == (name in archives) for name, found in inputs.items())


def test_a_part_of_an_archive_is_told_where_its_archives_lie(built):
    for plan in _plan(_planner(built), "download.fetch").partitions:
        if plan.partition.startswith("web-"):
            assert plan.params == {}
        else:
            source = plan.partition.rpartition("-")[0]
            assert plan.params["source"] == source
            assert all(str(uri).startswith("world/archives/") for uri in plan.params["archives"])


class Counting(Store):
    """Counts how often each commit is read."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.reads: Counter[str] = Counter()

    def read(self, path: str) -> bytes:
        self.reads[path] += path.startswith("commits/")
        return super().read(path)


def test_commits_cut_another_way_are_read_once_whoever_may_hold_their_rows(settled, monkeypatch):
    spread = "filter.buckets=5"
    assert settled.run(spread, until="filter").exit_code == 0
    alone = {p.name: p.prior for p in _plan(_planner(settled, spread), "download.fetch").partitions}
    fetched = len([name for name in alone if "/web-" in name])
    assert fetched > 2
    assert all(len(prior) > 2 for name, prior in alone.items() if "/web-" in name)
    monkeypatch.setattr("manifests.commits._KEPT_BYTES", 0)
    store = Counting(str(settled.path))
    plan = _plan(_planner(settled, spread, store=store), "download.fetch")
    store.reads.clear()
    together = {p.name: p.prior for p in reversed(plan.partitions)}
    assert together == alone
    assert sorted(alone) != list(together), "whoever asks first"
    assert set(store.reads.values()) == {1}
    shared = [files for prior in together.values() for files in prior if files.partition.startswith("web-")]
    assert len({id(files.layout) for files in shared}) == len({files.layout.key for files in shared})


def test_an_earlier_commit_that_is_undone_meanwhile_is_handed_out_no_more(settled):
    spread = "filter.buckets=5"
    assert settled.run(spread, until="filter").exit_code == 0
    store = Store(str(settled.path))
    commits = CommitStore(store)
    plan = _plan(_planner(settled, spread, store=store, commits=commits), "download.fetch")
    first, second, *_ = [p for p in plan.partitions if p.partition.startswith("web-")]
    damaged = first.prior[-1].tables["fetched"]
    assert damaged in [files.tables["fetched"] for files in second.prior]
    assert set_aside(store, commits, [damaged], believed=True).removed
    assert damaged not in [files.tables["fetched"] for files in (*first.prior, *second.prior)]


def _profiles(workdir: Workdir) -> dict[str, str]:
    """Return which library the commits were made with that a reader counts."""
    plan = _plan(_planner(workdir, reading=True), "outlier.embed")
    assert plan.complete
    return {p.partition: p.parts.profile["library"] for p in plan.partitions}


def test_a_reader_counts_its_own_scores_or_else_those_of_one_generation(settled, monkeypatch):
    def under(library: str) -> None:
        monkeypatch.setattr("stages.outlier.embed.numeric_profile", lambda _: {"library": library})

    for library in ("1", "2"):
        under(library)
        assert settled.run(until="outlier").exit_code == 0
    made = {library: [] for library in ("1", "2")}
    for name in CommitStore(Store(str(settled.path))).step("outlier.embed").all():
        library = CommitStore(Store(str(settled.path))).read(name).parts.profile.get("library")
        made.get(library, []).append(settled.path / name.path)
    for library in made:
        under(library)
        assert set(_profiles(settled).values()) == {library}, "those that this machine would make"
        other = settled.copy(settled.path.parent / f"without-{library}")
        (other.path / made[library][0].relative_to(settled.path)).unlink()
        for commit in (other.path / "commits/outlier.embed").iterdir():
            if '"library"' not in commit.read_text():
                commit.unlink()
        under("3")
        (left,) = set(made) - {library}
        assert set(_profiles(other).values()) == {left}, "that of the most partitions"
