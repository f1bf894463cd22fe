import pytest

from stages.caption.weights import locate
from stages.step import ModelMissingError


def test_a_folder_is_its_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("words")
    found = locate(str(tmp_path), "caption.model")
    assert found.folder == tmp_path
    (tmp_path / "README.md").write_text("other words")
    assert locate(str(tmp_path), "caption.model") == found
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert locate(str(tmp_path), "caption.model").revision != found.revision


def hub(path, monkeypatch):
    """A hub cache that holds one model in two revisions."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(path))
    home = path / "models--some--model"
    for revision in ("a" * 40, "b" * 40):
        (home / "snapshots" / revision).mkdir(parents=True)
        (home / "snapshots" / revision / "config.json").write_text("{}")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("a" * 40)


def test_a_hub_model_is_its_commit(tmp_path, monkeypatch):
    hub(tmp_path, monkeypatch)
    assert locate("some/model", "caption.model").revision == "a" * 40
    pinned = locate(f"some/model@{'b' * 40}", "caption.model")
    assert pinned.revision == pinned.folder.name == "b" * 40


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("", r"caption\.model is empty"),
        ("Some/absent", r"caption\.model = 'Some/absent' is not at hand: `hf download Some/absent` gets it"),
        ("Some/absent@v2", r"`hf download Some/absent --revision v2` gets it"),
        ("/no/such/folder", "is neither a folder that exists nor a model of the hub"),
    ],
)
def test_what_is_not_at_hand_says_what_provides_it(tmp_path, monkeypatch, model, words):
    hub(tmp_path, monkeypatch)
    with pytest.raises(ModelMissingError, match=words):
        locate(model, "caption.model")
