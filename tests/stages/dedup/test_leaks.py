import hashlib
import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

from stages.dedup import leaks
from stages.dedup.inspect import inspected
from stages.dedup.leaks import HashKindError, find_leaks
from stages.dedup.second_proof import SecondProof

LIMIT = 1_000_000
PROOF = SecondProof(0.8, 0.86)
IMAGES = {
    "sample_id": pl.String, "sha256": pl.String, "hash_kind": pl.String, "phash": pl.UInt64, "texture": pl.Float32,
    "thumbnail": pl.Array(pl.UInt8, 256),
}  # fmt: skip


def picture(seed, width=160, height=120):
    """An overhead scene: large areas, finer detail."""
    draw = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (4, 9, 20, 45):
        coarse = Image.fromarray(draw.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64) * 4 / cells
    return ((total - total.min()) / (total.max() - total.min()) * 255).astype(np.uint8)


def encoded(pixels, kind="PNG", **options):
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, kind, **options)
    return out.getvalue()


def row(pixels, kind="exact", file="PNG", **options):
    body = encoded(pixels, file, **options)
    return inspected(body, kind, LIMIT) | {"sha256": hashlib.sha256(body).hexdigest()}


def images(**rows):
    columns = {name: [row[name] for row in rows.values()] for name in IMAGES if name != "sample_id"}
    return pl.DataFrame({"sample_id": list(rows), **columns}, schema=IMAGES)


def items(**rows):
    names = ("sha256", "hash_kind", "phash_d4", "texture")
    columns = {name: [row[name] for row in rows.values()] for name in names}
    thumbnails = [row["thumbnail"].tolist() for row in rows.values()]
    schema = {"sha256": pl.String, "hash_kind": pl.String, "phash_d4": pl.Array(pl.UInt64, 8), "texture": pl.Float32}
    frame = pl.DataFrame(columns, schema=schema)
    return frame.with_columns(
        item=pl.Series(list(rows), dtype=pl.String), thumbnail=pl.Series(thumbnails, dtype=IMAGES["thumbnail"])
    )


def turned(pixels, view):
    return np.rot90(pixels if view < 4 else np.fliplr(pixels), view % 4)


@pytest.mark.parametrize("kind", ["exact", "fast"])
@pytest.mark.parametrize("view", range(8))
def test_an_item_is_found_however_it_is_turned(view, kind):
    ours = images(leak=row(turned(picture(1), view), kind, "JPEG", quality=60), other=row(picture(2), kind))
    found = find_leaks(ours, items(a=row(picture(1), kind), b=row(picture(3), kind)), 4, PROOF)
    assert found.select("sample_id", "item", "view").rows() == [("leak", "a", view)]
    assert 0 <= found["distance"][0] <= 4
    assert found["confirm"][0] <= 6.0  # of a texture above 30


def test_a_resized_copy_is_found_and_a_neighbour_is_not():
    scene = picture(1, 320, 240)
    smaller = np.asarray(Image.fromarray(scene).resize((200, 150), Image.Resampling.BICUBIC))
    ours = images(smaller=row(smaller), moved=row(np.roll(scene, 80, axis=1)))
    assert find_leaks(ours, items(a=row(scene)), 4, PROOF)["sample_id"].to_list() == ["smaller"]


def test_a_hash_without_the_proof_is_no_leak():
    one = row(picture(1))
    pale = {**one, "sha256": "", "thumbnail": one["thumbnail"] // 2}
    assert find_leaks(images(x=pale), items(a=one), 4, PROOF).is_empty()
    assert find_leaks(images(x=pale), items(a=one), 4, None)["sample_id"].to_list() == ["x"]


def test_of_pictures_with_little_to_see_a_stronger_proof_is_asked():
    plain = row(picture(1))
    off = {**plain, "sha256": "", "thumbnail": plain["thumbnail"] // 8 * 8 + 4}  # up to four levels off
    assert len(find_leaks(images(x=off), items(a=plain), 4, PROOF)) == 1
    for texture in (3.0, 0.9, 0.1):
        both = images(x={**off, "texture": texture}), items(a={**plain, "texture": texture})
        assert find_leaks(*both, 4, PROOF).is_empty()
        assert find_leaks(*both, 4, None).height == 1


def test_an_item_whose_hash_is_made_of_noise_is_found_by_its_blocks():
    one = row(picture(1))
    assert find_leaks(images(x={**one, "sha256": "", "phash": one["phash"] ^ 0xFFF}), items(a=one), 4, PROOF)[
        "distance"
    ].to_list() == [12]


def test_one_image_may_be_in_several_items_and_one_item_in_several_images():
    one = row(picture(1))
    found = find_leaks(images(x=one, y=one), items(a=one, b=one), 0, SecondProof(0.0, 1.0))
    assert found.select("sample_id", "item").rows() == [("x", "a"), ("x", "b"), ("y", "a"), ("y", "b")]


def test_a_placeholder_on_both_sides_is_compared_block_by_block(monkeypatch):
    plain, scene = row(picture(2)), row(picture(1))
    ours = images(**{f"x{n}": plain for n in range(9)}, leak=scene)
    theirs = items(**{f"i{n}": plain for n in range(3)}, scene=scene)
    whole = find_leaks(ours, theirs, 4, PROOF)
    assert len(whole) == 9 * 3 + 1
    monkeypatch.setattr(leaks, "_PAIRS_AT_ONCE", 50)
    assert find_leaks(ours, theirs, 4, PROOF).equals(whole)


def test_of_a_symmetric_item_one_view_is_told():
    half = picture(1)[:60]
    symmetric = np.concatenate([half, half[::-1]])
    found = find_leaks(images(x=row(symmetric)), items(a=row(symmetric)), 4, PROOF)
    assert found.select("item", "distance", "view").rows() == [("a", 0, 0)]


def test_hashes_of_two_kinds_are_never_compared():
    with pytest.raises(HashKindError, match="phash64-exact and of phash64-fast"):
        find_leaks(images(x=row(picture(1))), items(a=row(picture(1), "fast")), 4, PROOF)


def test_nothing_against_nothing_is_nothing():
    none, one = images(), images(x=row(picture(1)))
    for ours, theirs in ((none, items(a=row(picture(1)))), (one, items())):
        assert find_leaks(ours, theirs, 4, PROOF).columns == ["sample_id", "item", "distance", "view", "confirm"]


def test_pairs_are_those_of_comparing_all_with_all():
    draw = np.random.default_rng(7)
    base = draw.integers(0, 1 << 63, 40, dtype=np.uint64)
    flips = [np.uint64(sum(1 << int(bit) for bit in draw.choice(64, draw.integers(0, 8), replace=False))) for _ in base]
    grey = {"sha256": "", "hash_kind": "phash64-exact", "thumbnail": np.zeros(256, np.uint8), "texture": 50.0}
    ours = images(**{f"x{n}": {**grey, "phash": int(value)} for n, value in enumerate(base)})
    views = [[int(value ^ flip)] + [0] * 7 for value, flip in zip(base, flips, strict=True)]
    grey["sha256"] = "other"
    theirs = items(**{f"i{n}": {**grey, "phash_d4": view} for n, view in enumerate(views)})
    found = find_leaks(ours, theirs, 4, None).select("sample_id", "item", "distance").rows()
    wanted = [
        (f"x{n}", f"i{m}", min((int(one) ^ view).bit_count() for view in views[m]))
        for n, one in enumerate(base)
        for m in range(len(views))
    ]
    assert sorted(found) == sorted((x, i, bits) for x, i, bits in wanted if bits <= 4)


def test_equal_bytes_are_a_leak_whatever_there_is_to_see():
    plain = row(np.full((40, 40, 3), 90, np.uint8))
    again = row(np.full((40, 40, 3), 90, np.uint8), file="BMP")
    found = find_leaks(images(x=plain, y=again), items(a=plain), 4, PROOF)
    assert found.select("sample_id", "item", "distance", "view", "confirm").rows() == [("x", "a", 0, 0, 0.0)]
