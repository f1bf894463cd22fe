"""Images of evaluation sets leave a finished build: nothing is read, fetched, decoded or scored again."""

import io
import json
import shutil

import polars as pl
import pytest
from PIL import Image
from rich.console import Console

from manifests.recipe_files import RecipeError
from manifests.store import Store
from pipeline.build import planner_over
from pipeline.leak_check import check_leaks, make_hash_list
from pipeline.report import make_report
from pipeline.report_text import print_report
from stages.images import Place, read_images

SETS = 'dedup.benchmarks=["mine=mine.parquet"]'
pytestmark = pytest.mark.usefixtures("no_model")


def released(workdir):
    return pl.read_parquet(workdir.path / "release/metafile/samples.parquet")


def chosen(workdir, subset, count):
    """Released samples with something to see in them, and their bodies."""
    textured = workdir.table("dedup.inspect", "inspected").filter(pl.col("texture") > 20)["sample_id"].to_list()
    rows = released(workdir).filter(pl.col("sample_id").is_in(textured) & (pl.col("subset") == subset))
    ids = rows.sort("sample_id")["sample_id"].head(count).to_list()
    fetched = workdir.table("download.fetch", "fetched").filter(pl.col("sample_id").is_in(ids)).to_dicts()
    places = [Place(row["tar"], row["offset"], row["length"], row["sha256"]) for row in fetched]
    return {fetched[at]["sample_id"]: body for at, body in read_images(Store(str(workdir.path)), places)}


def evaluation_images(folder, bodies):
    """Pictures, each turned further than the one before, and one that is in no build."""
    folder.mkdir(parents=True)
    turns = [None, Image.Transpose.ROTATE_90, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.TRANSVERSE]
    for (key, body), turn in zip(sorted(bodies.items()), turns, strict=False):
        with Image.open(io.BytesIO(body)) as image:
            plain = image.convert("RGB")
        (plain if turn is None else plain.transpose(turn)).save(folder / f"{key}.png")
    Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 60).save(folder / "stranger.png")
    return folder


def report_of(workdir, *overrides):
    recipe = workdir.recipe(*overrides)
    store = Store(str(workdir.path))
    planner, _ = planner_over(recipe, store)
    return make_report(recipe, store, planner)


def worked(workdir):
    """What was committed in the newest run, as step/partition."""
    newest = max((workdir.path / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    events = map(json.loads, (newest / "events.jsonl").read_text().splitlines())
    return {f"{e['step']}/{e['partition']}" for e in events if e["event"] == "partition_done"}


def test_evaluation_images_leave_a_finished_build_in_both_subsets(settled, tmp_path, asked, capsys):
    before = report_of(settled)
    assert {table["total"]["leak"] for table in before["funnel"].values()} == {None}
    wanted = chosen(settled, "pub11", 2) | chosen(settled, "rs3", 2)
    folder = evaluation_images(tmp_path / "images", wanted)
    make_hash_list(str(folder), settled.path / "mine.parquet", "exact")

    assert settled.run(SETS).exit_code == 0
    assert not asked
    done = worked(settled)
    assert "dedup.cluster/all" in done
    assert not any(name.startswith(("filter.", "download.", "dedup.inspect")) for name in done)

    left = pl.concat(
        pl.read_parquet(settled.path / m.ledger.path)
        for name, m in settled.manifests(SETS).items()
        if name.startswith("dedup.cluster/")
    ).filter(pl.col("reason") == "dedup.benchmark_leak")
    assert set(wanted) <= set(left["sample_id"])
    assert all(text.startswith("mine: ") for text in left["detail"])
    gone = set(released(settled)["sample_id"])
    assert not gone & set(wanted)
    leaks = settled.table("dedup.cluster", "leaks", SETS)
    assert set(wanted) <= set(leaks["sample_id"])
    assert set(leaks["benchmark"]) == {"mine"}
    assert "stranger.png" not in set(leaks["item"])

    after = report_of(settled, SETS)
    assert all(law["ok"] for law in after["laws"])
    assert [told["benchmark"] for told in after["leaks"]] == ["mine"]
    assert after["leaks"][0]["items"] == 5
    assert after["leaks"][0]["items_found"] == 4
    for subset in ("pub11", "rs3"):
        ours, theirs = after["funnel"][subset]["total"], before["funnel"][subset]["total"]
        assert ours["leak"] >= 2
        assert (ours["invalid"], ours["duplicate"]) == (theirs["invalid"], theirs["duplicate"])
        assert ours["remain"] < theirs["remain"]
    assert sum(t["total"]["leak"] for t in after["funnel"].values()) == left.height

    printed = io.StringIO()
    print_report(after, Console(file=printed, width=200))
    (line,) = [line for line in printed.getvalue().splitlines() if line.startswith("mine ")]
    assert line.split()[1:] == ["5", "0", "4", str(leaks["sample_id"].n_unique())]
    assert "Leak" in printed.getvalue()

    kept = [released(settled)["sample_id"].to_list()]
    assert (
        check_leaks(settled.recipe(), Store(str(settled.path)), [f"mine={folder}"], tmp_path / "l", as_json=True) == 0
    )
    capsys.readouterr()
    assert not set(pl.read_parquet(tmp_path / "l")["sample_id"]) & set(kept[0])


def test_a_folder_says_what_its_list_says_and_another_content_is_another_build(settled, tmp_path):
    folder = evaluation_images(settled.path / "sets/mine", chosen(settled, "pub11", 1))
    make_hash_list(str(folder), settled.path / "mine.parquet", "exact")
    by_folder = 'dedup.benchmarks=["mine=sets/mine"]'
    assert settled.run(SETS, stage="dedup").exit_code == 0
    assert settled.run(by_folder, stage="dedup").exit_code == 0
    one, other = (settled.manifests(sets)["dedup.cluster/all"] for sets in (SETS, by_folder))
    assert one.fingerprint != other.fingerprint
    assert {(o.name, o.partition, o.rows_digest) for o in one.outputs} == {
        (o.name, o.partition, o.rows_digest) for o in other.outputs
    }
    assert one.ledger.sha256 == other.ledger.sha256
    (folder / "stranger.png").unlink()
    assert "dedup.cluster/all" not in settled.manifests(by_folder)


def test_an_evaluation_set_that_cannot_be_used_is_refused_before_any_work(settled, tmp_path):
    Image.effect_mandelbrot((60, 40), (-2, -1, 1, 1), 60).save(tmp_path / "a.png")
    make_hash_list(str(tmp_path), settled.path / "fast.parquet", "fast")
    (settled.path / "odd.parquet").write_bytes(b"PAR1")
    (settled.path / "empty").mkdir()
    (settled.path / "empty/readme.txt").write_text("no image")
    for path, words in {
        "gone.parquet": "is not there", "gone": "is not there", "odd.parquet": "is no hash list",
        "empty": "no image in it",
        "fast.parquet": "hash-images --hash exact",
    }.items():  # fmt: skip
        with pytest.raises(RecipeError, match=words):
            settled.run(f'dedup.benchmarks=["a={path}"]')


@pytest.mark.parametrize(
    ("sets", "words"), [('["a"]', "NAME=PATH"), ('["a=b", "a=c"]', "named twice"), ('["../a=b"]', "NAME=PATH")]
)
def test_evaluation_sets_are_written_as_name_and_path(settled, sets, words):
    with pytest.raises(RecipeError, match=words):
        settled.recipe(f"dedup.benchmarks={sets}")


def test_who_reads_a_build_need_not_have_its_evaluation_sets(settled, tmp_path):
    folder = evaluation_images(settled.path / "sets/mine", chosen(settled, "pub11", 1))
    make_hash_list(str(folder), settled.path / "mine.parquet", "exact")
    sets = 'dedup.benchmarks=["mine=mine.parquet", "more=sets/mine"]'
    assert settled.run(sets).exit_code == 0
    shutil.rmtree(folder)
    (settled.path / "mine.parquet").rename(tmp_path / "elsewhere.parquet")
    recipe, store = settled.recipe(sets), Store(str(settled.path))
    planner, _ = planner_over(recipe, store, reading=True)
    report = make_report(recipe, store, planner)
    assert report["complete"]
    assert [told["benchmark"] for told in report["leaks"]] == ["mine", "more"]
    other = settled.recipe('dedup.benchmarks=["mine=mine.parquet"]')
    planner, _ = planner_over(other, store, reading=True)
    assert not make_report(other, store, planner)["complete"]
    make_hash_list(
        str(evaluation_images(tmp_path / "new", chosen(settled, "rs3", 1))), settled.path / "mine.parquet", "exact"
    )
    planner, _ = planner_over(recipe, store, reading=True)
    assert not make_report(recipe, store, planner)["complete"]
