import polars as pl
import pytest

from manifests.schemas import TABLES
from manifests.tables import write_table
from pipeline.line import LINE
from stages.dedup.second_proof import CORRELATION_PER_BIT
from tests.pipeline.page.page_reading import rewrite
from tests.pipeline.read_commands import ask

ALL = [step.name for step in LINE if "pub11" in step.lanes]


def explained(workdir, query):
    answer = ask(workdir, "explain", query, "--json")
    assert answer.exit_code == 0, answer.out
    return answer.json


@pytest.fixture(scope="module")
def released(built):
    """A released sample that others are copies of."""
    samples = pl.read_parquet(built.path / "release/metafile/samples.parquet")
    clusters = built.table("dedup.cluster", "clusters")
    near = clusters.filter(pl.col("proof") == "near")["cluster_id"]
    return samples.filter(pl.col("sample_id").is_in(near.to_list())).row(0, named=True)


@pytest.fixture(scope="module")
def ledger(built):
    paths = sorted(f"{m.ledger.path}" for m in built.manifests().values())
    return pl.concat([pl.read_parquet(built.path / path) for path in paths])


def test_a_released_sample_is_found_by_all_its_names(built, released):
    for name, by in (("sample_id", "sample_id"), ("img_name", "img_name"), ("url", "url"), ("sha256", "sha256")):
        found = explained(built, released[name])
        assert found["matched_by"] == by
        (sample,) = [s for s in found["samples"] if s["sample_id"] == released["sample_id"]]
        assert (sample["state"], sample["reason"], sample["source"]) == ("released", None, released["source"])
        assert [entry["step"] for entry in sample["history"]] == ALL
        assert {entry["verdict"] for entry in sample["history"]} == {"kept"}
        assert found["note"] is None


def test_an_image_of_an_archive_is_found_by_its_official_name(built):
    samples = pl.read_parquet(built.path / "release/metafile/samples.parquet")
    row = samples.filter(pl.col("source") == "fmow").sort("img_name").row(0, named=True)
    assert row["img_name"].endswith(("_rgb.jpg", "_msrgb.jpg"))
    found = explained(built, row["img_name"])
    assert found["matched_by"] == "img_name"
    (sample,) = found["samples"]
    assert (sample["state"], sample["source"]) == ("released", "fmow")
    assert [entry["step"] for entry in sample["history"]] == [step.name for step in LINE]
    values = {entry["step"]: entry["values"] for entry in sample["history"]}
    assert values["outlier.embed"]["vlm"] == row["vlm"]
    assert values["caption.choose"]["chosen"] == row["chosen"]
    assert values["geo.locate"]["meta"] == row["meta"]


def test_a_row_that_the_cut_took_shows_score_and_cut(built, ledger):
    row = ledger.filter(pl.col("reason") == "outlier.detector").row(0, named=True)
    (sample,) = explained(built, row["sample_id"])["samples"]
    last = sample["history"][-1]
    assert (last["step"], sample["state"], sample["reason"]) == ("outlier.cut", "dropped", "outlier.detector")
    assert last["evidence"]["value"] < last["evidence"]["cut"]


def test_what_each_step_found_out(built, released):
    (sample,) = explained(built, released["sample_id"])["samples"]
    values = {entry["step"]: entry["values"] for entry in sample["history"]}
    assert values["filter.match"]["url"] == released["url"]
    assert values["filter.match"]["matched"] == released["matched"]
    assert values["filter.pool"]["partition"].startswith("web-")
    assert values["download.fetch"]["sha256"] == released["sha256"]
    assert values["dedup.inspect"]["phash"] == f"{released['phash']:016x}"
    assert "thumbnail" not in values["dedup.inspect"]
    assert values["shard.plan"]["caption"] == released["caption"]
    assert values["shard.index"]["split"] == released["split"]
    evidence = {entry["step"]: entry["evidence"] for entry in sample["history"]}
    assert evidence["dedup.cluster"]["leader"] == released["sample_id"]
    assert evidence["dedup.cluster"]["copies"] >= 1


def test_a_cluster_is_told_with_its_proofs_and_limits(built, released):
    clusters = built.table("dedup.cluster", "clusters").filter(pl.col("cluster_id") == released["sample_id"])
    copies = clusters.filter(pl.col("sample_id") != pl.col("cluster_id"))
    source = dict(built.table("filter.pool", "candidates").select("sample_id", "source").iter_rows())
    texture = dict(built.table("dedup.inspect", "inspected").select("sample_id", "texture").iter_rows())
    for identity in clusters["sample_id"]:
        (sample,) = explained(built, identity)["samples"]
        (evidence,) = [entry["evidence"] for entry in sample["history"] if entry["step"] == "dedup.cluster"]
        assert (evidence["leader"], evidence["radius"]) == (released["sample_id"], 4)
        assert "more" not in evidence
        told = {member["sample_id"]: member for member in evidence["members"]}
        assert sorted(told) == copies["sample_id"].sort().to_list()
        for row in copies.iter_rows(named=True):
            wanted = {"sample_id": row["sample_id"], "source": source[row["sample_id"]], "via": row["via_id"]}
            wanted["proof"] = row["proof"]
            if row["proof"] == "near":
                textures = texture[row["sample_id"]] * texture[row["via_id"]]
                limit = (0.8**2 + 2 * textures * (1 - 0.86 - CORRELATION_PER_BIT * row["distance"])) ** 0.5
                wanted |= {"distance": row["distance"], "confirm": row["confirm"]}
                wanted["confirm_limit"] = pytest.approx(limit, abs=1e-4)
                assert row["confirm"] <= limit
            assert told[row["sample_id"]] == wanted
        if identity != released["sample_id"]:
            own = {name: value for name, value in told[identity].items() if name not in ("sample_id", "source")}
            assert own.items() <= evidence.items()


def test_of_a_large_cluster_the_rest_is_counted(settled, released):
    def crowded(frame):
        leader = pl.lit(released["sample_id"])
        more = pl.DataFrame({"sample_id": [f"{n:032x}" for n in range(30)]}).with_columns(
            cluster_id=leader, via_id=leader, proof=pl.lit("bytes"), distance=None, confirm=None
        )
        return pl.concat([frame, more.select(frame.columns).cast(dict(frame.schema))])

    copies = settled.table("dedup.cluster", "clusters").filter(pl.col("cluster_id") == released["sample_id"]).height - 1
    rewrite(settled, "dedup.cluster", "clusters", crowded)
    (sample,) = explained(settled, released["sample_id"])["samples"]
    (evidence,) = [entry["evidence"] for entry in sample["history"] if entry["step"] == "dedup.cluster"]
    assert evidence["copies"] == copies + 30
    assert len(evidence["members"]) == 20
    assert evidence["more"] == copies + 30 - 20
    assert evidence["members"][0]["proof"] == "near"
    shown = ask(settled, "explain", released["sample_id"]).out
    assert f"\n    members:\n      sample_id {evidence['members'][0]['sample_id']}, source " in shown
    assert f"\n    more: {evidence['more']}\n" in shown


def test_a_leak_names_the_evaluation_images(settled, tmp_path):
    inspected = settled.table("dedup.inspect", "inspected").filter(pl.col("texture") > 20)
    clusters = settled.table("dedup.cluster", "clusters").filter(pl.col("proof") == "bytes")
    copy, leader = clusters.row(0, named=True)["sample_id"], clusters.row(0, named=True)["cluster_id"]
    items = inspected.filter(pl.col("sample_id") == copy).with_columns(item=pl.lit("a/\u202eb.png"))
    table = TABLES["hash_list"]
    write_table(table, items.select(table.schema.names), tmp_path / "list.parquet")
    setting = f'dedup.benchmarks=["set={tmp_path}/list.parquet"]'
    assert settled.run(setting, until="dedup.cluster").exit_code == 0
    answer = ask(settled, "explain", leader, "--set", setting, "--json")
    (sample,) = answer.json["samples"]
    assert (sample["state"], sample["reason"]) == ("dropped", "dedup.benchmark_leak")
    evidence = sample["history"][-1]["evidence"]
    wanted = {"benchmark": "set", "item": "a/\u202eb.png", "view": 0, "distance": 0, "shown_by": leader}
    assert wanted in evidence["leaks"]
    assert evidence["copies"] >= 1
    shown = ask(settled, "explain", leader, "--set", setting).out
    assert "      benchmark set, item a/\\u202eb.png, view 0, distance 0, shown_by " in shown


def test_a_copy_names_its_leader_and_the_proof(built, ledger):
    row = ledger.filter(pl.col("reason") == "dedup.near_duplicate").row(0, named=True)
    (sample,) = explained(built, row["sample_id"])["samples"]
    assert (sample["state"], sample["reason"]) == ("dropped", "dedup.near_duplicate")
    last = sample["history"][-1]
    assert (last["step"], last["verdict"]) == ("dedup.cluster", "dropped")
    assert (last["evidence"]["leader"], last["evidence"]["proof"]) == (row["other_id"], "near")
    assert last["evidence"]["distance"] == row["value"] <= last["evidence"]["cut"] == 4.0
    assert "locator" not in last["evidence"]


def test_a_row_that_was_not_downloaded(built, ledger):
    row = ledger.filter(pl.col("reason") == "download.http_404").row(0, named=True)
    (sample,) = [s for s in explained(built, row["url"])["samples"] if s["sample_id"] == row["sample_id"]]
    assert (sample["state"], sample["reason"]) == ("failed", "download.http_404")
    assert sample["history"][-1]["evidence"]["status"] == 404


def test_a_row_that_never_was_a_candidate(built, ledger):
    row = ledger.filter(pl.col("reason") == "filter.bad_url").row(0, named=True)
    for name in (row["sample_id"], row["url"]):
        (sample,) = explained(built, name)["samples"]
        assert (sample["state"], sample["reason"]) == ("dropped", "filter.bad_url")
        assert len(sample["history"]) == 1


def test_a_repeated_row_is_told_but_the_one_that_stayed_decides(built, ledger):
    row = ledger.filter(pl.col("reason") == "filter.repeated_row").row(0, named=True)
    (sample,) = explained(built, row["sample_id"])["samples"]
    reasons = [(entry["step"], entry["reason"]) for entry in sample["history"]]
    assert ("filter.pool", "filter.repeated_row") in reasons
    assert ("filter.pool", None) in reasons
    assert sample["reason"] != "filter.repeated_row"


def test_a_url_is_found_under_another_spelling(built, released):
    other = released["url"].replace("http://", "HTTPS://").replace(".rs5m.test/", ".RS5M.test:443/") + "#top"
    assert released["sample_id"] in {s["sample_id"] for s in explained(built, other)["samples"]}


@pytest.mark.parametrize(
    "query", ["0" * 32, "0" * 64, "http://no.test/where.jpg", "cc3m_" + "1" * 32 + ".jpg", "no name"]
)
def test_nothing_found(built, query):
    answer = ask(built, "explain", query, "--json")
    assert answer.exit_code == 2
    assert (answer.json["samples"], answer.json["matched_by"]) == ([], None)
    assert "counted per source, not listed" in answer.json["note"]
    shown = ask(built, "explain", query)
    assert shown.exit_code == 2
    assert shown.out.startswith("nothing found: looked for ")


def test_a_table_that_cannot_be_read_is_one_line(settled):
    path = min(settled.path.glob("data/filter.match/*/*.parquet"))
    body = bytes(path.stat().st_size)
    path.unlink()
    path.write_bytes(body)
    answer = ask(settled, "explain", "http://no.test/where.jpg")
    assert answer.exit_code == 2
    assert f"{path.relative_to(settled.path)}: is no readable table" in answer.err
    assert answer.err.endswith("run `rs5m-build verify`, which sets it aside, then `rs5m-build run`\n")


def test_in_progress(fresh):
    fresh.run(until="filter")
    identity = fresh.table("filter.pool", "candidates")["sample_id"][0]
    (sample,) = explained(fresh, identity)["samples"]
    assert (sample["state"], sample["reason"]) == ("in_progress", None)
    assert [entry["step"] for entry in sample["history"]][-1] == "filter.pool"


def test_for_people_without_control_characters(built, released):
    shown = ask(built, "explain", released["sample_id"]).out
    assert shown.startswith(f"{released['sample_id']}  {released['source']}  released\n  filter.match/")
    assert f"    url: {released['url']}\n" in shown


def test_what_the_web_wrote_cannot_steer_a_terminal():
    from pipeline.explain import Entry, Explanation, Sample
    from pipeline.explain_text import explanation_lines

    entry = Entry(
        "filter.match", "p", "0" * 16, "kept", None, {}, {"text": "a\x1b[2Jb\nc \u202e caf\u00e9", "matched": ["x"]}
    )
    lines = explanation_lines(Explanation("q", "url", [Sample("0" * 32, "sbu", [entry])], None))
    assert "    text: a\\x1b[2Jb\\nc \\u202e caf\u00e9" in lines
