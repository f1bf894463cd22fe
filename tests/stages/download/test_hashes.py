import base64
import hashlib
import io
from collections import Counter

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from manifests.lexicon import load_lexicon
from manifests.sources import load_sources
from stages.download.hashes import (
    LEAST_JUDGED_ROWS,
    NEAR_BITS,
    Published,
    hash_verdicts,
    needs_body,
    suspicions,
    tally,
)
from stages.filter.matcher import Matcher
from stages.filter.parquet import row_groups, scan_parquet

MAX_PIXELS = 1_000_000


def picture(number, size=(96, 80)):
    """A picture with detail at several scales, as photographs have."""
    draw = np.random.default_rng(number)
    total = np.zeros((size[1], size[0], 3))
    for cells in (4, 8, 16, 32):
        coarse = Image.fromarray(draw.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), float) * 4 / cells
    return Image.fromarray((total / total.max() * 255).astype(np.uint8))


def encoded(image, kind="JPEG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def sha256(body):
    return hashlib.sha256(body).hexdigest()


def verdict(kind, value, body=b"body"):
    row = Published("id", "coyo700m", kind, value, sha256(body))
    return hash_verdicts([row], {row.sha256: body}.__getitem__, MAX_PIXELS)["id"]


PICTURE = encoded(picture(1))
HASH = str(imagehash.phash(Image.open(io.BytesIO(PICTURE))))
BITS = int(HASH, 16)


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_digest_is_read_in_any_case_and_with_spaces(kind):
    digest = hashlib.new(kind, b"body").hexdigest()
    for spelt in (digest, digest.upper(), f"  {digest}\n", f"{digest[:7]} {digest[7:]}"):
        assert verdict(kind, spelt) == "match"
    assert verdict(kind, hashlib.new(kind, b"other").hexdigest()) == "differs"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (None, None), ("md5", None), ("md5", ""), ("md5", "z" * 32), ("md5", "a" * 31), ("md5", "a" * 64),
        ("md5", base64.b64encode(hashlib.md5(b"body", usedforsecurity=False).digest()).decode()),
        ("sha256", "a" * 32), ("sha256", "not a hash"), ("phash64", "a" * 15), ("phash64", "0x" + "a" * 16),
        ("phash64", str(2**64)), ("phash64", str(-(2**63) - 1)), ("phash64", "1.5"), ("phash64", "--1"),
        ("phash64", "9" * 5000), ("phash64", "\u0661" * 16), ("phash64", "\u0661"), ("crc32", "aaaaaaaa"),
        (None, "a" * 32),
    ],
)  # fmt: skip
def test_what_is_no_hash_is_unknown(kind, value):
    assert verdict(kind, value, PICTURE) == "unknown"


@given(st.sampled_from(["md5", "sha256", "phash64"]), st.text(max_size=70))
def test_any_text_gets_a_verdict(kind, value):
    assert verdict(kind, value) in {"match", "differs", "unknown"}


def test_a_perceptual_hash_as_coyo_and_imagehash_write_it():
    for spelt in (HASH, HASH.upper(), f" {HASH} ", str(BITS), str(BITS - 2**64)):
        assert verdict("phash64", spelt, PICTURE) == "match"


@pytest.mark.parametrize(
    ("bits", "expected"),
    [(0, "match"), (1, "near"), (NEAR_BITS, "near"), (NEAR_BITS + 1, "differs"), (64, "differs")],
)
@pytest.mark.parametrize("end", ["low", "high"])
def test_bits_up_to_the_bound_are_near(bits, expected, end):
    moved = (2**bits - 1) << (64 - bits if end == "high" else 0)
    assert verdict("phash64", f"{BITS ^ moved:016x}", PICTURE) == expected


def test_copies_of_a_picture_are_near_and_other_pictures_differ():
    images = [picture(number, (256, 192)) for number in range(12)]
    hashes = [str(imagehash.phash(image)) for image in images]
    for number, image in enumerate(images):
        copies = [
            *(encoded(image, quality=quality) for quality in (95, 75, 40, 20)),
            *(encoded(image.resize(size), quality=80) for size in ((512, 384), (128, 96), (64, 48), (160, 160))),
            encoded(image, "WEBP", quality=70), encoded(image, "PNG"),
        ]  # fmt: skip
        assert {verdict("phash64", hashes[number], copy) for copy in copies} <= {"match", "near"}
        assert {verdict("phash64", other, copies[0]) for n, other in enumerate(hashes) if n != number} == {"differs"}


@pytest.mark.parametrize(
    "body", [b"", b"<html>", PICTURE[: len(PICTURE) // 2], encoded(Image.new("1", (2000, 2000)), "PNG")]
)
def test_bytes_that_do_not_decode_within_the_bound_are_unknown(body):
    assert verdict("phash64", HASH, body) == "unknown"
    assert verdict("md5", hashlib.md5(body, usedforsecurity=False).hexdigest(), body) == "match"


def test_only_hashes_that_need_the_bytes_read_them_and_each_body_once():
    bodies = {sha256(body): body for body in (PICTURE, b"other")}
    asked = Counter()

    def body(digest):
        asked[digest] += 1
        return bodies[digest]

    one, other = bodies
    md5 = hashlib.md5(PICTURE, usedforsecurity=False).hexdigest()
    rows = [
        Published("a", "x", "phash64", HASH, one), Published("b", "y", "md5", md5, one),
        Published("c", "x", "phash64", f"{BITS ^ 3:016x}", one), Published("d", "z", "sha256", one.upper(), one),
        Published("e", "z", "sha256", one, other), Published("f", "w", None, None, other),
        Published("g", "x", "phash64", "broken", other),
    ]  # fmt: skip
    assert hash_verdicts(rows, body, MAX_PIXELS) == dict(
        zip("abcdefg", ["match", "match", "near", "match", "differs", "unknown", "unknown"], strict=True)
    )
    assert asked == {one: 1}
    assert [needs_body(kind) for kind in ("md5", "phash64", "sha256", None)] == [True, True, False, False]


def test_verdicts_are_counted_by_source_that_publishes():
    rows = [Published(str(n), source, kind, value, "") for n, (source, kind, value) in enumerate([
        ("b", "md5", "1"), ("b", "md5", "2"), ("a", "phash64", "3"), ("b", "md5", None), ("c", None, None),
    ])]  # fmt: skip
    verdicts = {"0": "differs", "1": "match", "2": "unknown", "3": "unknown", "4": "unknown"}
    counted = tally(rows, verdicts)
    assert counted == {"a": {"unknown": 1}, "b": {"differs": 1, "match": 1}}
    assert list(counted) == ["a", "b"]


def test_a_column_that_is_no_hash_of_the_images_is_named():
    counts = {"laion2b": {"match": 400}, "coyo700m": {"differs": 402, "near": 4, "match": 6, "unknown": 90}}
    line = (
        "coyo700m: 97% of 412 published phash64 values differ from the bytes: the column is hardly a hash of these "
        "images. Nothing is dropped while download.on_hash_differs is keep; else correct [sources.coyo700m] columns "
        "or take keep"
    )
    assert suspicions(counts, {"coyo700m": "phash64"}) == [line]
    assert "97% of 412 published hashes differ" in suspicions(counts)[0]


@pytest.mark.parametrize(
    ("counts", "named"),
    [
        ({"differs": LEAST_JUDGED_ROWS}, True), ({"differs": LEAST_JUDGED_ROWS - 1}, False),
        ({"differs": LEAST_JUDGED_ROWS - 1, "unknown": 1000}, False), ({"differs": 90, "match": 10}, True),
        ({"differs": 89, "match": 11}, False), ({"differs": 80, "near": 20}, False),
        ({"unknown": 100}, False), ({}, False),
    ],
)  # fmt: skip
def test_few_rows_and_honest_hashes_are_not_named(counts, named):
    assert bool(suspicions({"s": counts})) == named


def hit(source, **columns):
    """A row of metadata as the filter hands it on."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    scans = scan_parquet(
        buffer, load_sources()[source], 0, len(row_groups(buffer)), Matcher(load_lexicon("rs5m-1"), "stem"), None
    )
    (row,) = [row for scan in scans for row in scan.hits.to_pylist()]
    return row


def test_what_coyo_publishes_is_judged_and_what_laion_calls_a_hash_is_not():
    coyo = hit("coyo700m", id=[1], url=["http://a/1"], text=["An aerial view"], image_phash=[HASH])
    assert verdict(coyo["source_hash_kind"], coyo["source_hash"], PICTURE) == "match"
    assert verdict(coyo["source_hash_kind"], coyo["source_hash"], encoded(picture(2))) == "differs"
    for source in ("laion2b", "laion400m", "laioncoco"):
        names = (
            {"top_caption": ["An aerial view"], "all_captions": [["An aerial view"]]} if source == "laioncoco" else {}
        )
        laion = hit(source, URL=["http://a/1"], TEXT=["An aerial view"], hash=[BITS - 2**64], **names)
        assert (laion["source_hash"], laion["source_hash_kind"]) == (None, None)
        assert f'"hash":{BITS - 2**64}' in laion["extra"]
        assert verdict(laion["source_hash_kind"], laion["source_hash"], PICTURE) == "unknown"


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.string()])
def test_a_hash_keeps_all_its_bits_on_the_way_from_a_column_of_any_type(kind):
    bits = BITS if kind != pa.int64() or BITS < 2**63 else BITS - 2**64
    column = pa.array([str(bits) if kind == pa.string() else bits], kind)
    row = hit("coyo700m", id=[1], url=["http://a/1"], text=["An aerial view"], image_phash=column)
    assert verdict(row["source_hash_kind"], row["source_hash"], PICTURE) == "match"
