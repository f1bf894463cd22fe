import io
import math

import numpy as np
import polars as pl
import pytest
from PIL import Image

from manifests.store import Store
from stages.caption.captioner import Candidate, candidate_seed
from stages.caption.generate import Generate
from stages.caption.settings import CaptionSettings
from stages.encoder import Placement
from stages.nano_encoder import NanoEncoder
from stages.pictures import open_picture
from stages.step import CorruptFileError, ModelMissingError, OutOfMemoryError
from tests.stages.handing import NOTHING_BEFORE, Before, Handed, perform, rows_of, settings_of, store_images

NANO = {"rank": "nano", "rerank": "nano", "rotate": "nano", "candidates": 6, "keep": 4, "keep_again": 2, "rotations": 4}


def body(seed, width=40, height=30):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def handed(store, bodies, tar="old.tar", sources=None, left=()):
    """Images by sample id; ``left`` were fetched and did not survive."""
    places = store_images(store, tar, *bodies.values())
    fetched = [
        {"sample_id": key, "url": f"fmow:{key}", "tar": p.tar, "offset": p.offset, "length": p.length,
         "sha256": p.sha256}
        for key, p in zip(bodies, places, strict=True)
    ]  # fmt: skip
    survivors = [
        {"sample_id": key, "source": (sources or {}).get(key, "fmow"), "split_group": f"group {key}"}
        for key in bodies if key not in left
    ]  # fmt: skip
    return Handed(store, {
        ("outlier.cut", "survivors"): rows_of("survivors", *survivors),
        ("download.fetch", "fetched"): rows_of("fetched", *fetched),
    })  # fmt: skip


def generate(tables, prior=NOTHING_BEFORE, params=None, **changed):
    settings = {f"caption.{name}": value for name, value in (NANO | changed).items()}
    if "seed" in changed:
        settings["seed"] = settings.pop("caption.seed")
    return perform(Generate(), tables, settings, prior=prior, params=params)


def counted(done):
    return done.result.facts["captioned_images"], done.result.facts["recorded_images"]


def of(done, sample_id):
    return done.table("caption_candidates").filter(pl.col("sample_id") == sample_id).sort("index")


class Written:
    """A captioner that says what it is told for each sample."""

    def __init__(self, texts):
        self._texts = texts

    def candidates(self, images):
        assert all(picture.mode == "RGB" for _, picture in images)
        return [[Candidate(text, 1000 + n) for n, text in enumerate(self._texts[name])] for name, _ in images]


def says(monkeypatch, texts):
    monkeypatch.setattr(CaptionSettings, "make_captioner", lambda *_: Written(texts))


def test_every_candidate_is_kept_with_its_scores(store):
    done = generate(handed(store, {"a": body(1), "b": body(2), "c": body(3)}, left=("c",)))
    assert done.table("survivors").rows() == [("a", "fmow", "group a"), ("b", "fmow", "group b")]
    assert done.result.ledger.is_empty()
    for name in "ab":
        rows = of(done, name)
        assert rows["index"].to_list() == list(range(rows.height))
        assert 4 < rows.height <= 6
        assert sorted(rows["rank_a"]) == list(range(1, rows.height + 1))
        by_rank = rows.sort("rank_a")
        assert by_rank["score_a"].is_sorted(descending=True)
        assert by_rank["rank_b"].is_not_null().to_list() == [rank <= 4 for rank in by_rank["rank_a"]]
        assert sorted(rows["rank_b"].drop_nulls()) == [1, 2, 3, 4]
        # One encoder does both: the order is the same, and two of them are looked at under rotation.
        assert by_rank["rank_b"].drop_nulls().to_list() == [1, 2, 3, 4]
        assert by_rank["rotation_variance"].is_not_null().to_list() == [rank <= 2 for rank in by_rank["rank_a"]]
        assert rows["text"].n_unique() == rows.height
        assert all(round(score, 4) == pytest.approx(score, abs=1e-7) for score in rows["score_a"])
    assert {tuple(row) for row in of(done, "a").select("sha256", "seed").rows()} == {
        (of(done, "a")["sha256"][0], candidate_seed(2023, "a", number)) for number in of(done, "a")["index"]
    }
    assert counted(done) == (2, 0)
    facts = done.result.facts
    assert (facts["captioner"], facts["seed"], facts["vocabulary"]) == ("compose", 2023, "scenes-1")


def test_rows_do_not_depend_on_the_batch_or_on_where_bytes_lie(store, tmp_path):
    bodies = {f"sample {number}": body(number) for number in range(7)}
    tables = handed(store, bodies)
    one = generate(tables, params={"batch": 1}).table("caption_candidates")
    three = generate(tables, params={"batch": 3}).table("caption_candidates")
    moved = handed(Store(str(tmp_path / "moved")), dict(reversed(bodies.items())), "x.tar")
    again = generate(moved).table("caption_candidates")
    assert one.sort("sample_id", "index").equals(three.sort("sample_id", "index"))
    assert one.sort("sample_id", "index").equals(again.sort("sample_id", "index"))


def test_batches_follow_the_digests_wherever_bytes_lie(store, monkeypatch):
    asked = []

    class Noting:
        def candidates(self, images):
            asked.append([name for name, _ in images])
            return [[Candidate("a harbor", 1)] for _ in images]

    monkeypatch.setattr(CaptionSettings, "make_captioner", lambda *_: Noting())
    bodies = {f"sample {number}": body(number) for number in range(7)}
    tables = handed(store, bodies)
    generate(tables, params={"batch": 3})
    # Some of them were fetched again, into a tar that comes first.
    moved = handed(store, {name: bodies[name] for name in list(bodies)[::3]}, "a.tar")
    fetched = pl.concat([moved.frame("download.fetch", "fetched"), tables.frame("download.fetch", "fetched")])
    mixed = {
        ("download.fetch", "fetched"): fetched.unique("sample_id", keep="first", maintain_order=True),
        ("outlier.cut", "survivors"): tables.frame("outlier.cut", "survivors").reverse(),
    }
    generate(Handed(store, mixed), params={"batch": 3})
    assert [len(names) for names in asked[:3]] == [3, 3, 1]
    assert asked[:3] == asked[3:]


def test_what_cannot_be_captioned_leaves_with_its_reason(store, monkeypatch):
    says(monkeypatch, {"empty": ["", " \n", "\u200b"], "fine": ["", "a harbor", "a  dock\x00"], "long": ["w " * 3000]})
    bodies = {"empty": body(1), "fine": body(2), "long": body(3), "cut": body(4)[:60], "none": b""}
    done = generate(handed(store, bodies, sources={"cut": "ben"}))
    assert done.reasons() == dict.fromkeys(["empty", "cut", "none"], "caption.failed")
    assert {row["class"] for row in done.left().values()} == {"failed"}
    assert done.left()["empty"]["detail"] == "every candidate was empty"
    assert "no picture a model can take" in done.left()["cut"]["detail"]
    assert all(row["sha256"] for row in done.left().values())
    # Numbers and seeds stay those that were drawn.
    assert of(done, "fine").select("index", "text", "seed").rows() == [(1, "a harbor", 1001), (2, "a dock", 1002)]
    assert len(of(done, "long")["text"][0]) <= 1000
    assert {s: (b.seen, b.kept, b.failed) for s, b in done.books.items()} == {
        "fmow": (4, 2, {"caption.failed": 2}), "ben": (1, 0, {"caption.failed": 1}),
    }  # fmt: skip


def test_non_latin_text_is_kept_as_it_is(store, monkeypatch):
    says(monkeypatch, {"a": ["\u6e2f\u53e3", "\u0645\u064a\u0646\u0627\u0621"]})
    assert of(generate(handed(store, {"a": body(1)})), "a")["text"].to_list() == [
        "\u6e2f\u53e3",
        "\u0645\u064a\u0646\u0627\u0621",
    ]


def test_an_encoder_that_gives_no_number_fails_the_image_alone(store, monkeypatch):
    says(monkeypatch, {"a": ["x", "y"], "b": ["x", "y"]})
    whole = NanoEncoder.pictures

    def pictures(self, given):
        found = whole(self, given)
        found[[picture.width == 13 for picture in given]] = math.nan
        return found

    monkeypatch.setattr(NanoEncoder, "pictures", pictures)
    done = generate(handed(store, {"a": body(1, 13, 30), "b": body(2)}))
    assert done.left()["a"]["detail"] == "caption.rank nano: no candidate has a finite score"
    assert done.table("survivors")["sample_id"].to_list() == ["b"]


def test_composing_without_a_number_says_so(store, monkeypatch):
    whole = NanoEncoder.pictures
    monkeypatch.setattr(NanoEncoder, "pictures", lambda self, given: whole(self, given) * np.float32(math.nan))
    done = generate(handed(store, {"a": body(1)}))
    assert done.left()["a"]["detail"] == "caption.rank: the encoder gave a cosine that is no finite number"


def test_large_pictures_are_held_small_and_one_at_a_time(store, monkeypatch):
    seen, held = {}, []

    class Noting:
        def candidates(self, images):
            seen.update(images)
            return [[Candidate("a harbor", 1)] for _ in images]

    def opening(given):
        held.append(given)
        return open_picture(given)

    monkeypatch.setattr(CaptionSettings, "make_captioner", lambda *_: Noting())
    monkeypatch.setattr("stages.caption.opening.open_picture", opening)
    bodies = {"large": body(1, 3000, 2000), "small": body(2), "edge": body(3, 1500, 1024), "long": body(4, 5000, 1025)}
    done = generate(handed(store, bodies))
    assert {name: picture.size for name, picture in seen.items()} == {
        "large": (1536, 1024), "small": (40, 30), "edge": (1500, 1024), "long": (4995, 1024),
    }  # fmt: skip
    assert sorted(held) == sorted(bodies.values())
    for name in ("small", "edge"):
        assert seen[name].tobytes() == open_picture(bodies[name]).tobytes()
    assert done.table("survivors").height == 4


def test_the_judges_batch_is_halved_with_the_tasks():
    def batches(rotations):
        wanted = CaptionSettings.read(settings_of(Generate(), {"caption.rotations": rotations}))
        asked = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("stages.caption.settings.load_encoder", lambda *given: asked.append(given) or NanoEncoder())
            for batch in (128, 8, 4, 2, 1):
                wanted.make_captioner(Placement(batch=batch))
                wanted.make_judge(Placement(batch=batch))
        return list(dict.fromkeys(given[1].batch for given in asked))

    # The shipped batch of 8 holds all views of a picture, as before.
    assert batches(12) == [12, 8, 4, 1]
    assert batches(360) == [64, 16, 8, 4, 1]
    assert batches(4) == [4, 1]


def test_an_image_that_was_captioned_before_is_taken_over_and_not_even_read(store, monkeypatch):
    texts = {"a": ["x", "y z"], "b": [""]}
    says(monkeypatch, texts)
    tables = handed(store, {"a": body(1), "b": body(2)})
    first = generate(tables)
    store.remove("old.tar")
    second = generate(tables, Before([first.earlier()]))
    assert (counted(first), counted(second)) == ((2, 0), (0, 2))
    assert second.table("caption_candidates").equals(first.table("caption_candidates"))
    assert second.result.ledger.equals(first.result.ledger)
    assert second.table("survivors").equals(first.table("survivors"))


def test_other_bytes_or_another_sample_are_captioned_anew(store):
    first = generate(handed(store, {"a": body(1), "b": body(2)}))
    tables = handed(store, {"a": body(1), "b": body(3), "c": body(1)}, "new.tar")
    second = generate(tables, Before([first.earlier()]))
    assert counted(second) == (2, 1)
    assert of(second, "a").equals(of(first, "a"))
    assert (
        second.table("caption_candidates")
        .sort("sample_id", "index")
        .equals(generate(tables).table("caption_candidates").sort("sample_id", "index"))
    )


def test_the_seed_decides_the_captions(store):
    tables = handed(store, {"a": body(1)})
    first, second = generate(tables), generate(tables, seed=7)
    assert of(first, "a")["text"].to_list() != of(second, "a")["text"].to_list()


def test_stored_bytes_that_changed_stop_the_partition(store):
    tables = handed(store, {"a": body(1)})
    store.replace("old.tar", store.read("old.tar").replace(b"IDAT", b"IDAX"))
    with pytest.raises(CorruptFileError, match=r"old\.tar"):
        generate(tables)


def test_a_model_that_is_not_at_hand_is_named(store, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(store.local_path("")))
    tables = handed(store, {"a": body(1)})
    with pytest.raises(ModelMissingError, match=r"caption\.model = 'Some/absent'.*`hf download Some/absent`"):
        generate(tables, captioner="blip2", model="Some/absent")
    with pytest.raises(ModelMissingError, match=r"caption\.rerank = 'nan'"):
        generate(tables, rerank="nan")
    settings = settings_of(Generate(), {"caption.captioner": "blip2", "caption.rank": "nano"})
    with pytest.raises(ModelMissingError, match=r"caption\."):
        Generate().models(settings)


def test_an_unknown_vocabulary_is_named_with_the_known_ones(store):
    for ask in (
        lambda: Generate().pins(settings_of(Generate(), {"caption.vocabulary": "foo"}), {}),
        lambda: generate(handed(store, {"a": body(1)}), vocabulary="foo"),
    ):
        with pytest.raises(ModelMissingError, match=r"caption\.vocabulary = 'foo'.*known: scenes-1$"):
            ask()


def test_running_out_of_memory_goes_up(store, monkeypatch):
    def full(self, given):
        raise OutOfMemoryError("full")

    monkeypatch.setattr(NanoEncoder, "pictures", full)
    with pytest.raises(OutOfMemoryError):
        generate(handed(store, {"a": body(1)}))


def test_nothing_survived(store):
    done = generate(handed(store, {}))
    assert done.table("caption_candidates").is_empty()
    assert (counted(done), done.books) == ((0, 0), {})


def test_models_pins_and_profile_name_what_captions_depend_on(tmp_path):
    step = Generate()
    nano = {f"caption.{name}": value for name, value in NANO.items()}
    settings = settings_of(step, nano)
    assert set(step.models(settings)) == {"caption.rank nano", "caption.rerank nano", "caption.rotate nano"}
    assert set(step.pins(settings, {})) == {"vocabulary scenes-1"}
    profile = step.profile(settings)
    assert {"device", "precision", "numpy", "pillow", "transformers"} <= set(profile)
    (tmp_path / "config.json").write_text("{}")
    blip2 = settings_of(step, nano | {"caption.captioner": "blip2", "caption.model": str(tmp_path),
                                      "caption.lora": str(tmp_path)})  # fmt: skip
    assert f"caption.model {tmp_path}" in step.models(blip2)
    assert f"caption.lora {tmp_path}" in step.models(blip2)
    assert step.pins(blip2, {}) == {}
    assert "peft" in step.profile(blip2)


def test_blip2_through_the_step(store, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from tests.stages.caption.tiny_blip2 import write_tiny_blip2

    write_tiny_blip2(tmp_path / "tiny")
    tables = handed(store, {"a": body(1), "b": body(2), "c": body(3)})
    settings = {"captioner": "blip2", "model": str(tmp_path / "tiny"), "max_tokens": 8, "prompt": "a photo of"}
    whole = generate(tables, **settings)
    assert (
        generate(tables, params={"batch": 1}, **settings)
        .table("caption_candidates")
        .equals(whole.table("caption_candidates"))
    )
    assert of(whole, "a").height > 3
    assert whole.result.facts["prompt"] == "a photo of"
    assert not any(text.startswith("a photo of") for text in whole.table("caption_candidates")["text"])
