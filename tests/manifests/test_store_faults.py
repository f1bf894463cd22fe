"""A store over S3 that fails in every way it can: what is asked for is done once and whole, or an error says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.commits import CommitStore
from manifests.objects import Entry
from manifests.recipe import StoreAccess
from manifests.remote_objects import BLOCK_BYTES
from manifests.store import AlreadyThereError, Store, StoreError, StoreRefusedError
from manifests.store_options import store_options
from pipeline.workdir import open_workdir
from tests.faulty_store import FAULTS, KEYS, FaultyStore, Schedule, faulty_store

LARGE = bytes(range(251)) * (BLOCK_BYTES // 251 + 4_000)
KINDS = sorted({fault for operation, faults in FAULTS.items() for fault in faults})
IN_PARTS = ("PART", "MULTIPART")


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyStore]:
    with pytest.MonkeyPatch.context() as patch:
        import os

        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in KEYS.items():
            patch.setenv(name, value)
        with faulty_store() as server:
            yield server


@pytest.fixture
def quiet(server: FaultyStore) -> Iterator[FaultyStore]:
    """The server, with no faults yet and nothing counted."""
    server.schedule = Schedule()
    server.requests.clear()
    server.injected.clear()
    yield server
    server.schedule = Schedule()


def store_at(server: FaultyStore, path: Path, patience_s: float = 30.0, attempts: int = 1) -> Store:
    access = StoreAccess(endpoint=server.endpoint, patience_s=patience_s, attempts=attempts)
    return Store(f"s3://bucket/{path.name}", store_options("s3://bucket", access))


@pytest.mark.parametrize("fault", KINDS)
def test_whatever_requests_meet_they_are_carried_out_once(quiet: FaultyStore, tmp_path: Path, fault: str) -> None:
    store, local = store_at(quiet, tmp_path), tmp_path / "local"
    store.create("a", b"kept by all")
    spoiled = [operation for operation in FAULTS if fault in FAULTS[operation] and operation not in IN_PARTS]
    quiet.schedule = Schedule(script={operation: [fault, fault] for operation in spoiled})
    local.write_bytes(b"moved here")
    store.create("b", b"token-1")
    with pytest.raises(AlreadyThereError):
        store.create("b", b"token-2")
    store.replace("c", b"written whole")
    store.put(local, "d")
    assert store.read("a") == b"kept by all"
    assert store.read_range("a", 5, 2) == b"by"
    assert store.read_range("a", 8, 100) == b"all"
    assert store.read_range("a", 11, 5) == b""
    assert store.size("d") == 10
    assert store.size("none") is None
    store.rename("d", "e")
    store.remove("c")
    listed = store.find("")
    if fault == "stale":
        assert set(listed) <= {Entry("a", 11), Entry("b", 7), Entry("e", 10)}
        quiet.schedule = Schedule()
    assert store.find("") == [Entry("a", 11), Entry("b", 7), Entry("e", 10)]
    assert store.read("b") == b"token-1"
    with store.open("e") as file:
        assert file.read() == b"moved here"
    assert dict(quiet.injected) == {(operation, fault): quiet.injected[operation, fault] for operation in spoiled}


def test_a_large_object_is_read_in_ranges_whatever_breaks_off(quiet: FaultyStore, tmp_path: Path) -> None:
    store, local = store_at(quiet, tmp_path), tmp_path / "large"
    local.write_bytes(LARGE)
    store.put(local, "large")
    quiet.schedule = Schedule(script={"GET": ["short", "cut_out", "lost", "cut_out", "short"]})
    assert store.read("large") == LARGE
    with store.open("large") as file:
        file.seek(-100, 2)
        assert file.read() == LARGE[-100:]
        file.seek(BLOCK_BYTES - 10)
        assert file.read(20) == LARGE[BLOCK_BYTES - 10 : BLOCK_BYTES + 10]
    assert quiet.faults() == {"short", "cut_out", "lost"}


def test_an_upload_in_parts_shows_nothing_before_it_is_whole(
    quiet: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs.core

    monkeypatch.setattr(s3fs.core, "calculate_chunksize", lambda *_, **__: 5 << 20)
    store, local = store_at(quiet, tmp_path), tmp_path / "large"
    local.write_bytes(LARGE * 2)
    quiet.schedule = Schedule(script={"PART": ["cut_in", "error", "lost"], "MULTIPART": ["slow_down", "lost", "error"]})
    store.put(local, "large")
    assert store.size("large") == 2 * len(LARGE)
    assert store.read("large") == LARGE * 2
    assert sum(quiet.injected[operation, fault] for operation, fault in quiet.injected if operation == "PART") == 3
    quiet.schedule = Schedule(rate=1.0, operations=("PART",), only=("error",))
    with pytest.raises(StoreError):
        store_at(quiet, tmp_path, patience_s=0, attempts=1).put(local, "never")
    quiet.schedule = Schedule()
    assert store.size("never") is None
    assert not [
        u for u in quiet.client().list_multipart_uploads(Bucket="bucket").get("Uploads", []) if "never" in u["Key"]
    ]


def test_a_store_that_stays_away_is_given_up_with_words(quiet: FaultyStore, tmp_path: Path) -> None:
    store = store_at(quiet, tmp_path, patience_s=0.5, attempts=1)
    quiet.schedule = Schedule(rate=1.0, only=("slow_down",))
    with pytest.raises(
        StoreError, match=rf"s3://bucket/{tmp_path.name}: PUT data/x failed \d+ times.*run the same command"
    ):
        store.replace("data/x", b"x")
    assert not issubclass(StoreError, OSError)


def test_what_would_be_met_again_is_not_asked_again(quiet: FaultyStore, tmp_path: Path) -> None:
    access = StoreAccess(endpoint=quiet.endpoint)
    store = Store("s3://no-such-bucket/work", store_options("s3://no-such-bucket", access))
    with pytest.raises(StoreRefusedError, match="check that the bucket exists"):
        store.read("workdir.json")
    assert quiet.requests["GET"] == 1


def test_many_small_reads_under_faults_are_all_right(quiet: FaultyStore, tmp_path: Path) -> None:
    from tests.manifests.test_store import manifest

    store = store_at(quiet, tmp_path)
    commits = CommitStore(store)
    names = [commits.commit(manifest(f"web-{number:04d}"), 0) for number in range(40)]
    quiet.schedule = Schedule(rate=0.15)
    read = CommitStore(store).read_all(names)
    assert [m.partition for m in read] == [name.partition for name in names]
    assert sum(quiet.injected.values()) >= 3


def test_small_files_are_stored_by_one_request_and_absent_ones_cost_one(quiet: FaultyStore, tmp_path: Path) -> None:
    store, local = store_at(quiet, tmp_path), tmp_path / "local"
    local.write_bytes(b"table")
    store.put_once(local, "data/x", 5)
    store.read("data/x")
    assert store.size("data/none") is None
    assert store.find("commits/none") == []
    assert dict(quiet.requests) == {"PUT": 1, "GET": 1, "HEAD": 1, "LIST": 1}


def test_a_store_in_memory_goes_the_same_way(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}", {"patience_s": 1.0})
    store.create("a", b"one")
    store.create("a", b"one")
    with pytest.raises(AlreadyThereError):
        store.create("a", b"two")
    store.replace("b/c", b"0123456789")
    assert store.read_range("b/c", 8, 10) == b"89"
    assert store.read_range("b/c", 20, 10) == b""
    assert store.find("") == [Entry("a", 3), Entry("b/c", 10)]
    store.rename("b/c", "b/d")
    store.remove("a")
    store.remove("a")
    assert store.find("") == [Entry("b/d", 10)]
    with store.open("b/d") as file:
        assert file.read() == b"0123456789"
    with pytest.raises(FileNotFoundError):
        store.read("a")


def test_a_store_without_exclusive_create_is_no_workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def pipe_file(self: object, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    with pytest.raises(StoreRefusedError, match="no exclusive create"):
        Store(f"memory://{tmp_path.name}").create("workdir.json", b"{}")


def test_a_store_that_takes_the_condition_for_decoration_is_found_out(tmp_path: Path) -> None:
    class Heedless(Store):
        def create(self, path: str, data: bytes) -> None:
            self.replace(path, data)

    place = f"memory://{tmp_path.name}"
    with pytest.raises(StoreRefusedError, match="overwrites an object that was to be created"):
        open_workdir(Heedless(place), "nano", create=True)
    assert Store(place).find("") == []
    open_workdir(Store(place), "nano", create=True)
    assert [entry.path for entry in Store(place).find("")] == ["workdir.json"]
