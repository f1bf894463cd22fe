"""`run --stage filter` over metadata of one's own: bad files, chosen sources, many partitions, run again."""

import json
from collections import Counter
from typing import ClassVar

import pytest

from manifests.store import Store
from pipeline import metadata_files, planner
from tests.pipeline.recipes_of_ones_own import build_of, captions, parquet

TWO = '[sources.laion2b]\nmetadata = ["meta/*.parquet"]\n[sources.cc3m]\nmetadata = ["meta/*.tsv"]'


def test_a_bad_file_fails_its_partition_by_name_and_the_others_are_done(tmp_path):
    own = build_of(tmp_path, TWO)
    whole = parquet(own.workdir / "meta/good.parquet", 40).read_bytes()
    (own.workdir / "meta/torn.parquet").write_bytes(whole[: len(whole) // 2])
    (own.workdir / "meta/empty.parquet").touch()
    (own.workdir / "meta/page.parquet").write_text("<html>not found</html>")
    captions(own.workdir / "meta/good.tsv", 8)
    (own.workdir / "meta/empty.tsv").touch()
    done = own.call("run", "--stage", "filter")
    assert done.exit_code == 3
    failed = [line for line in done.err.splitlines() if line.startswith("FAILED filter.match/")]
    assert len(failed) == 4
    for name in ("torn.parquet", "page.parquet", "empty.parquet", "empty.tsv"):
        (line,) = [line for line in failed if f"meta/{name}: " in line]
        assert "MetadataError: " in line
        assert "fetch it again, or leave it out" in line
    assert [name.split("-")[0] for name in own.commits("filter.match")] == ["cc3m", "laion2b"]
    assert own.commits("filter.pool") == []
    steps = own.steps()
    assert (steps["filter.match"]["done"], steps["filter.match"]["todo"]) == (2, 4)
    assert {why["part"] for why in steps["filter.match"]["why"]} == {"unreadable"}
    assert "meta/torn.parquet: not readable as Parquet" in own.call("status").out

    for name in ("torn.parquet", "page.parquet", "empty.parquet", "empty.tsv"):
        (own.workdir / "meta" / name).unlink()
    parquet(own.workdir / "meta/torn.parquet", 12, word="again")
    assert own.call("run", "--stage", "filter").exit_code == 0
    assert len(own.commits("filter.match")) == 3


def test_several_sources_are_chosen_and_the_pool_is_skipped_and_named(tmp_path):
    own = build_of(tmp_path, f'{TWO}\n[sources.cc12m]\nmetadata = ["meta/*.cc12m"]\n[sources.wit]\n')
    parquet(own.workdir / "meta/a.parquet", 8)
    captions(own.workdir / "meta/b.tsv", 8)
    refused = own.call("run", "--stage", "filter", "--source", "cc3m", "--source", "wit")
    assert (refused.exit_code, "sources.wit: no metadata is named" in refused.err) == (2, True)
    done = own.call("run", "--stage", "filter", "--source", "cc3m", "--source", "laion2b")
    assert done.exit_code == 0, done.err
    assert [name.split("-")[0] for name in own.commits("filter.match")] == ["cc3m", "laion2b"]
    assert "filter.pool not run: waits for filter.match/cc12m-unknown, filter.match/wit-unknown" in done.err
    assert own.commits("filter.pool") == []
    # What is there is reported, although two sources are not there yet.
    report = own.call("report", "--json").json
    amounts = {row["source"]: row["amount"] for row in report["funnel"]["pub11"]["rows"]}
    assert amounts == {"laion2b": 8, "wit": None, "cc12m": None, "cc3m": 8}
    assert len(report["unreadable"]) == 2
    assert "not read, its rows are in no count: sources.wit: no metadata is named" in own.call("report").out
    shown = own.call("status").out
    assert "sources.wit: no metadata is named" in shown
    refused = own.call("run", "--stage", "filter")
    assert (refused.exit_code, "sources.wit: no metadata is named" in refused.err) == (2, True)
    assert own.call("run", "--stage", "filter", "--source", "laion5b").exit_code == 2


def test_a_source_of_ones_own_is_reported_after_the_described_ones(tmp_path):
    own = build_of(tmp_path, "")
    captions(own.workdir / "meta/own.tsv", 8, word="own")
    parquet(own.workdir / "a.parquet", 8)
    settings = [
        "sources.mine.format=tsv",
        "sources.mine.columns.url=link",
        "sources.mine.columns.text=['words']",
        "sources.mine.header=['words', 'link']",
        "sources.mine.metadata=meta/*.tsv",
        "sources.laion2b.metadata=a.parquet",
    ]
    given = [part for setting in settings for part in ("--set", setting)]
    done = own.call("run", "--stage", "filter", *given)
    assert done.exit_code == 0, done.err
    report = own.call("report", "--json", *given).json
    rows = report["funnel"]["pub11"]["rows"]
    assert [(row["source"], row["name"], row["amount"], row["after_keyword"]) for row in rows] == [
        ("laion2b", "LAION2B", 8, 4), ("mine", "mine", 8, 4),
    ]  # fmt: skip
    assert (rows[1]["published"], report["funnel"]["pub11"]["total"]["amount"]) == (None, 16)
    assert report["keywords"]["mine"] == {"aerial view": 2, "satellite imag": 2}
    assert all(law["ok"] for law in report["laws"])
    shown = own.call("report", *given).out
    assert "keywords: candidates that each one matched, before repeated rows leave and before any cut" in shown
    assert "  mine: aerial view 2, satellite imag 2" in shown
    whole = "sources.mine.columns={url = 'link', text = 'words'}"
    others = [part for setting in (*settings[:1], whole, *settings[3:]) for part in ("--set", setting)]
    assert "nothing to do" in own.call("run", "--stage", "filter", *others).err


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["sources.mine.metadata=x"], "sources.mine: no such source"),
        (["sources.mine.format=tsv", "sources.mine.metadata=x"], "name the url column and at least one text column"),
        (["sources.mine.format=tsv", "sources.mine.columns.link=x"], "sources.mine.columns: no field 'link'"),
        (["sources.laion2b.format=tsv"], "laion2b is described already"),
    ],
)
def test_a_source_that_is_described_wrongly_is_refused_in_one_line(tmp_path, settings, says):
    own = build_of(tmp_path, "")
    done = own.call("run", "--stage", "filter", *[part for setting in settings for part in ("--set", setting)])
    assert (done.exit_code, done.out, done.err.count("\n")) == (2, "", 1)
    assert says in done.err


def test_metadata_that_lies_elsewhere_now_is_done(tmp_path):
    own = build_of(tmp_path, TWO)
    parquet(own.workdir / "meta/a.parquet", 8)
    captions(own.workdir / "meta/b.tsv", 8)
    assert own.call("run", "--stage", "filter").exit_code == 0
    (own.workdir / "meta").rename(tmp_path / "moved")
    named = {"laion2b": "[ab].parquet", "cc3m": "*.tsv"}
    moved = [f"--set=sources.{key}.metadata={tmp_path}/moved/{glob}" for key, glob in named.items()]
    assert "nothing to do" in own.call("run", "--stage", "filter", *moved).err


class Counted(Store):
    """Counts what is asked of the store."""

    asked: ClassVar[Counter[str]] = Counter()

    def read(self, path):
        self.asked[path.split("/")[0]] += 1
        return super().read(path)

    def find(self, folder):
        self.asked["find"] += 1
        return super().find(folder)

    def size(self, path):
        self.asked["size"] += 1
        return super().size(path)


def test_many_partitions_that_are_done_cost_one_small_read_each(tmp_path, monkeypatch):
    own = build_of(tmp_path, '[sources.laion2b]\nmetadata = ["meta/*.parquet"]')
    count = 60
    for number in range(count):
        parquet(own.workdir / f"meta/{number:03d}.parquet", 4, word=f"w{number}")
    assert own.call("run", "--stage", "filter").exit_code == 0
    monkeypatch.setattr("manifests.store.Store", Counted)
    monkeypatch.setattr(metadata_files, "open_uri", lambda *named: pytest.fail(f"{named[1]} was opened"))
    Counted.asked.clear()
    done = own.call("run", "--stage", "filter")
    assert "nothing to do" in done.err
    asked = dict(Counted.asked)
    assert asked.pop("commits") == count + 1
    assert asked.pop("find") <= 10
    assert sum(asked.values()) <= 12


def test_a_plan_of_many_partitions_asks_for_no_manifest_twice(tmp_path, monkeypatch):
    own = build_of(tmp_path, '[sources.laion2b]\nmetadata = ["meta/*.parquet"]')
    for number in range(10):
        parquet(own.workdir / f"meta/{number}.parquet", 4, word=f"w{number}")
    assert own.call("run", "--stage", "filter").exit_code == 0
    known = json.loads((own.workdir / metadata_files.CACHE).read_text())
    assert len(known) == 10
    assert {tuple(entry["groups"]) for entry in known.values()} == {(4,)}
    placed: list[str] = []
    original = planner.Planner._placed
    monkeypatch.setattr(planner.Planner, "_placed", lambda self, *a: placed.append(a[1]) or original(self, *a))
    assert "nothing to do" in own.call("run", "--stage", "filter").err
    assert len(placed) == len(set(placed)) == 11
