import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from stages.detector import load_detector
from stages.encoder import Encoded, NotEncoded, Placement, load_encoder
from stages.nano_encoder import FEATURES, NanoEncoder


def picture(seed, side=40):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def png(image):
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_pictures_bodies_and_texts_are_unit_vectors_of_one_space():
    encoder = NanoEncoder()
    rows = encoder.pictures([picture(1), picture(2), Image.new("L", (9, 5), 128)])
    said = encoder.texts(["an aerial image.", "", "word " * 3000])
    for vectors in (rows, said):
        assert vectors.shape == (3, encoder.dimensions)
        assert vectors.dtype == np.float32
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    ((key, found),) = encoder.bodies([("a", png(picture(1)))])
    assert key == "a"
    assert isinstance(found, Encoded)
    assert np.array_equal(found.embedding, rows[0])
    assert found.trunk.shape == (FEATURES,)


def test_order_is_kept_and_what_is_no_picture_has_a_reason():
    bodies = [("a", png(picture(1))), ("b", b"no picture"), ("c", b""), ("d", png(picture(2)))]
    found = dict(NanoEncoder().bodies(bodies))
    assert list(found) == ["a", "b", "c", "d"]
    assert isinstance(found["b"], NotEncoded)
    assert found["c"] == NotEncoded("0 bytes")


def test_texts_that_share_words_are_near():
    one, two, other = NanoEncoder().texts(
        ["a satellite image of a port", "a satellite image of a lake", "kitchen chairs"]
    )
    assert one @ two > 0.5 > one @ other


def test_numbers_are_the_same_in_another_process():
    code = "from stages.nano_encoder import NanoEncoder as N; print(N().texts(['port'])[0, :4].tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(NanoEncoder().texts(["port"])[0, :4].tolist())


def test_it_is_had_by_name_without_torch():
    code = (
        "import sys\nfrom stages.encoder import Placement, load_encoder\n"
        "load_encoder('nano', Placement(), 'k').texts(['a'])\nsys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert isinstance(load_encoder("nano", Placement(), "k"), NanoEncoder)


def test_its_detector_tells_pictures_apart():
    found = NanoEncoder().bodies([(0, png(picture(1))), (1, png(Image.new("RGB", (30, 30), "white")))])
    trunks = np.stack([one.trunk for _, one in found if isinstance(one, Encoded)])
    likely, unlikely = load_detector("nano", "k").probability(trunks)
    assert likely > 0.5 > unlikely
