"""Bands: pixels and place out of the files BigEarthNet publishes, a reason for everything else."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.world.archive_files import band_tiff
from stages.geotiff import BandError, Place, read_band, read_place

PIXELS = np.arange(144, dtype=np.uint16).reshape(12, 12) * 400
BAND = band_tiff(PIXELS, 32633, 404_400.0, 5_342_400.0)
REAL = os.environ.get("RS5M_TEST_DATA")


def tiff(pixels, **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="TIFF", **options)
    return out.getvalue()


def test_a_band_and_its_place():
    assert np.array_equal(read_band(BAND), PIXELS)
    assert read_band(BAND).dtype == np.uint16
    assert read_place(BAND) == Place(32633, 404_400.0, 5_342_400.0, 404_520.0, 5_342_280.0)
    assert read_place(tiff(PIXELS)) is None


def test_compressed_and_wider_integers_are_read_too():
    assert np.array_equal(read_band(tiff(PIXELS, compression="tiff_deflate")), PIXELS)
    assert np.array_equal(read_band(tiff(PIXELS.astype(np.int32))), PIXELS)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no TIFF header"), (b"<html>", "no TIFF header"), (BAND[:200], "Error: "),
        (tiff(np.zeros((4, 4, 3), np.uint8)), "RGB pixels where one band of 16-bit integers"),
        (tiff(np.zeros((4, 4), np.float32)), "F pixels"), (tiff(np.full((4, 4), -5, np.int32)), "outside 0 to 65535"),
        (tiff(np.zeros((2049, 2048), np.uint16)), "limit 4194304"),
    ],
)  # fmt: skip
def test_what_is_no_band_says_why(body, says):
    with pytest.raises(BandError, match=says):
        read_band(body)


@given(st.integers(0, len(BAND) - 1), st.binary(min_size=1, max_size=8))
def test_damage_is_an_error_and_nothing_else(at, noise):
    damaged = BAND[:at] + noise + BAND[at + len(noise) :]
    for reader in (read_band, read_place):
        said = ""
        try:
            reader(damaged)
        except BandError as error:
            said = str(error)
        assert "\n" not in said


@pytest.mark.skipif(not REAL, reason="RS5M_TEST_DATA is not set: it names a folder with real patches")
def test_real_bands_agree_with_what_is_said_beside_them():
    folder = Path(REAL, "bigearthnet/s2")
    patches = sorted(path for path in folder.iterdir() if path.is_dir())
    assert patches
    for patch in patches:
        said = json.loads((patch / f"{patch.name}_labels_metadata.json").read_bytes())
        for band, side in (("B04", 120), ("B01", 20)):
            body = (patch / f"{patch.name}_{band}.tif").read_bytes()
            place = read_place(body)
            assert {name: getattr(place, name) for name in said["coordinates"]} == said["coordinates"]
            assert f'AUTHORITY["EPSG","{place.epsg}"]]' in said["projection"]
            assert read_band(body).shape == (side, side)
