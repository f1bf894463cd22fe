"""A whole nano build with its workdir on S3, under a mild rate of every fault: the release is that of a local build."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.faulty_store import FaultyStore, Schedule, faulty_store
from tests.world_building import QUICK, Snapshot

ROOT = Path(__file__).parents[2]
BEAT = "run.lock_beat_s=1"  # a beat is two requests


def run(store: FaultyStore, *arguments: str, command: str = "run") -> subprocess.CompletedProcess[str]:
    settings = [part for override in (*QUICK, BEAT) for part in ("--set", override)]
    here = [command, "--recipe", "nano", "--workdir", "s3://bucket/work", *settings, *arguments]
    line = [sys.executable, "-m", "pipeline.cli", *here]
    return subprocess.run(line, cwd=ROOT, env=store.environment(), capture_output=True, text=True, timeout=240)


def released(store: FaultyStore, workdir: str = "work") -> dict[str, str]:
    """Return the sha256 of every object below release/."""
    client, found = store.client(), {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=f"{workdir}/release/"):
        for entry in page["Contents"]:
            body = client.get_object(Bucket="bucket", Key=entry["Key"])["Body"].read()
            found[entry["Key"].removeprefix(f"{workdir}/")] = hashlib.sha256(body).hexdigest()
    return found


def test_a_build_on_a_faulty_s3_releases_the_same_bytes_and_settles(reference: Snapshot) -> None:
    with faulty_store(Schedule(rate=0.03, stale_s=0.5)) as store:
        done = run(store)
        assert done.returncode == 0, done.stderr
        assert released(store) == dict(reference.release)
        assert {"lost", "cut_out"} <= store.faults()
        assert len(store.faults()) >= 6
        assert not [path for operation, path in store.asked if operation == "PUT" and "commits/" in path]

        again = run(store)
        assert again.returncode == 0
        assert "nothing to do" in again.stderr


def test_a_store_that_stays_away_ends_a_command_with_one_line_and_code_3() -> None:
    with faulty_store(Schedule(rate=1.0, only=("slow_down",))) as store:
        settings = (
            "--set",
            "store.patience_s=0",
            "--set",
            "store.attempts=1",
            "--set",
            f"store.endpoint={store.endpoint}",
        )
        done = run(store, *settings, command="status")
    assert done.returncode == 3
    assert "GET workdir.json" in done.stderr
    assert "run the same command again" in done.stderr
    assert len(done.stderr.splitlines()) == 1
