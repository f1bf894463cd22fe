from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from manifests.identity import bucket, draw, file_digest, locator, sample_id, tar_stem

texts = st.lists(st.text(), max_size=4)


@given(st.text(), st.text(), texts)
def test_a_sample_id_is_32_hex_digits_and_fixed(key: str, url: str, fields: list[str]) -> None:
    one = sample_id("cc3m", key, url, fields)
    assert one == sample_id("cc3m", key, url, fields)
    assert len(one) == 32
    assert set(one) <= set("0123456789abcdef")


@given(texts, texts)
def test_fields_are_not_joined(one: list[str], other: list[str]) -> None:
    """Moving a character from one field to the next gives another id."""
    assert (sample_id("wit", None, "u", one) == sample_id("wit", None, "u", other)) == (one == other)


def test_the_id_of_format_1_does_not_move() -> None:
    assert sample_id("laion2b", None, "http://a/b.jpg", ["an aerial view"]) == "498e8941860b20081860664f7debb846"


def test_lone_surrogates_do_not_stop_it() -> None:
    assert len(sample_id("cc3m", None, "\udcff", ["\ud800"])) == 32


@given(st.text(), st.integers(1, 5000))
def test_a_bucket_is_one_of_them(key: str, buckets: int) -> None:
    assert 0 <= bucket(key, buckets) < buckets


def test_draws_are_spread_evenly() -> None:
    drawn = [draw("split", 2023, str(i)) for i in range(10_000)]
    assert all(0 <= value < 1 for value in drawn)
    assert 0.045 < sum(value < 0.05 for value in drawn) / len(drawn) < 0.055


def test_a_parquet_file_is_told_by_size_and_footer_alone() -> None:
    def parquet(values: list[int]) -> bytes:
        out = io.BytesIO()
        pq.write_table(pa.table({"a": values}), out)
        return out.getvalue()

    body = parquet(list(range(100)))
    damaged = body[:20] + bytes([body[20] ^ 1]) + body[21:]
    assert file_digest(io.BytesIO(body)) == file_digest(io.BytesIO(damaged))
    assert file_digest(io.BytesIO(body)) != file_digest(io.BytesIO(parquet(list(range(101)))))


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_any_other_file_is_told_by_all_of_it(one: bytes, other: bytes) -> None:
    assert (file_digest(io.BytesIO(one)) == file_digest(io.BytesIO(other))) == (one == other)


def test_a_tail_that_only_looks_like_parquet_is_read_whole() -> None:
    tail = (1 << 30).to_bytes(4, "little") + b"PAR1"
    assert file_digest(io.BytesIO(b"x" * 20 + tail)) != file_digest(io.BytesIO(b"y" * 20 + tail))


def test_names() -> None:
    assert locator("0123456789abcdef", 7) == "0123456789ab:7"
    assert tar_stem("pub11", "val", 3) == "pub11-val-0003"
