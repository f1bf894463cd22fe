"""A damaged file is named and set aside, what pointed at it is undone, and the next run makes the same bytes again."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from manifests.store import Store
from stages.download import client
from tests.world_building import Snapshot, Workdir


def damage(path: Path, *, truncate: bool) -> None:
    """Damage a file; workdirs share files by hard links, so a new one takes its place."""
    body = bytearray(path.read_bytes())
    path.unlink()
    body[len(body) // 2] ^= 1
    path.write_bytes(bytes(body[:-1] if truncate else body))


@pytest.mark.parametrize(
    "pattern",
    [
        "data/filter.pool/all/*.parquet",
        "data/download.fetch/web-0000/images-*.tar",
        "data/dedup.inspect/*/*.parquet",
        "data/shard.plan/all/samples-*.parquet",
        "ledger/dedup.cluster/*.parquet",
        "release/train/*.tar",
        "release/metafile/samples.parquet",
    ],
)
def test_another_size_is_found_when_planning(settled: Workdir, reference: Snapshot, pattern: str) -> None:
    path = next(settled.path.glob(pattern))
    damage(path, truncate=True)
    ended = settled.run()
    assert ended.exit_code == 0
    assert ended.had_work
    named = [event["path"] for event in settled.events() if event["event"] == "file_corrupt"]
    assert str(path.relative_to(settled.path)) in named
    for corrupt in settled.path.glob("release/**/*.corrupt"):
        corrupt.unlink()
    assert settled.snapshot().release == reference.release
    assert settled.snapshot().ledgers == reference.ledgers


def test_a_released_file_that_is_gone_is_made_again(settled: Workdir, reference: Snapshot) -> None:
    next(settled.path.glob("release/val/*.tar")).unlink()
    assert settled.run().exit_code == 0
    assert settled.snapshot().release == reference.release


def test_images_that_were_fetched_anew_are_found_where_they_lie_now(
    settled: Workdir, reference: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies lie in the order they came, so the same ones may lie elsewhere next time."""
    tars = list(settled.path.glob("data/download.fetch/web-*/images-*.tar"))
    for path in (*tars, *settled.path.glob("release/*/pub11-*.tar")):
        path.unlink()
    monkeypatch.setattr(client, "_in_turn", lambda urls: sorted(urls, reverse=True))
    ended = settled.run("download.network.connections=1")
    assert ended.exit_code == 0
    assert {path.name for path in tars} != {path.name for path in settled.path.glob("data/download.fetch/web-*/*.tar")}
    assert settled.snapshot().release == reference.release
    assert settled.snapshot().outputs == reference.outputs


def test_an_image_is_checked_by_its_digest_whenever_it_is_read(settled: Workdir, reference: Snapshot) -> None:
    """Damage of equal size is found when the next step reads the image; the run after that is whole again."""
    tar = next(settled.path.glob("data/download.fetch/web-0000/images-*.tar"))
    damage(tar, truncate=False)
    for commit in settled.path.glob("commits/dedup.inspect/web-0000@*.json"):
        commit.unlink()
    first = settled.run()
    assert first.exit_code == 3
    assert "are not" in str(first.summary.failed)
    assert tar.with_name(tar.name + ".corrupt").exists()
    assert settled.run().exit_code == 0
    assert settled.snapshot().release == reference.release
    assert settled.snapshot().ledgers == reference.ledgers


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EMFILE, "too many open files"), FileNotFoundError(errno.ENOENT, "not mounted")],
    ids=["unreadable", "not there"],
)
def test_a_file_that_one_worker_could_not_read_is_no_corrupted_file(
    settled: Workdir, reference: Snapshot, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """The driver looks itself before a recording is undone: what one machine cannot reach is not damaged."""
    met = []
    opened = Store.open

    def once(store: Store, path: str):
        if "download.fetch/web-0001/fetched" in path and not met:
            met.append(path)
            raise error
        return opened(store, path)

    monkeypatch.setattr(Store, "open", once)
    recordings = sorted((settled.path / "commits/download.fetch").iterdir())
    assert settled.run("dedup.hash=fast").exit_code == 0
    assert met
    events = settled.events()
    assert not [event for event in events if event["event"] == "file_corrupt"]
    assert [e["kind"] for e in events if e["event"] == "partition_retried"] == ["error"]
    assert sorted((settled.path / "commits/download.fetch").iterdir()) == recordings
    assert settled.run().exit_code == 0
    assert settled.snapshot().release == reference.release
