import io
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from PIL import Image

from manifests.store import Store
from stages.detector import load_detector
from stages.encoder import Encoded, NotEncoded, Placement
from stages.nano_encoder import NanoEncoder
from stages.outlier import embed
from stages.outlier.cut import Cut
from stages.outlier.embed import Embed
from stages.prompts import prompt_vector
from stages.step import CorruptFileError, ModelMissingError, OutOfMemoryError
from tests.stages.handing import NOTHING_BEFORE, Before, Handed, perform, rows_of, settings_of, store_images

NANO = {"outlier.encoder": "nano", "outlier.detector": "nano", "run.device": "cpu"}


def picture(seed, width=40, height=30):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


ONE, TWO, THREE = picture(1), picture(2), picture(3)


class Counting:
    """The nano encoder, which remembers what it was given; ``spoil`` may change what comes out of it."""

    def __init__(self, spoil=None):
        self.seen = []
        self.placements = []
        self._nano = NanoEncoder()
        self._spoil = spoil or {}
        self.dimensions = self._nano.dimensions

    def texts(self, texts):
        return self._nano.texts(texts)

    def bodies(self, bodies):
        for key, body in bodies:
            self.seen.append((key, body))
            ((_, found),) = self._nano.bodies([(key, body)])
            yield key, self._spoil.get(body, lambda found: found)(found)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


@pytest.fixture
def counting(monkeypatch):
    """Put a counting encoder in place of the one the recipe names."""

    def use(spoil=None):
        encoder = Counting(spoil)

        def load(name, placement, key):
            assert (name, key) == ("nano", "outlier.encoder")
            encoder.placements.append(placement)
            return encoder

        monkeypatch.setattr(embed, "load_encoder", load)
        return encoder

    return use


def handed(store, bodies, tar="images.tar", sources=None, lost=()):
    """Images by sample id, stored and handed as survivors; those ``lost`` were fetched and did not survive."""
    places = store_images(store, tar, *bodies.values())
    fetched = [
        {"sample_id": key, "url": f"http://a.org/{key}", "tar": p.tar, "offset": p.offset, "length": p.length,
         "sha256": p.sha256}
        for key, p in zip(bodies, places, strict=True)
    ]  # fmt: skip
    survivors = [{"sample_id": key, "source": (sources or {}).get(key, "cc3m")} for key in bodies if key not in lost]
    return Handed(store, {
        ("dedup.cluster", "survivors"): rows_of("survivors", *survivors),
        ("download.fetch", "fetched"): rows_of("fetched", *fetched),
    })  # fmt: skip


def score(tables, prior=NOTHING_BEFORE, params=None, **changed):
    settings = NANO | {f"outlier.{name}": value for name, value in changed.items()}
    return perform(Embed(), tables, settings, prior=prior, params=params, partition="web-0000")


def counted(done):
    return done.result.facts["scored_images"], done.result.facts["recorded_images"]


def test_the_two_scores_and_the_vector(store):
    done = score(handed(store, {"a": ONE, "b": TWO}))
    encoder = NanoEncoder()
    ((_, found),) = encoder.bodies([("a", ONE)])
    row = done.row("scores", "a")
    cosine = float(found.embedding @ prompt_vector(encoder, "rs5m-33"))
    assert row["vlm"] == pytest.approx(cosine, abs=6e-5)
    assert row["vlm"] == np.float32(round(row["vlm"], 4))
    chance = load_detector("nano", "").probability(found.trunk[None])[0]
    assert row["detector"] == pytest.approx(chance, abs=6e-5)
    assert row["detector"] == np.float32(round(row["detector"], 4))
    vector = np.frombuffer(done.row("embeddings", "a")["embedding"], "<f2")
    assert vector.shape == (encoder.dimensions,)
    assert np.array_equal(vector, found.embedding.astype(np.float16))
    assert done.row("scores", "b")["vlm"] != row["vlm"]


def test_every_survivor_gets_a_row_and_nobody_else(store):
    tables = handed(store, {"a": ONE, "b": TWO, "c": THREE}, sources={"a": "wit"}, lost=("b",))
    done = score(tables)
    assert done.table("scores")["sample_id"].to_list() == ["a", "c"]
    assert done.result.ledger.is_empty()
    assert {source: (books.seen, books.kept) for source, books in done.books.items()} == {"cc3m": (1, 1), "wit": (1, 1)}


def test_equal_bytes_are_encoded_once_in_order_of_their_digest(store, counting):
    encoder = counting()
    done = score(handed(store, {"a": ONE, "b": TWO, "c": ONE, "d": THREE, "e": THREE}))
    keys = [key for key, _ in encoder.seen]
    assert keys == sorted(keys)
    assert len(keys) == len(set(keys)) == 3
    assert counted(done) == (3, 0)
    assert done.row("scores", "a") | {"sample_id": "c"} == done.row("scores", "c")


def test_what_was_scored_before_is_not_even_read(store, counting):
    encoder = counting({TWO: lambda _: NotEncoded("too thin")})
    tables = handed(store, {"a": ONE, "b": TWO, "c": ONE})
    first = score(tables)
    store.remove("images.tar")
    second = score(tables, Before([first.earlier()]))
    assert (counted(first), counted(second)) == ((2, 0), (0, 2))
    assert len(encoder.seen) == 2
    assert len(encoder.placements) == 1  # the second time the model is not even loaded
    for output in ("scores", "embeddings"):
        assert second.table(output).equals(first.table(output))


def test_only_what_is_new_is_scored(store, counting):
    encoder = counting()
    first = score(handed(store, {"a": ONE, "b": TWO}))
    encoder.seen.clear()
    tables = handed(store, {"x": TWO, "y": THREE}, "new.tar")
    second = score(tables, Before([first.earlier()]))
    assert [body for _, body in encoder.seen] == [THREE]
    assert counted(second) == (1, 1)
    fresh = score(tables)
    for output in ("scores", "embeddings"):
        assert second.table(output).sort("sample_id").equals(fresh.table(output).sort("sample_id"))


def test_earlier_commits_are_read_until_all_is_known(store):
    tables = handed(store, {"a": ONE, "b": TWO})
    one, two = (score(handed(store, {"a": body}, "part.tar")).earlier() for body in (ONE, TWO))
    unread = score(tables).earlier()
    assert counted(score(tables, Before([one, two, unread]))) == (0, 2)
    assert unread.reads == 0


def test_another_threshold_calls_the_encoder_not_once(store, counting):
    encoder = counting()
    tables = handed(store, {f"{n}": picture(n) for n in range(10)})
    scores = score(tables).table("scores")
    encoder.seen.clear()
    given = Handed(store, {
        ("outlier.embed", "scores"): {"web-0000": scores},
        ("dedup.cluster", "survivors"): {"web-0000": tables.frame("dedup.cluster", "survivors")},
    })  # fmt: skip
    kept = [
        perform(Cut(), given, {"outlier.vlm.keep_top": share}).result.kept.get("cc3m", 0) for share in (1.0, 0.8, 0.3)
    ]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[2]
    assert encoder.seen == []
    read = {key.split(".")[1] for key in Embed.reads}
    assert read == {"encoder", "prompts", "detector"}  # no threshold is in its fingerprint


def test_what_the_encoder_cannot_take_has_no_score(store):
    tables = handed(store, {"fine": ONE, "text": b"no picture", "cut": ONE[: len(ONE) // 2]})
    done = score(tables)
    for name in ("text", "cut"):
        row = done.row("scores", name)
        assert (row["vlm"], row["detector"]) == (None, None)
    assert done.table("embeddings")["sample_id"].to_list() == ["fine"]
    assert done.result.facts["unscored_images"] == 2
    assert all(done.result.facts["unscored"].values())


def spoilt(**changed):
    def change(found):
        parts = {"embedding": found.embedding, "trunk": found.trunk}
        return Encoded(**{name: np.full_like(part, changed.get(name, 0)) if name in changed else part
                          for name, part in parts.items()})  # fmt: skip

    return change


def test_scores_that_are_no_numbers_are_stored_as_none_and_never_pass(store, counting):
    nan = float("nan")
    counting({ONE: spoilt(embedding=nan), TWO: spoilt(trunk=nan)})
    tables = handed(store, {"one": ONE, "two": TWO, "three": THREE})
    done = score(tables)
    rows = {name: done.row("scores", name) for name in ("one", "two", "three")}
    assert rows["one"]["vlm"] is None
    assert rows["one"]["detector"] is not None
    assert rows["two"]["vlm"] is not None
    assert rows["two"]["detector"] is None
    assert set(done.table("embeddings")["sample_id"]) == {"two", "three"}
    given = Handed(store, {
        ("outlier.embed", "scores"): {"web-0000": done.table("scores")},
        ("dedup.cluster", "survivors"): {"web-0000": tables.frame("dedup.cluster", "survivors")},
    })  # fmt: skip
    off = {"outlier.vlm.keep_top": 1.0, "outlier.detector_cut.keep_top": 1.0}
    assert perform(Cut(), given, off).reasons() == {"one": "outlier.no_score", "two": "outlier.no_score"}


def test_the_batch_is_the_settings_or_what_the_planner_says(store, counting):
    encoder = counting()
    tables = handed(store, {"a": ONE})
    score(tables, batch=32, precision="bf16")
    score(tables, params={"batch": 16})
    assert encoder.placements == [Placement("cpu", "bf16", 32), Placement("cpu", "fp32", 16)]


def test_running_out_of_memory_goes_up_to_the_runner(store, counting):
    def full(found):
        raise OutOfMemoryError("64 images do not fit")

    counting({ONE: full})
    with pytest.raises(OutOfMemoryError):
        score(handed(store, {"a": ONE}))


def test_stored_bytes_that_changed_stop_the_partition(store):
    tables = handed(store, {"a": ONE, "b": TWO})
    store.replace("images.tar", store.read("images.tar").replace(b"IDAT", b"IDAX"))
    with pytest.raises(CorruptFileError, match=r"images\.tar"):
        score(tables)


def test_no_rows_load_no_model(store, counting):
    encoder = counting()
    done = score(handed(store, {}))
    assert done.table("scores").is_empty()
    assert done.table("embeddings").is_empty()
    assert (encoder.placements, done.books) == ([], {})


def test_the_fingerprint_names_models_prompts_and_what_the_numbers_depend_on():
    step = Embed()
    settings = settings_of(step, NANO)
    models = step.models(settings)
    assert set(models) == {"outlier.encoder nano", "outlier.detector nano"}
    assert all(models.values())
    assert set(step.pins(settings, {})) == {"prompts rs5m-33"}
    profile = step.profile(settings)
    assert (profile["device"], profile["precision"], profile["batch"]) == ("cpu", "fp32", "64")
    assert "torch" in profile


@pytest.mark.parametrize(("key", "value"), [
    ("outlier.encoder", "nanno"), ("outlier.encoder", ""), ("outlier.detector", "no/such.safetensors"),
    ("outlier.detector", ""),
])  # fmt: skip
def test_a_model_that_is_not_there_is_named_with_its_key(key, value):
    step = Embed()
    with pytest.raises(ModelMissingError, match=key):
        step.models(settings_of(step, NANO | {key: value}))


def test_unknown_prompts_are_named_with_their_key():
    step = Embed()
    with pytest.raises(ModelMissingError, match=r"outlier\.prompts = 'mine'"):
        step.pins(settings_of(step, NANO | {"outlier.prompts": "mine"}), {})


def test_planning_imports_no_torch():
    script = (
        "import sys; from pipeline.line import step_named; from manifests.recipe import Settings;"
        "step = step_named('outlier.embed');"
        "given = Settings({'outlier.encoder': 'nano', 'outlier.detector': 'nano', 'outlier.prompts': 'rs5m-33',"
        " 'outlier.batch': 8, 'outlier.precision': 'fp32', 'run.device': 'auto'});"
        "step.models(given), step.pins(given, {}), step.profile(given);"
        "sys.exit(','.join({'torch', 'open_clip', 'transformers', 'sklearn'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_head_of_another_encoder_is_refused_in_words(store, tmp_path):
    from stages.detector import save_detector

    head = tmp_path / "other.safetensors"
    save_detector(head, np.ones(5, np.float32), 0.0, {"encoder": "nano"})
    with pytest.raises(ModelMissingError, match="takes 5 features"):
        score(handed(store, {"a": ONE}), detector=str(head))


@pytest.mark.parametrize("told", [{"encoder": "other"}, {"encoder": "nano", "encoder_digest": "0" * 32}])
def test_a_head_of_another_encoder_with_as_many_features_is_refused_before_and_while_scoring(store, tmp_path, told):
    from stages.detector import save_detector

    head = tmp_path / "other.safetensors"
    save_detector(head, np.ones(14, np.float32), 0.0, told)
    with pytest.raises(ModelMissingError, match=r"^outlier\.detector = .* cannot judge 'nano'"):
        score(handed(store, {"a": ONE}), detector=str(head))
    step = Embed()
    with pytest.raises(ModelMissingError, match=r"^outlier\.detector = .* cannot judge 'nano'"):
        step.models(settings_of(step, NANO | {"outlier.detector": str(head)}))


def test_scores_do_not_depend_on_where_images_lie(store):
    bodies = {f"{n}": picture(n) for n in range(6)}
    whole = score(handed(store, bodies)).table("scores").sort("sample_id")
    half = dict(list(bodies.items())[:3])
    first = handed(store, half, "one.tar")
    second = handed(store, {k: v for k, v in bodies.items() if k not in half}, "two.tar")
    both = Handed(store, {
        (step, table): pl.concat([first.frame(step, table), second.frame(step, table)])
        for step, table in (("dedup.cluster", "survivors"), ("download.fetch", "fetched"))
    })  # fmt: skip
    assert score(both).table("scores").sort("sample_id").equals(whole)
