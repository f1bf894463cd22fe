"""Names and patterns to files; and that a file which changes while it is read does not go unnoticed."""

import gzip
import hashlib
import os

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.identity import file_digest
from manifests.store import Store
from stages.uris import ChangedFileError, entry_of, listed, open_unchanged, stamp_of

TEXT = b"".join(b"line %d\n" % number for number in range(50_000))


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def _digest(path) -> str:
    with path.open("rb") as file:
        return file_digest(file)


@pytest.fixture(params=["text", "gzip", "parquet"])
def file(request, tmp_path):
    path = tmp_path / "file"
    if request.param == "parquet":
        pq.write_table(pa.table({"n": list(range(1000))}), path)
    else:
        path.write_bytes(TEXT if request.param == "text" else gzip.compress(TEXT))
    return path


def _read_all(file):
    return file.read()


def _read_a_little(file):
    return file.read(10)


def _read_twice(file):
    file.read(1000)
    file.seek(0)
    return file.read()


def _read_the_end_first(file):
    file.seek(-4, 2)
    file.read()
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("read", [_read_all, _read_a_little, _read_twice, _read_the_end_first])
def test_a_file_that_stays_as_it_was_is_read_in_any_way(store, file, read):
    with open_unchanged(store, "file", _digest(file)) as opened:
        assert file.read_bytes().startswith(read(opened))
        assert opened.name


@pytest.mark.parametrize("read", [_read_all, _read_a_little, _read_twice, _read_the_end_first])
def test_a_file_that_is_another_one_than_planned_is_noticed(store, file, read):
    planned = _digest(file)
    body = bytearray(file.read_bytes())
    body[-9 if body[-4:] == b"PAR1" else len(body) // 2] ^= 1
    file.write_bytes(body)
    says = r"^file: changed while it was read, .*run again"
    with pytest.raises(ChangedFileError, match=says), open_unchanged(store, "file", planned) as opened:
        read(opened)


def test_a_file_that_changes_in_the_middle_of_reading_is_noticed(store, file):
    planned, body = _digest(file), bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1

    def meanwhile(opened):
        opened.read(4)
        with file.open("r+b") as other:  # in place: size and, of Parquet, footer stay
            other.write(body)
        os.utime(file, ns=(1, 1))
        opened.read()

    with pytest.raises(ChangedFileError), open_unchanged(store, "file", planned) as opened:
        meanwhile(opened)


def test_a_file_that_is_replaced_is_noticed(store, file, tmp_path):
    planned = _digest(file)
    (tmp_path / "new").write_bytes(b"other")

    def meanwhile(opened):
        (tmp_path / "new").replace(file)
        opened.read()

    with pytest.raises(ChangedFileError), open_unchanged(store, "file", planned) as opened:
        meanwhile(opened)


def test_what_the_reader_says_comes_first(store, file):
    with pytest.raises(ValueError, match="no such column"), open_unchanged(store, "file", "0" * 64):
        raise ValueError("no such column")


def test_bytes_read_are_hashed_once(store, tmp_path):
    (tmp_path / "file").write_bytes(TEXT)
    with open_unchanged(store, "file", hashlib.sha256(TEXT).hexdigest()) as opened:
        assert gzip.compress(opened.read(), mtime=0) == gzip.compress(TEXT, mtime=0)
        assert opened.read() == b""


def test_one_listing_tells_size_and_stamp(store, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"123")
    (tmp_path / "folder.txt").mkdir()
    one, folder = listed(store, "*.txt")
    assert (one.uri, one.bytes, one.stamp) == ("a.txt", 3, stamp_of(store, "a.txt"))
    assert (folder.uri, folder.bytes, folder.stamp) == ("folder.txt", None, "")
    assert listed(store, "a.txt") == [one]
    assert listed(store, "gone.txt") == listed(store, "gone*") == []
    (tmp_path / "a.txt").write_bytes(b"1234")
    assert listed(store, "a.txt")[0].stamp != one.stamp


def test_a_name_is_taken_as_it_is_written(store, tmp_path):
    (tmp_path / "a[1].txt").write_bytes(b"1")
    assert entry_of(store, "a[1].txt").bytes == 1
    assert entry_of(store, "a*.txt") is None


def test_another_file_system(store):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/uris-test/a.txt", TEXT)
    try:
        (found,) = listed(store, "memory://uris-test/*.txt")
        with open_unchanged(store, found.uri, hashlib.sha256(TEXT).hexdigest()) as opened:
            assert opened.read() == TEXT
        with pytest.raises(ChangedFileError), open_unchanged(store, found.uri, "0" * 64) as opened:
            opened.read()
    finally:
        memory.rm("/uris-test", recursive=True)
