import hashlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from manifests.store import Store
from pipeline.page.small_pictures import SIDE_PIXELS, SmallPicture, small_pictures
from stages.images import Place


def packed(image, kind="PNG", **options):
    body = BytesIO()
    image.save(body, kind, **options)
    return body.getvalue()


def stored(folder, bodies, tar="images.tar"):
    """Put bodies behind each other, as they lie in a tar."""
    offset, places = 0, []
    with (folder / tar).open("wb") as file:
        for body in bodies:
            places.append(Place(tar, offset, len(body), hashlib.sha256(body).hexdigest()))
            offset += file.write(body)
    return places


def made(folder, bodies, max_pixels=10_000_000):
    places = stored(folder, bodies)
    found = dict(small_pictures(Store(str(folder)), places, max_pixels))
    return [found[place.sha256] for place in places]


def pixels(picture):
    with Image.open(BytesIO(picture.body)) as image:
        assert image.format == "JPEG"
        assert (image.size, image.mode) == ((picture.width, picture.height), "RGB")
        return np.asarray(image).astype(int)


def test_pictures_of_every_kind_are_small_and_in_colour(tmp_path):
    ramp = np.tile(np.arange(400, dtype=np.uint16) * 100, (300, 1))
    colour = Image.new("RGB", (400, 300), (200, 30, 30))
    bodies = [
        packed(Image.fromarray(ramp)), packed(colour.convert("CMYK"), "JPEG"), packed(colour.convert("P"), "GIF"),
        packed(colour.convert("YCbCr"), "TIFF"), packed(Image.new("1", (400, 300), 1)),
    ]  # fmt: skip
    deep, *reds, white = (pixels(picture) for picture in made(tmp_path, bodies))
    assert deep[60].mean(axis=1)[[0, -1]] == pytest.approx([0, 255], abs=6)  # not clipped at 255 of 39,900
    for red in reds:
        assert red.shape == (120, SIDE_PIXELS, 3)
        assert np.abs(red.mean(axis=(0, 1)) - [200, 30, 30]).max() < 15
    assert white.min() > 250


def test_what_is_clear_is_white(tmp_path):
    image = Image.new("RGBA", (10, 20), (0, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 10, 10, 20))
    palette = Image.new("P", (8, 8), 0)
    (shown, clear) = made(tmp_path, [packed(image), packed(palette, transparency=0)])
    assert pixels(shown)[2].min() > 240
    assert pixels(shown)[17].mean(axis=0) == pytest.approx([0, 0, 255], abs=12)
    assert (shown.width, shown.height) == (10, 20)
    assert pixels(clear).min() > 250


def test_nothing_but_pixels_goes_along(tmp_path):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "stranger's words", 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "stranger's words")
    image = Image.new("RGB", (300, 100), "green")
    bodies = [packed(image, "JPEG", exif=exif, comment=b"stranger's words"), packed(image, pnginfo=text)]
    for picture in made(tmp_path, bodies):
        assert b"stranger" not in picture.body
        assert (picture.width, picture.height) == (160, 53)  # as stored: no turn


def test_what_cannot_be_shown_says_why(tmp_path):
    whole = packed(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
    bodies = [b"no picture", whole[: len(whole) // 2], packed(Image.new("L", (300, 200))), whole]
    words, cut, large, shown = made(tmp_path, bodies, max_pixels=50_000)
    assert words.startswith("not decoded: no JPEG")
    assert cut.startswith("not decoded: OSError: ")
    assert large == "not decoded: 300 x 200 pixels"
    assert isinstance(shown, SmallPicture)


def test_a_bad_place_costs_no_other_picture(tmp_path):
    bodies = [packed(Image.new("L", (20, 20), level)) for level in range(6)]
    places = stored(tmp_path, bodies)
    with (tmp_path / "images.tar").open("r+b") as file:
        file.seek(places[2].offset + 10)
        file.write(b"damage")
        file.truncate(places[5].offset + 3)
    gone = Place("gone.tar", 0, 10, "0" * 64)
    folder = Place("folder", 0, 10, "1" * 64)
    (tmp_path / "folder").mkdir()
    found = dict(small_pictures(Store(str(tmp_path)), [*places, *places, gone, folder], 1000))
    kinds = [isinstance(found[place.sha256], SmallPicture) for place in places]
    assert kinds == [True, True, False, True, True, False]
    for place in (places[2], places[5]):
        short = f"{place.length} bytes at {place.offset} are not {place.sha256[:12]}"
        assert found[place.sha256] == f"not stored any more: {short}"
    assert found["0" * 64] == "not stored any more: is not there"
    assert found["1" * 64] == "cannot be read: IsADirectoryError"
