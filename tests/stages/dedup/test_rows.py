import hashlib

import numpy as np
import polars as pl
import pytest

from stages.dedup.rows import Rows
from tests.stages.dedup.scenes import stranger


def table(*ids, **changed):
    row = {"source": "wit", "url": "", "sha256": "", "phash": 1, "thumbnail": stranger(1), "texture": 9.0} | changed
    schema = {"phash": pl.UInt64, "thumbnail": pl.Array(pl.UInt8, 256), "texture": pl.Float32}
    return pl.DataFrame([{"sample_id": key, **row} for key in ids], schema_overrides=schema)


def test_ids_are_kept_and_sort_as_their_texts():
    ids = [hashlib.md5(str(n).encode()).hexdigest() for n in range(50)]
    rows = Rows.of(table(*ids), [])
    assert rows.names(np.array([3, 0])) == [ids[3], ids[0]]
    order = np.lexsort((rows.ids[:, 1], rows.ids[:, 0]))
    assert rows.names(order) == sorted(ids)


def test_equal_urls_and_bytes_have_equal_keys_and_empty_ones_none():
    key = "0" * 32
    one, other = (Rows.of(table(key, url=url, sha256="ab" * 32), []) for url in ("http://A.org/x#y", "https://a.org/x"))
    assert (one.urls == other.urls).all()
    assert (one.bodies == other.bodies).all()
    assert one.urls.any()
    none = Rows.of(table(key), [])
    assert not none.urls.any()
    assert not none.bodies.any()
    assert (Rows.of(table(key, url="http://a.org/z"), []).urls != one.urls).any()


def test_parts_are_joined_in_order():
    ids = [f"{n:032x}" for n in range(4)]
    whole, parts = (
        Rows.of(table(*ids), []),
        [Rows.of(table(*ids[:3]), []), Rows.of(table(ids[0]).clear(), []), Rows.of(table(ids[3]), [])],
    )
    joined = Rows.joined(parts)
    assert joined.names(np.arange(4)) == ids
    assert (joined.levels == whole.levels).all()
    assert len(Rows.joined([])) == 0


@pytest.mark.parametrize(("change", "words"), [({"sample_id": "a"}, "32 hex"), ({"sha256": "ab"}, "sha256")])
def test_what_is_no_id_is_refused(change, words):
    frame = table("0" * 32).with_columns(**{name: pl.lit(value) for name, value in change.items()})
    with pytest.raises(ValueError, match=words):
        Rows.of(frame, [])
