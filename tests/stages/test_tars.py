import array
import hashlib
import io
import mmap
import os
import string
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.tars import BLOCK_BYTES, MAX_MEMBER_BYTES, TarWriter

NAMES = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=100)
MEMBERS = st.dictionaries(NAMES, st.binary(max_size=1500), max_size=8)


def written(members):
    """A tar of the members, and the offsets that were returned."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.tar")
        with TarWriter(path) as tar:
            offsets = [tar.add(name, body) for name, body in members.items()]
        assert tar.members == len(members)
        return path.read_bytes(), offsets


@given(MEMBERS)
def test_any_members_come_back_in_order(members):
    raw, offsets = written(members)
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
        infos = tar.getmembers()
        assert {info.name: tar.extractfile(info).read() for info in infos} == members
    assert [info.name for info in infos] == list(members)
    assert [info.offset_data for info in infos] == offsets
    assert [raw[start : start + len(body)] for start, body in zip(offsets, members.values(), strict=True)] == list(
        members.values()
    )
    assert len(raw) % BLOCK_BYTES == 0


def reference(members):
    """The tar as the standard library writes it, member by member."""
    raw = b""
    for name, body in members:
        header = tarfile.TarInfo(name)
        header.size = len(body)
        raw += header.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict") + body + bytes(-len(body) % BLOCK_BYTES)
    return raw + bytes(2 * BLOCK_BYTES)


ASCII = st.text(st.characters(max_codepoint=127), max_size=100)
BODIES = st.one_of(
    st.binary(max_size=1500),
    st.integers(0, 3 << 20).map(lambda size: b"x" * size),  # past the buffer, too
    st.sampled_from([0, 1, 511, 512, 513, (1 << 20) - 512, 1 << 20]).map(bytes),
)


@settings(deadline=None)
@given(st.lists(st.tuples(ASCII, BODIES), max_size=6))
def test_the_bytes_are_those_of_tarfile(members):
    with tempfile.TemporaryDirectory() as folder:
        with TarWriter(Path(folder, "t.tar")) as tar:
            for name, body in members:
                tar.add(name, body)
        assert Path(folder, "t.tar").read_bytes() == reference(members)


@settings(deadline=None)
@given(st.lists(st.tuples(ASCII, BODIES), max_size=6))
def test_the_digest_is_that_of_the_file(members):
    with tempfile.TemporaryDirectory() as folder:
        with TarWriter(Path(folder, "t.tar"), hashed=True) as tar:
            for name, body in members:
                tar.add(name, body)
        raw = Path(folder, "t.tar").read_bytes()
    assert raw == reference(members)
    assert tar.sha256 == hashlib.sha256(raw).hexdigest()


def test_a_digest_that_was_not_asked_for_is_refused(tmp_path):
    with TarWriter(tmp_path / "t.tar") as tar, pytest.raises(ValueError, match="not hashed"):
        _ = tar.sha256


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size_bytes", [0, 3, 2 << 20])
def test_a_body_may_change_once_it_was_added(tmp_path, kind, size_bytes):
    under = bytearray(b"a" * size_bytes)
    body = under if kind is bytearray else kind(under)
    with TarWriter(tmp_path / "t.tar") as tar:
        tar.add("a", body)
        under[:] = b"b" * size_bytes
        tar.add("b", body)
    later = (b"a" if kind is bytes else b"b") * size_bytes
    assert (tmp_path / "t.tar").read_bytes() == reference([("a", b"a" * size_bytes), ("b", later)])


def test_a_view_of_wide_items_counts_in_bytes(tmp_path):
    wide = array.array("I", range(300))
    with TarWriter(tmp_path / "t.tar") as tar:
        tar.add("a", memoryview(wide))
        with pytest.raises(ValueError, match="side by side"):
            tar.add("b", memoryview(bytes(9))[::2])
    assert (tmp_path / "t.tar").read_bytes() == reference([("a", wide.tobytes())])


def test_a_body_over_what_the_header_can_say_is_refused(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        os.truncate(file.fileno(), MAX_MEMBER_BYTES + 1)
    with (tmp_path / "sparse").open("rb") as file, TarWriter(tmp_path / "t.tar") as tar:
        too_long = pytest.raises(ValueError, match=r"'big\.jpg': 8589934592 bytes.*at most 8589934591")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with mapped, memoryview(mapped) as body, too_long:
            tar.add("big.jpg", body)
        assert tar.add("small.jpg", b"1") == BLOCK_BYTES
    assert (tmp_path / "t.tar").read_bytes() == reference([("small.jpg", b"1")])


@given(MEMBERS)
def test_same_members_same_bytes(members):
    assert written(members) == written(dict(members))


def test_headers_tell_nothing_of_machine_or_clock():
    raw, _ = written({"a": b"1", "b": b""})
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        assert {(m.mode, m.uid, m.gid, m.mtime, m.uname, m.gname, m.type) for m in tar} == {
            (0o644, 0, 0, 0, "", "", tarfile.REGTYPE)
        }


def test_a_tar_without_members_is_valid():
    raw, _ = written({})
    assert raw == bytes(2 * BLOCK_BYTES)
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
        assert tar.getmembers() == []


@pytest.mark.parametrize("name", ["x" * 101, "\u00e9"])
def test_a_name_that_does_not_fit_is_refused(tmp_path, name):
    with TarWriter(tmp_path / "t.tar") as tar, pytest.raises(ValueError):
        tar.add(name, b"")
    assert (tmp_path / "t.tar").read_bytes() == bytes(2 * BLOCK_BYTES)


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    (tmp_path / "t.tar").write_bytes(b"kept")
    with pytest.raises(FileExistsError):
        TarWriter(tmp_path / "t.tar")
    assert (tmp_path / "t.tar").read_bytes() == b"kept"


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize("size_bytes", [1, 3 << 20])
def test_a_tar_that_was_broken_off_has_no_end(tmp_path, hashed, size_bytes):
    def break_off():
        with TarWriter(tmp_path / "t.tar", hashed=hashed) as tar:
            tar.add("a", b"1" * size_bytes)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert not (tmp_path / "t.tar").read_bytes().endswith(bytes(2 * BLOCK_BYTES))
