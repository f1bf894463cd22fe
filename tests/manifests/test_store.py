"""The store and the commits over it, on a file system and on S3 (moto's server on loopback)."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from manifests.commits import CommitStore, CorruptCommitError
from manifests.fingerprint import Parts
from manifests.manifest import LedgerReceipt, Manifest
from manifests.store import AlreadyThereError, Entry, Store


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The endpoint of an S3 server with one bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bucket")
        yield endpoint
    server.stop()


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(str(tmp_path / "work"))
    endpoint = request.getfixturevalue("s3")
    return Store(f"s3://bucket/{tmp_path.name}", {"endpoint_url": endpoint, "skip_instance_cache": True})


def test_creation_is_exclusive(store: Store) -> None:
    store.create("commits/a/x.json", b"one")
    with pytest.raises(AlreadyThereError):
        store.create("commits/a/x.json", b"two")
    assert store.read("commits/a/x.json") == b"one"


def test_of_many_creators_one_wins(store: Store) -> None:
    def create(number: int) -> bool:
        try:
            store.create("locks/run.json", str(number).encode())
        except AlreadyThereError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(16)))
    assert won.count(True) == 1
    assert store.read("locks/run.json") == str(won.index(True)).encode()


def test_objects_are_replaced_listed_read_in_ranges_renamed_and_removed(store: Store, tmp_path: Path) -> None:
    store.replace("data/a", b"0123456789")
    store.replace("data/a", b"abcdefghij")
    (tmp_path / "local").write_bytes(b"file")
    store.put(tmp_path / "local", "data/b/c")
    assert store.find("data") == [Entry("data/a", 10), Entry("data/b/c", 4)]
    assert store.read_range("data/a", 3, 4) == b"defg"
    assert store.read_range("data/a", 8, 10) == b"ij"
    assert store.size("data/b/c") == 4
    assert store.size("data/none") is None
    store.rename("data/a", "data/a.corrupt")
    store.remove("data/b/c")
    store.remove("data/b/c")
    assert store.find("data") == [Entry("data/a.corrupt", 10)]
    assert store.find("nothing") == []
    with store.open("data/a.corrupt") as file:
        assert file.read() == b"abcdefghij"
    with pytest.raises(FileNotFoundError):
        store.read("data/none")


def test_a_file_that_is_moved_is_not_copied(tmp_path: Path) -> None:
    store, local = Store(str(tmp_path / "work")), tmp_path / "local"
    local.write_bytes(b"new")
    store.replace("data/a", b"old")
    inode = local.stat().st_ino
    store.move(local, "data/a")
    assert store.read("data/a") == b"new"
    assert (tmp_path / "work/data/a").stat().st_ino == inode
    assert not local.exists()
    assert [path.name for path in (tmp_path / "work/data").iterdir()] == ["a"]
    local.write_bytes(b"new")
    store.put(local, "data/b")
    local.write_bytes(b"newer")
    assert store.read("data/b") == b"new"


def test_a_file_gets_the_group_that_its_folder_gives(tmp_path: Path) -> None:
    folder, other = tmp_path / "work/data", os.getgid() + 1
    folder.mkdir(parents=True)
    try:
        os.chown(folder, -1, other)
    except PermissionError:
        pytest.skip("only root can give a folder away to another group")
    folder.chmod(0o2775)
    (tmp_path / "local").write_bytes(b"new")
    Store(str(tmp_path / "work")).move(tmp_path / "local", "data/a")
    assert (folder / "a").stat().st_gid == other


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="a second file system is needed: /dev/shm")
def test_a_file_of_another_file_system_is_copied(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        local = Path(folder, "local")
        local.write_bytes(b"new")
        store = Store(str(tmp_path))
        store.move(local, "data/a")
        assert not local.exists()
    assert store.read("data/a") == b"new"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a"]


def test_an_interrupted_writer_leaves_only_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("manifests.local_objects.os.fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            store.replace("data/a", b"half")
    assert store.find("") == []
    (tmp_path / "data" / ".tmp-0123").write_bytes(b"left by a kill")
    assert store.find("") == []
    assert [entry.path for entry in store.temporaries("")] == ["data/.tmp-0123"]


def test_a_link_or_a_rename_whose_answer_was_lost_is_believed_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where a request that is sent again meets what the first made."""
    link, rename, lost = os.link, Path.replace, []

    def lying_link(source: Path, target: str) -> None:
        link(source, target)
        lost.append(target)
        raise FileExistsError(errno.EEXIST, "File exists", str(target))

    def lying_rename(self: Path, target: Path) -> None:
        rename(self, target)
        lost.append(target)
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(self))

    store = Store(str(tmp_path))
    store.create("locks/theirs", b"theirs")
    with monkeypatch.context() as patch:
        patch.setattr("manifests.local_objects.os.link", lying_link)
        patch.setattr(Path, "replace", lying_rename)
        store.create("locks/ours", b"ours")
        store.replace("data/a", b"whole")
        store.rename("data/a", "data/b")
    assert len(lost) == 3
    with pytest.raises(AlreadyThereError):
        store.create("locks/theirs", b"ours")
    assert store.read("locks/theirs") == b"theirs"
    assert [entry.path for entry in store.find("")] == ["data/b", "locks/ours", "locks/theirs"]
    assert store.temporaries("") == []


def test_a_handle_that_went_stale_is_opened_anew_and_removed_files_still_open_elsewhere_are_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, tries = Store(str(tmp_path)), []
    store.replace("data/a", b"replaced meanwhile")
    (tmp_path / "data/.nfs00000000001").write_bytes(b"removed, and open on another machine")
    read = Path.read_bytes

    def stale(self: Path) -> bytes:
        tries.append(self)
        if len(tries) < 3:
            raise OSError(errno.ESTALE, "Stale file handle", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", stale)
    assert store.read("data/a") == b"replaced meanwhile"
    assert len(tries) == 3
    assert [entry.path for entry in store.find("")] == ["data/a"]
    assert store.temporaries("") == []


def manifest(partition: str = "web-0001") -> Manifest:
    parts = Parts(inputs=[], recipe={"a": 1}, code=1)
    return Manifest(
        step="dedup.inspect",
        partition=partition,
        fingerprint=parts.fingerprint,
        row_fingerprint=parts.row_fingerprint(recording=False),
        parts=parts,
        open=False,
        outputs=[],
        ledger=LedgerReceipt(path="ledger/x", sha256="0", bytes=0, rows=0),
        rows={},
        facts={},
    )


def test_a_commit_comes_back_from_one_listing(store: Store) -> None:
    commits = CommitStore(store)
    first = commits.commit(manifest(), 0)
    second = commits.commit(manifest().model_copy(update={"open": True}), 1)
    listed = CommitStore(store).step("dedup.inspect")
    assert listed.passes("web-0001", manifest().fingerprint) == [first, second]
    assert CommitStore(store).read(second).open
    assert CommitStore(store).steps() == ["dedup.inspect"]


def test_a_commit_is_never_overwritten(store: Store) -> None:
    commits = CommitStore(store)
    name = commits.commit(manifest(), 0)
    commits.commit(manifest(), 0)  # a request that is retried finds its own bytes
    with pytest.raises(AlreadyThereError):
        commits.commit(manifest().model_copy(update={"open": True}), 0)
    assert not CommitStore(store).read(name).open


def test_a_manifest_is_sorted_utf8_json_with_a_newline() -> None:
    body = manifest().to_bytes()
    assert body.endswith(b"}\n")
    assert body.startswith(b'{"facts":{},"fingerprint":')
    assert b'"format":1' in body


def test_a_commit_that_is_no_manifest_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    name = CommitStore(store).commit(manifest(), 0)
    store.replace(name.path, b"{}")
    with pytest.raises(CorruptCommitError, match=r"web-0001@.*remove the file and run again"):
        CommitStore(store).read(name)


def test_folders_are_those_directly_below_sorted_and_nothing_else(store: Store) -> None:
    assert store.folders("runs") == []
    for path in ("runs/b/live/x/1.json", "runs/a/now.json", "runs/file.json", "other/c/x"):
        store.replace(path, b"x")
    assert store.folders("runs") == ["a", "b"]
    store.replace("runs/c/now.json", b"x")
    assert store.folders("runs") == ["a", "b", "c"], "a list is not remembered"
