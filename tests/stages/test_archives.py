"""Folders and archives: the same members whatever the packing, and nothing a packer can do harms the reader."""

import gzip
import hashlib
import io
import tarfile
import tracemalloc
import zipfile

import fsspec
import pytest

from manifests.store import Store
from stages.archives import archive_digest, open_archive
from stages.members import ArchiveError, inside
from tests.stages.archive_making import KINDS, add, pack

MEMBERS = {"b/2.txt": b"two" * 900, "a.txt": b"one", "b/empty.txt": b"", "b/c/3.txt": b"3" * 512}
LARGE = 1 << 20


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def listed(store, uri):
    with open_archive(store, uri) as archive:
        return [(member.path, member.bytes) for member in archive.members()], archive.ignored


def read(store, uri, *paths, max_bytes=LARGE):
    """What reading gives, by path: the bytes, or the problem."""
    with open_archive(store, uri) as archive:
        pieces = list(archive.read_many(paths, max_bytes))
    assert sorted(piece.path for piece in pieces) == sorted(set(paths))
    return {piece.path: piece.problem or piece.body for piece in pieces}


def refusal(store, uri, *paths):
    with pytest.raises(ArchiveError) as caught:
        read(store, uri, *paths)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_hold_the_same(store, tmp_path, kind):
    uri = pack(tmp_path, "set", kind, MEMBERS)
    assert listed(store, uri) == (sorted((path, len(body)) for path, body in MEMBERS.items()), 0)
    assert read(store, uri, *MEMBERS) == MEMBERS
    assert read(store, uri, "b/2.txt", "gone.txt", "b/2.txt") == {"b/2.txt": MEMBERS["b/2.txt"], "gone.txt": "gone"}
    with open_archive(store, uri) as archive:
        assert archive.name == "set"
        assert archive.read("a.txt", 3).body == b"one"


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_over_the_bound_is_not_read_and_the_others_are(store, tmp_path, kind):
    uri = pack(tmp_path, "set", kind, MEMBERS)
    assert read(store, uri, "a.txt", "b/2.txt", max_bytes=3) == {"a.txt": b"one", "b/2.txt": "too_large"}
    with open_archive(store, uri) as archive:
        assert archive.read("b/2.txt", 3).detail == "2700"


@pytest.mark.parametrize("kind", ["folder", "tar", "tgz", "zip"])
def test_any_fsspec_file_system(store, tmp_path, kind):
    memory = fsspec.filesystem("memory")
    local = pack(tmp_path, "set", kind, MEMBERS)
    if kind == "folder":
        for path, body in MEMBERS.items():
            memory.pipe_file(f"/rs5m-archives/set/{path}", body)
    else:
        memory.pipe_file(f"/rs5m-archives/{local}", (tmp_path / local).read_bytes())
    try:
        uri = f"memory://rs5m-archives/{local}"
        assert read(store, uri, *MEMBERS) == MEMBERS
        assert archive_digest(store, uri) == archive_digest(store, local)
        assert archive_digest(store, str(tmp_path / local)) == archive_digest(store, local)
    finally:
        memory.rm("/rs5m-archives", recursive=True)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/b.jpg", "a/b.jpg"), ("./a//b.jpg", "a/b.jpg"), ("/etc/passwd", None), ("a/../b", None), ("..", None),
        ("", None), ("./", None), ("a/.hidden/b", None), ("__MACOSX/a/._b.jpg", None), ("a/\udcff.jpg", None),
        ("a\0b", None), ("a/b..c/d", "a/b..c/d"),
    ],
)  # fmt: skip
def test_names_stay_inside(name, path):
    assert inside(name) == path


@pytest.mark.parametrize("suffix", ["tar", "tgz"])
def test_links_devices_and_odd_names_in_a_tar_are_ignored_and_counted(store, tmp_path, suffix):
    with tarfile.open(tmp_path / f"set.{suffix}", "w" if suffix == "tar" else "w:gz") as tar:
        add(tar, "folder", type=tarfile.DIRTYPE)
        add(tar, "sym.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.jpg", type=tarfile.LNKTYPE, linkname="good.jpg")
        add(tar, "device", type=tarfile.CHRTYPE)
        add(tar, "fifo", type=tarfile.FIFOTYPE)
        add(tar, "/etc/absolute.jpg", b"x")
        add(tar, "../../climbs.jpg", b"x")
        add(tar, "twice.jpg", b"first")
        add(tar, "good.jpg", b"good")
        add(tar, "twice.jpg", b"later")
    paths, ignored = listed(store, f"set.{suffix}")
    assert paths == [("good.jpg", 4), ("twice.jpg", 5)]
    assert ignored == 7
    assert read(store, f"set.{suffix}", "twice.jpg", "sym.jpg") == {"twice.jpg": b"later", "sym.jpg": "gone"}


def test_links_in_a_zip_are_ignored(store, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../climbs.jpg", b"x")
        archive.writestr("folder/", b"")
        archive.writestr("good.jpg", b"good")
    assert listed(store, "set.zip") == ([("good.jpg", 4)], 2)


def test_a_zip_bomb_is_refused_by_what_it_declares(store, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", bytes(32 << 20))
        archive.writestr("good.jpg", b"good")
    assert (tmp_path / "bomb.zip").stat().st_size < 100_000
    assert read(store, "bomb.zip", "bomb.jpg", "good.jpg") == {"bomb.jpg": "too_large", "good.jpg": b"good"}


def test_a_zip_that_declares_less_than_it_holds_gives_no_more_than_declared(store, tmp_path):
    body = bytes(8 << 20)
    with zipfile.ZipFile(tmp_path / "liar.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", body)
        archive.writestr("good.jpg", b"good")
    raw = (tmp_path / "liar.zip").read_bytes()
    (tmp_path / "liar.zip").write_bytes(raw.replace(len(body).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    assert read(store, "liar.zip", "bomb.jpg", "good.jpg") == {"bomb.jpg": "damaged", "good.jpg": b"good"}


def test_a_damaged_member_of_a_zip_is_that_members_trouble(store, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("bad.jpg", b"a body that will be changed")
        archive.writestr("good.jpg", b"good")
    raw = (tmp_path / "set.zip").read_bytes()
    (tmp_path / "set.zip").write_bytes(raw.replace(b"that will be", b"that was it "))
    assert read(store, "set.zip", "bad.jpg", "good.jpg") == {"bad.jpg": "damaged", "good.jpg": b"good"}


def test_an_encrypted_member_cannot_be_read(store, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("locked.jpg", b"body")
    raw = bytearray((tmp_path / "set.zip").read_bytes())
    for mark, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + flag] |= 1
    (tmp_path / "set.zip").write_bytes(raw)
    with open_archive(store, "set.zip") as archive:
        piece = archive.read("locked.jpg", LARGE)
    assert (piece.problem, "encrypted" in piece.detail) == ("damaged", True)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_tar_that_is_cut_short_is_an_error(store, tmp_path, suffix):
    members = {f"{n}.bin": hashlib.sha512(bytes([n])).digest() * 40 for n in range(20)}
    raw = (tmp_path / pack(tmp_path, "set", suffix, members)).read_bytes()
    for share in (0.3, 0.7):
        (tmp_path / f"set.{suffix}").write_bytes(raw[: int(len(raw) * share)])
        assert "fetch it again" in refusal(store, f"set.{suffix}", "0.bin")
    (tmp_path / f"set.{suffix}").write_bytes(b"")
    assert "fetch it again" in refusal(store, f"set.{suffix}", "0.bin")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_damaged_header_in_the_middle_is_no_early_end(store, tmp_path, suffix):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(3):
            add(tar, f"{number}.bin", b"x" * 100)
    raw = bytearray(out.getvalue())
    raw[1024:1034] = b"\xff" * 10
    packed = gzip.compress(raw) if suffix == "tar.gz" else bytes(raw)
    (tmp_path / f"set.{suffix}").write_bytes(packed)
    assert "damaged" in refusal(store, f"set.{suffix}", "0.bin")


@pytest.mark.parametrize("size", ["-512", "-1024", str(1 << 62)])
def test_a_tar_whose_sizes_lead_astray(store, tmp_path, size):
    with tarfile.open(tmp_path / "set.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "good.bin", b"x")
        add(tar, "bad.bin", b"x" * 600, pax_headers={"size": size})
        add(tar, "last.bin", b"x")
    assert "fetch it again" in refusal(store, "set.tar", "good.bin")


def test_a_packed_header_of_gigabytes_is_refused(store, tmp_path):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 4 << 30
    (tmp_path / "set.tgz").write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))
    assert "header of" in refusal(store, "set.tgz", "x")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gone", "is not there; name a folder, or an archive"), ("gone.tar", "is not there"),
        ("set.tar.zst", "unpack it first"), ("set.7z", "unpack it first"), ("set.tar.bz2", "unpack it first"),
        ("text.zip", "no zip that can be read"), ("text.tar", "no tar that can be read"),
        ("text.tgz", "no tar that can be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_says_what_to_do(store, tmp_path, name, says):
    for there in ("set.tar.zst", "set.7z", "set.tar.bz2", "text.zip", "text.tar", "text.tgz"):
        (tmp_path / there).write_bytes(b"no archive at all, but a text of some length " * 30)
    assert says in refusal(store, name, "a.txt")


def test_what_happens_to_a_folder_while_it_is_read(store, tmp_path):
    pack(tmp_path, "set", "folder", MEMBERS)
    with open_archive(store, "set") as archive:
        archive.members()
        (tmp_path / "set/a.txt").write_bytes(b"longer than before")
        (tmp_path / "set/b/2.txt").unlink()
        problems = {piece.path: piece.problem for piece in archive.read_many(MEMBERS, LARGE)}
    assert problems == {"a.txt": "damaged", "b/2.txt": "gone", "b/empty.txt": "", "b/c/3.txt": ""}


def test_the_digest_of_a_folder_is_of_names_and_sizes(store, tmp_path):
    for name in ("one", "two"):
        pack(tmp_path, name, "folder", MEMBERS)
    before = archive_digest(store, "one")
    assert archive_digest(store, "two") == before
    (tmp_path / "two/.hidden").write_bytes(b"x")
    assert archive_digest(store, "two") == before
    (tmp_path / "two/a.txt").write_bytes(b"longer")
    assert archive_digest(store, "two") != before
    (tmp_path / "one/a.txt").rename(tmp_path / "one/z.txt")
    assert archive_digest(store, "one") != before


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_zipfile_would_unpack_whole_is_refused_whatever_size_it_declares(store, tmp_path, method):
    body = bytes((64 << 20) + 77)
    with zipfile.ZipFile(tmp_path / "liar.zip", "w") as archive:
        archive.writestr("bomb.jpg", body, compress_type=method)
        archive.writestr("good.jpg", b"good", compress_type=zipfile.ZIP_DEFLATED)
    raw = (tmp_path / "liar.zip").read_bytes()
    assert len(raw) < 100_000
    (tmp_path / "liar.zip").write_bytes(raw.replace(len(body).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    assert listed(store, "liar.zip") == ([("bomb.jpg", 1000), ("good.jpg", 4)], 0)
    tracemalloc.start()
    with open_archive(store, "liar.zip") as archive:
        bomb, good = archive.read_many(["bomb.jpg", "good.jpg"], LARGE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (bomb.problem, f"zip method {method}" in bomb.detail, good.body) == ("damaged", True, b"good")
    assert peak < 8 << 20
