"""hash-images and leak-check over a nano build: images of the build itself, turned, stand for an evaluation set."""

import hashlib
import io
import json
import tarfile

import polars as pl
import pytest
from PIL import Image

from manifests.store import Store
from pipeline.errors import UserError
from pipeline.leak_check import check_leaks, make_hash_list
from stages.images import Place, read_images


@pytest.fixture(scope="module")
def inspected(bare, tmp_path_factory):
    """A nano build up to dedup; copy it, never run in it."""
    workdir = bare.copy(tmp_path_factory.mktemp("inspected") / "work")
    assert workdir.run(until="dedup").exit_code == 0
    return workdir


def bodies(workdir):
    """Bodies of pictures that are like no other, by sample id."""
    survivors = workdir.table("dedup.cluster", "survivors")["sample_id"]
    textured = workdir.table("dedup.inspect", "inspected").filter(pl.col("texture") > 20)["sample_id"]
    fetched = workdir.table("download.fetch", "fetched").filter(pl.col("media_type") == "jpeg")
    chosen = fetched.filter(
        pl.col("sample_id").is_in(survivors.to_list()) & pl.col("sample_id").is_in(textured.to_list())
    )
    rows = chosen.sort("sample_id").head(3).to_dicts()
    places = [Place(row["tar"], row["offset"], row["length"], row["sha256"]) for row in rows]
    return {rows[index]["sample_id"]: body for index, body in read_images(Store(str(workdir.path)), places)}


def evaluation_set(folder, bodies):
    """The first as it is, the second turned, the third mirrored and encoded anew; a stranger; a file that is none."""
    folder.mkdir()
    turns = (None, Image.Transpose.ROTATE_90, Image.Transpose.FLIP_LEFT_RIGHT)
    for number, (body, turn) in enumerate(zip(bodies.values(), turns, strict=True)):
        with Image.open(io.BytesIO(body)) as image:
            turned = image.convert("RGB") if turn is None else image.convert("RGB").transpose(turn)
            turned.save(folder / f"{number}.png")
    Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 60).save(folder / "stranger.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "readme.txt").write_text("no image, and not said to be one")
    return folder


def checked(workdir, capsys, *benchmarks, **options):
    recipe = workdir.recipe()
    assert check_leaks(recipe, Store(str(workdir.path)), benchmarks, options.pop("out", None), as_json=True) == 0
    return json.loads(capsys.readouterr().out)


def test_images_of_an_evaluation_set_are_found_by_list_folder_and_tar(inspected, tmp_path, capsys):
    wanted = bodies(inspected)
    folder = evaluation_set(tmp_path / "rsicd", wanted)
    with tarfile.open(tmp_path / "rsicd.tar", "w") as tar:
        tar.add(folder, "rsicd")
    assert make_hash_list(str(folder), tmp_path / "lists/rsicd.parquet", "exact") == 0
    said = capsys.readouterr()
    assert "4 images, exact hashes" in said.out
    assert "broken.jpg was not read: dedup.undecodable" in said.err
    assert "readme" not in said.err
    for path in (tmp_path / "lists/rsicd.parquet", folder, tmp_path / "rsicd.tar"):
        told = checked(inspected, capsys, f"rsicd={path}", out=tmp_path / "leaks.parquet")
        leaks = pl.read_parquet(tmp_path / "leaks.parquet")
        assert told["benchmarks"]["rsicd"] == {
            "items": 4, "items_found": 3, "samples": leaks["sample_id"].n_unique(),
            "unread": 0 if path.suffix == ".parquet" else 1,
        }  # fmt: skip
        assert told["partitions_missing"] == 0
        assert told["checked"] == len(inspected.table("dedup.inspect", "inspected"))
        found = {(row["sample_id"], row["item"].rsplit("/")[-1]) for row in leaks.to_dicts()}
        assert {(key, f"{number}.png") for number, key in enumerate(wanted)} <= found
        assert set(leaks["benchmark"]) == {"rsicd"}


def test_a_list_holds_hashes_and_is_the_same_every_time(inspected, tmp_path):
    folder = evaluation_set(tmp_path / "set", bodies(inspected))
    for name in ("one", "two"):
        make_hash_list(str(folder), tmp_path / f"{name}.parquet", "fast")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    rows = pl.read_parquet(tmp_path / "one.parquet")
    assert rows["item"].to_list() == ["0.png", "1.png", "2.png", "stranger.png"]
    assert rows["sha256"][0] == hashlib.sha256((folder / "0.png").read_bytes()).hexdigest()
    assert set(rows["hash_kind"]) == {"phash64-fast"}


def test_what_is_found_is_told_in_lines(inspected, tmp_path, capsys):
    folder = evaluation_set(tmp_path / "set", bodies(inspected))
    recipe, store = inspected.recipe(), Store(str(inspected.path))
    assert check_leaks(recipe, store, [f"mine={folder}"], None, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("mine: 3 of 4 images are in the build, as ")
    assert any("1.png" in line and "view" in line for line in lines)
    assert lines[-1].endswith("images checked")


@pytest.mark.parametrize(
    ("benchmark", "words"),
    [
        ("rsicd", "write NAME=PATH"),
        ("rsicd=", "write NAME=PATH"),
        ("rsicd=gone.parquet", "is not there"),
        ("rsicd=broken.parquet", "is no hash list"),
        ("rsicd=other.parquet", "is no hash list"),
        ("rsicd=fast.parquet", r"hash-images --hash exact"),
        ("rsicd=gone", "is not there"),
    ],
)
def test_a_benchmark_that_cannot_be_used_is_refused(inspected, tmp_path, monkeypatch, benchmark, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "other.parquet")
    Image.effect_mandelbrot((60, 40), (-2, -1, 1, 1), 60).save(tmp_path / "a.png")
    make_hash_list(str(tmp_path), tmp_path / "fast.parquet", "fast")
    with pytest.raises(UserError, match=words):
        check_leaks(inspected.recipe(), Store(str(inspected.path)), [benchmark], None, as_json=True)


def test_before_anything_is_inspected_it_says_what_to_run(bare, tmp_path):
    fresh = bare.copy(tmp_path / "work")
    Image.effect_mandelbrot((60, 40), (-2, -1, 1, 1), 60).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"--until dedup\.inspect"):
        check_leaks(fresh.recipe(), Store(str(fresh.path)), [f"a={tmp_path}"], None, as_json=True)


def test_a_folder_without_images_makes_no_list(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match="no image that can be read"):
        make_hash_list(str(tmp_path), tmp_path / "out.parquet", "exact")
    assert not (tmp_path / "out.parquet").exists()


def test_members_that_are_passed_over_are_said(inspected, tmp_path, capsys):
    Image.effect_mandelbrot((60, 40), (-2, -1, 1, 1), 60).save(tmp_path / "a.png")
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(tmp_path / "a.png", "a.png")
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "a.png"
        tar.addfile(link)
    assert checked(inspected, capsys, f"s={tmp_path}/set.tar")["benchmarks"]["s"]["unread"] == 1
    check_leaks(inspected.recipe(), Store(str(inspected.path)), [f"s={tmp_path}/set.tar"], None, as_json=False)
    assert "1 members passed over: links" in capsys.readouterr().err
