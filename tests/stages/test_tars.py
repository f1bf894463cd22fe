import io
import string
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.tars import BLOCK_BYTES, TarWriter

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


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    (tmp_path / "t.tar").write_bytes(b"kept")
    with pytest.raises(FileExistsError):
        TarWriter(tmp_path / "t.tar")
    assert (tmp_path / "t.tar").read_bytes() == b"kept"


def test_a_tar_that_was_broken_off_has_no_end(tmp_path):
    def break_off():
        with TarWriter(tmp_path / "t.tar") as tar:
            tar.add("a", b"1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert (tmp_path / "t.tar").stat().st_size == 2 * BLOCK_BYTES
