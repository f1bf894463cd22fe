"""Records of commits: with the cache, without it, with a damaged or a stale one, planning learns the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from manifests.commits import CommitStore
from manifests.fingerprint import Parts
from manifests.ledger import RowCounts
from manifests.manifest import CommitName, LedgerReceipt, Manifest, Receipt
from manifests.records import COUNTING
from manifests.store import Entry, Store

STEP = "download.fetch"
CACHE = f"cache/commits/{STEP}.records"
LONG_AGO_NS = 1_600_000_000_000_000_007


def manifest(number: int, *, is_open: bool = False, digest: str = "d") -> Manifest:
    parts = Parts(inputs=[("filter.pool", f"web-{number:04d}", "x")], recipe={"a": 1}, code=1)
    outputs = [
        Receipt(name=name, path=f"data/{name}{number}", sha256=digest * 64, rows_digest=digest * 32, bytes=7, rows=3)
        for name in ("fetched", "images")
    ]
    return Manifest(
        step=STEP,
        partition=f"web-{number:04d}",
        fingerprint=parts.fingerprint,
        row_fingerprint=parts.row_fingerprint(recording=True),
        parts=parts,
        open=is_open,
        outputs=outputs,
        ledger=LedgerReceipt(path=f"ledger/{number}", sha256="0" * 64, bytes=5, rows=1),
        rows={"cc3m": RowCounts.model_validate({"in": 4, "kept": 3, "failed": {"download.dns": 1}})},
        facts={"layout": {"buckets": 9, "spread": ["b", "a"]}, "padding": "x" * 2_000},
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir of 300 commits, made long ago, and the cache of what they say."""
    folder = tmp_path_factory.mktemp("made")
    store = Store(str(folder))
    commits = CommitStore(store)
    for number in range(300):
        commits.commit(manifest(number, is_open=number % 7 == 0), 0)
    for file in (folder / "commits" / STEP).iterdir():
        os.utime(file, ns=(LONG_AGO_NS, LONG_AGO_NS))
    CommitStore(store).records(CommitStore(store).step(STEP))
    assert (folder / CACHE).exists()
    return folder


@pytest.fixture
def workdir(made: Path, tmp_path: Path) -> Path:
    """The same files of the same inodes."""
    for file in made.rglob("*"):
        if file.is_file():
            target = tmp_path / file.relative_to(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, target)
    return tmp_path


class Counting(CommitStore):
    """Counts the manifests that are read."""

    reads = 0

    def _read_once(self, name: CommitName) -> Manifest:
        self.reads += 1
        return super()._read_once(name)

    def read(self, name: CommitName) -> Manifest:
        self.reads += 1
        return super().read(name)


def learnt(workdir: Path, columns: tuple[str, ...] = ()) -> tuple[dict[str, dict[str, object]], int]:
    """Return what planning learns, by commit, and how many manifests were read for it."""
    commits = Counting(Store(str(workdir)), remembers=False)
    records = commits.records(commits.step(STEP), columns)
    rows = records.table().to_pylist()
    return {row["name"]: row for row in rows}, commits.reads


def truth(workdir: Path) -> dict[str, dict[str, object]]:
    shutil.rmtree(workdir / "cache", ignore_errors=True)
    found, reads = learnt(workdir)
    assert reads == len(found)
    return found


def test_the_cache_tells_what_the_manifests_tell(workdir: Path) -> None:
    found, reads = learnt(workdir)
    assert reads == 0
    assert len(found) == 300
    few, reads = learnt(workdir, COUNTING)
    assert reads == 0
    assert all(tuple(row) == COUNTING for row in few.values())
    assert found == truth(workdir)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda _: b"not what was asked for",
    ],
)
def test_a_damaged_cache_is_not_believed(workdir: Path, damage: Callable[[bytes], bytes]) -> None:
    data = damage((workdir / CACHE).read_bytes())
    (workdir / CACHE).unlink()
    (workdir / CACHE).write_bytes(data)
    found, reads = learnt(workdir)
    assert reads == 300
    assert found == truth(workdir)


def test_the_cache_of_another_step_is_not_believed(workdir: Path) -> None:
    store = Store(str(workdir))
    store.replace("cache/commits/dedup.inspect.records", store.read(CACHE))
    (workdir / "commits" / STEP).rename(workdir / "commits" / "dedup.inspect")
    commits = Counting(store)
    commits.records(commits.step("dedup.inspect"))
    assert commits.reads == 300


def test_a_commit_made_anew_under_its_name_is_read(workdir: Path) -> None:
    """Another content of the same size."""
    store = Store(str(workdir))
    (name,) = CommitStore(store).step(STEP).passes("web-0007", manifest(7).fingerprint)
    before = store.read(name.path)
    CommitStore(store).remove(name)
    CommitStore(store).commit(manifest(7, is_open=True, digest="e"), 0)
    assert len(store.read(name.path)) == len(before)
    found, reads = learnt(workdir)
    assert reads == 1
    assert found[name.file]["rows_digest"] == ["e" * 32] * 2
    assert found == truth(workdir)


def test_what_is_as_young_as_the_cache_is_read(workdir: Path) -> None:
    """Its time could be that of another commit under the name, made in the same tick."""
    written_ns = (workdir / CACHE).stat().st_mtime_ns
    young, coarse = sorted((workdir / "commits" / STEP).iterdir())[:2]
    for file, changed_ns in ((young, written_ns - 1_001), (coarse, (written_ns // 10**9 - 1) * 10**9)):
        data = file.read_bytes()
        file.unlink()  # its inode is other tests' too
        file.write_bytes(data)
        os.utime(file, ns=(changed_ns, changed_ns))
    (workdir / CACHE).unlink()
    commits = CommitStore(Store(str(workdir)))
    commits.records(commits.step(STEP))
    os.utime(workdir / CACHE, ns=(written_ns, written_ns))
    found, reads = learnt(workdir)
    assert reads == 2
    assert found == truth(workdir)


def test_removed_and_new_commits_are_seen(workdir: Path) -> None:
    store = Store(str(workdir))
    commits = CommitStore(store)
    gone = next(commits.step(STEP).all())
    commits.remove(gone)
    new = commits.commit(manifest(999), 0)
    found, reads = learnt(workdir)
    assert reads == 1
    assert gone.file not in found
    assert new.file in found
    assert found == truth(workdir)


def test_what_the_driver_made_is_remembered_as_it_would_be_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    commits = CommitStore(store)
    records = commits.records(commits.step(STEP))
    for number in range(300):
        one = manifest(number)
        assert commits.added(records, commits.commit(one, 0), one) == number
    commits.remember(records)
    later_ns = (tmp_path / CACHE).stat().st_mtime_ns + 10**10
    os.utime(tmp_path / CACHE, ns=(later_ns, later_ns))
    found, reads = learnt(tmp_path)
    assert reads == 0
    assert found == truth(tmp_path)


class Lagging(Store):
    """Lists what was there when `lag` was set."""

    lag: list[Entry] | None = None

    def scan(self, folder: str):
        if self.lag is None or not folder.startswith("commits"):
            yield from super().scan(folder)
        else:
            yield from (entry for entry in self.lag if entry.path.startswith(folder))


def test_what_this_process_did_is_known_whatever_a_listing_says(tmp_path: Path) -> None:
    store = Lagging(str(tmp_path))
    commits = CommitStore(store)
    removed, other = commits.commit(manifest(1), 0), commits.commit(manifest(2), 0)
    store.lag = store.find("commits")
    commits.remove(removed)
    made = commits.commit(manifest(3), 0)
    assert list(commits.step(STEP).all()) == [other, made]
    again = commits.commit(manifest(1), 0)
    assert list(commits.step(STEP).all()) == [again, other, made]
    stranger = CommitStore(store)
    store.remove(other.path)
    records = stranger.records(stranger.step(STEP))
    assert records.values("name") == [again.file], "what a listing still shows and is gone is no commit"
