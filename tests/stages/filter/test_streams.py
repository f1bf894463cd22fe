import bz2
import gzip
import io
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.filter.rows import MetadataError
from stages.filter.streams import MAX_LINE_BYTES, ahead, blocks, name_of, text_lines, unpacked

PACKERS = {"plain": lambda data: data, "gzip": gzip.compress, "bzip2": bz2.compress}
PACKED = {name: pack for name, pack in PACKERS.items() if name != "plain"}


class Dribble(io.BytesIO):
    """A file that gives fewer bytes than asked for, as network files do."""

    def read(self, size=-1):
        return super().read(min(size, 3) if size > 3 else size)


def unpack(data, size=1 << 20, file=io.BytesIO):
    stream = unpacked(file(data), "the file")
    parts = []
    while part := stream.read(size):
        assert len(part) <= size
        parts.append(part)
    assert stream.read(size) == b""
    return b"".join(parts)


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
@given(st.lists(st.binary(max_size=40).map(lambda text: b"a" + text), min_size=1, max_size=4), st.integers(1, 50),
       st.integers(0, 3), st.sampled_from([io.BytesIO, Dribble]))  # fmt: skip
def test_what_is_packed_comes_out_whatever_the_reads(pack, texts, size, zeros, file):
    data = b"".join(map(pack, texts)) + (b"" if pack is PACKERS["plain"] else bytes(zeros))
    assert unpack(data, size, file) == b"".join(texts)


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_empty_members_and_zeros_between_members_are_nothing(pack):
    assert unpack(pack(b"") + pack(b"a") + bytes(600) + pack(b"") + pack(b"b") + bytes(100_000)) == b"ab"
    assert unpack(pack(b"")) == b""


def test_thousands_of_members_are_one_stream():
    assert unpack(gzip.compress(b"x") * 5000) == b"x" * 5000


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_a_cut_file_says_so(pack):
    packed = pack(bytes(range(256)) * 9)
    for end in range(max(14, len(packed) - 60), len(packed)):
        with pytest.raises(MetadataError, match=r"the file: .* fetch it again"):
            unpack(packed[:end])
    with pytest.raises(MetadataError, match="fetch it again"):
        unpack(packed + packed[:-3])


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_file_says_so_or_is_read(pack, data):
    text = b"aerial view\thttp://a.org\n" * 20
    packed = bytearray(pack(text))
    packed[data.draw(st.integers(12, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    found, refused = text, "the file: fetch it again"
    try:
        found = unpack(bytes(packed))
    except MetadataError as error:
        refused = str(error)
    assert found == text
    assert refused.startswith("the file: ")
    assert refused.endswith("fetch it again")


def test_bytes_that_follow_and_are_no_member_are_damage():
    with pytest.raises(MetadataError, match="damaged gzip"):
        unpack(gzip.compress(b"a") + b"garbage")


@pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
def test_a_byte_order_mark_is_left_out_once(pack):
    assert unpack(pack(b"\xef\xbb\xbf\xef\xbb\xbfa")) == b"\xef\xbb\xbfa"
    assert unpack(pack(b"\xef\xbb\xbf")) == b""


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PAR1\x15\x00", "a Parquet file"), (b"PK\x03\x04", "a zip archive; unpack it first"),
        (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\x00", "xz"), (b"7z\xbc\xaf\x27\x1c", "7z"),
        ("a\tb".encode("utf-16"), "UTF-16"), (b" \n<!DOCTYPE html><p>", "an HTML page"),
        (b"<html><title>404", "an HTML page"), (gzip.compress(b"x", mtime=0), "packed twice; unpack it once"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_named(data, says):
    with pytest.raises(MetadataError, match=rf"^the file: .*{says}"):
        unpack(gzip.compress(data))
    if not data.startswith(b"\x1f\x8b"):
        with pytest.raises(MetadataError, match=rf"^the file: is .*{says}"):
            unpack(data)


def test_text_that_begins_as_packed_files_do_is_text():
    for text in (b"BZh9 is how bzip2 files begin", b"BZh", b"\x1f\x8b", b"PAR1 is a golf shop", b"PK", b"<htm"):
        assert unpack(text) == text


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_memory_does_not_grow_with_what_is_packed(pack):
    packed = pack(bytes(64 << 20))
    tracemalloc.start()
    stream = unpacked(io.BytesIO(packed), "the file")
    assert sum(len(part) for part in iter(lambda: stream.read(1 << 20), b"")) == 64 << 20
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_it_is_a_file_to_whoever_wants_one():
    stream = unpacked(io.BytesIO(gzip.compress(b'{"a": [1]}')), "the file")
    assert stream.read(0) == b""
    assert json.load(stream) == {"a": [1]}
    text = io.TextIOWrapper(io.BufferedReader(unpacked(io.BytesIO(gzip.compress(b"a\nb")), "the file")), "utf-8")
    assert list(text) == ["a\n", "b"]


def test_the_file_stays_open():
    file = io.BytesIO(gzip.compress(b"a"))
    with unpacked(file, "the file") as stream:
        assert stream.read() == b"a"
    assert not file.closed


@given(st.lists(st.sampled_from([b"a", b"bb", b"\n", b"\r\n", b"\r"]), max_size=20).map(b"".join), st.integers(1, 9))
def test_blocks_are_whole_lines(data, block_bytes):
    found = list(blocks(unpacked(Dribble(data), "the file"), block_bytes))
    assert all(block.endswith(b"\n") for block in found)
    assert b"".join(found).removesuffix(b"\n") == data.removesuffix(b"\n")
    lines = data.split(b"\n")[: -1 if data.endswith(b"\n") else None] if data else []
    assert list(text_lines(unpacked(io.BytesIO(data), "the file"), block_bytes)) == [
        line.removesuffix(b"\r") for line in lines
    ]


@pytest.mark.parametrize("block_bytes", [1 << 16, 4 << 20])
def test_a_line_over_the_bound_is_none_and_the_next_is_read(block_bytes):
    fits = b"x" * MAX_LINE_BYTES
    data = b"\n".join([fits, fits + b"x", b"a", fits * 3, b"b", fits + b"x"])
    stream = unpacked(io.BytesIO(data), "the file")
    assert list(text_lines(stream, block_bytes)) == [fits, None, b"a", None, b"b", None]


def test_reading_ahead():
    file = Dribble(b"abcdefgh")
    assert (ahead(file, 5), ahead(file, 5), ahead(file, 5)) == (b"abcde", b"fgh", b"")


def test_names(tmp_path):
    assert name_of(io.BytesIO()) == "metadata file"
    with (tmp_path / "m.tsv").open("wb") as file:
        assert name_of(file) == str(tmp_path / "m.tsv")
