"""`rs5m-build sources`: all sources, what was found of them, and what is missing, with a workdir or without."""

import json

import pytest
from typer.testing import CliRunner

from manifests.sources import PUB11, RS3
from pipeline import metadata_files
from pipeline.cli import app
from pipeline.source_text import WIDTH
from tests.pipeline.read_commands import ask
from tests.pipeline.recipes_of_ones_own import build_of, captions, parquet

OWN = """
[sources.mine]
format = "csv"
columns = { url = "u", text = "t" }
metadata = ["meta/mine.csv"]
licence = "mine alone"
"""


def _listed(own, *arguments):
    answer = own.call("sources", "--json", *arguments)
    assert (answer.exit_code, answer.err) == (0, "")
    return {source["source"]: source for source in answer.json["sources"]}


def test_footers_are_read_once_where_there_is_a_workdir_to_remember_them(tmp_path, monkeypatch):
    own = build_of(tmp_path, '[sources.laion2b]\nmetadata = ["meta/*.parquet"]')
    parquet(own.workdir / "meta/a.parquet", 7)
    _listed(own)
    assert [path.name for path in own.workdir.iterdir()] == ["meta"]
    (own.workdir / "workdir.json").write_text('{"format":1,"recipe":"own"}')
    _listed(own)
    monkeypatch.setattr(metadata_files, "open_uri", lambda *named: pytest.fail(f"{named[1]} was opened"))
    assert _listed(own)["laion2b"]["rows"] == 7


@pytest.mark.parametrize("arguments", [(), ("--recipe", "rs5m")])
def test_without_a_workdir_it_teaches_and_leaves_nothing_behind(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["sources", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    assert list(tmp_path.iterdir()) == []
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert [line.split()[0] for line in lines[1:15]] == [*PUB11, *RS3]
    assert lines[1].split()[:3] == ["laion2b", "LAION2B", "parquet"]
    assert "1,980,978" in lines[1]
    assert "--set" in done.stdout
    assert ("the miniature world first" in " ".join(done.stdout.split())) == (not arguments)
    listed = json.loads(CliRunner().invoke(app, ["sources", "--json", *arguments]).stdout)["sources"]
    assert all(source["files"] == 0 and source["rows"] is None and source["missing"] for source in listed)


def test_files_rows_and_what_is_missing(tmp_path):
    own = build_of(
        tmp_path,
        f"""
        [sources.laion2b]
        metadata = ["meta/*.parquet", "gone/*.parquet"]
        [sources.vg]
        metadata = ["meta/region_descriptions.json"]
        [sources.cc3m]
        metadata = ["meta/*.tsv"]
        [sources.coyo700m]
        enabled = false
        [sources.laion400m]
        metadata = ["bad/*"]
        attributes = "who.parquet"
        {OWN}
        """,
    )
    parquet(own.workdir / "meta/a.parquet", 7, row_group_size=2)
    parquet(own.workdir / "meta/b.parquet", 5, word="b")
    captions(own.workdir / "meta/c.tsv", 9)
    (own.workdir / "meta/region_descriptions.json").write_text("[]")
    (own.workdir / "bad").mkdir()
    (own.workdir / "bad/torn.parquet").write_bytes(b"PAR1 and no more")
    (own.workdir / "bad/empty.parquet").touch()
    found = _listed(own)
    assert list(found) == [*PUB11, *RS3, "mine"]
    assert (found["laion2b"]["files"], found["laion2b"]["rows"]) == (2, 12)
    (missing,) = found["laion2b"]["missing"]
    assert "nothing matches" in missing
    assert "gone/*.parquet" in missing
    assert found["laion2b"]["published"]["remain"] == 1_060_779
    assert (found["cc3m"]["files"], found["cc3m"]["rows"], found["cc3m"]["missing"]) == (1, None, [])
    assert "needs the file of its images" in found["vg"]["missing"][0]
    assert found["coyo700m"]["enabled"] is False
    assert [said.split(":")[0] for said in found["laion400m"]["missing"]] == [
        "its attributes, who.parquet, are not there",
        "bad/empty.parquet is empty, 0 bytes",
        "bad/torn.parquet",
    ]
    assert (found["mine"]["published"], found["mine"]["licence"]) == (None, "mine alone")
    lines = own.call("sources").out.splitlines()
    assert max(map(len, lines)) <= max(WIDTH, len(str(tmp_path)) + 60)
    assert "cc3m: ready" in lines
    assert "coyo700m: off" in lines
    assert "1 of the 5 sources that the recipe own reads are ready." in lines


def test_rows_of_files_without_a_footer_are_known_when_all_were_read(tmp_path, monkeypatch):
    own = build_of(tmp_path, '[sources.cc3m]\nmetadata = ["meta/*.tsv"]')
    for number in range(3):
        captions(own.workdir / f"meta/{number}.tsv", 4 + number, word=f"w{number}")
    assert own.call("run", "--stage", "filter.match").exit_code == 0
    monkeypatch.setattr(metadata_files, "file_digest", lambda *_: pytest.fail("a file was read whole"))
    assert _listed(own)["cc3m"]["rows"] == 15
    captions(own.workdir / "meta/0.tsv", 40)
    assert _listed(own)["cc3m"]["rows"] is None


def test_a_source_can_be_tried_out_by_set(tmp_path):
    own = build_of(tmp_path, "")
    parquet(own.workdir / "here/a.parquet", 6)
    assert _listed(own, "--set", "sources.coyo700m.metadata=here/*.parquet")["coyo700m"]["rows"] == 6


def test_a_build_of_the_world_knows_all_its_rows(built):
    report = ask(built, "report", "--json").json
    amounts = {row["source"]: row["amount"] for table in report["funnel"].values() for row in table["rows"]}
    listed = {source["source"]: source for source in ask(built, "sources", "--json").json["sources"]}
    assert {key: listed[key]["rows"] for key in amounts} == amounts
    assert [listed[key]["missing"] for key in amounts] == [[] for _ in amounts]
