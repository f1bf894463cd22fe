import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pipeline.remake_mini.__main__ import main
from pipeline.remake_mini.corpus import CorpusError, read_corpus
from pipeline.remake_mini.views import texts, views

CLASSES = ("BaseballField", "Port")


def picture(seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((60, 50), Image.Resampling.BICUBIC)


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", quality=95)


@pytest.fixture
def data(tmp_path):
    """Ten pictures of each class, of which two are a picture and its reflection, and ten photographs."""
    pairs = []
    for place, name in enumerate(CLASSES):
        for number in range(10):
            image = picture(100 * place + number // 2 if number < 2 else 100 * place + number)
            if number == 1:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            save(image, tmp_path / "rs-pairs" / name / f"{number}.jpg")
            pairs.append(
                {"file": f"{name}/{number}.jpg", "class": name, "captions": [f"many things {number} .", "a ."]}
            )
    (tmp_path / "rs-pairs" / "captions.json").write_text(json.dumps(pairs))
    for number in range(10):
        save(picture(1000 + number), tmp_path / "photos" / f"n0000000{number}_king_penguin.jpg")
    return tmp_path


def test_each_class_has_its_share_held_out_by_hash(data):
    items = read_corpus(data)
    held = Counter(item.label for item in items if item.held_out)
    assert set(held) == {"baseball field", "port", "king penguin"}
    assert all(3 <= count <= 4 for count in held.values())
    assert [item.file for item in items] == sorted(item.file for item in items)
    assert items == read_corpus(data)


def test_near_duplicates_stay_on_one_side(data):
    sides = {item.file: item.held_out for item in read_corpus(data)}
    for name in CLASSES:
        assert sides[f"rs-pairs/{name}/0.jpg"] == sides[f"rs-pairs/{name}/1.jpg"]


def test_adding_a_class_moves_nothing_of_the_others(data):
    before = {item.file: item.held_out for item in read_corpus(data)}
    pairs = json.loads((data / "rs-pairs" / "captions.json").read_text())
    save(picture(5000), data / "rs-pairs" / "Beach" / "0.jpg")
    pairs.append({"file": "Beach/0.jpg", "class": "Beach", "captions": ["sand ."]})
    (data / "rs-pairs" / "captions.json").write_text(json.dumps(pairs))
    after = {item.file: item.held_out for item in read_corpus(data)}
    assert before.items() <= after.items()


@pytest.mark.parametrize("harm", ["json", "file", "key", "name", "nothing"])
def test_data_that_is_not_as_described(data, harm):
    captions = data / "rs-pairs" / "captions.json"
    if harm == "json":
        captions.write_text("[")
    elif harm == "file":
        (data / "rs-pairs" / "Port" / "3.jpg").unlink()
    elif harm == "key":
        captions.write_text('[{"file": "Port/1.jpg"}]')
    elif harm == "name":
        (data / "photos" / "n00000001_king_penguin.jpg").rename(data / "photos" / "penguin.jpg")
    else:
        captions.unlink()
    with pytest.raises(CorpusError, match=r"must hold rs-pairs/captions\.json"):
        read_corpus(data)


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "must hold rs-pairs/captions.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_views_are_pictures_and_photographs_never_stand_on_their_head(data):
    by_kind = {item.kind: item for item in read_corpus(data)}
    overhead, photo = (
        [np.asarray(Image.open(io.BytesIO(body))) for body in views(by_kind[kind])] for kind in ("overhead", "photo")
    )
    assert len(overhead) == 9
    assert len(photo) == 5
    assert all(view.ndim == 3 for view in (*overhead, *photo))
    upside_down = overhead[0][::-1]
    assert any(np.array_equal(view, upside_down) for view in overhead)
    assert not any(np.array_equal(view, photo[0][::-1]) for view in photo)


def test_texts_say_the_view_where_captions_do_not(data):
    by_kind = {item.kind: item for item in read_corpus(data)}
    said = texts(by_kind["overhead"])
    assert sum(share for _, share in said) == pytest.approx(1)
    seen = sum(share for text, share in said if any(kind in text for kind in ("aerial", "satellite", "remote sensing")))
    assert 0.4 < seen < 0.5
    assert {text for text, _ in texts(by_kind["photo"])} == {"a king penguin", "a photo of a king penguin", "a photo"}
