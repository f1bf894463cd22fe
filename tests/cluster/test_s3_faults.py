"""The miniature build on an S3 server that fails at a few percent of requests, killed and resumed; several drivers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.recipe_files import load_recipe
from manifests.store import Store
from pipeline.build import Options, build
from tests.faulty_store import FaultyStore, Schedule, faulty_store
from tests.world_building import QUICK, Snapshot, wait_for

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
RATE = float(os.environ.get("RS5M_FAULT_RATE", "0.03"))


@pytest.fixture
def server() -> Iterator[FaultyStore]:
    with faulty_store(Schedule(rate=RATE, stale_s=1.0)) as server:
        yield server


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an undisturbed mini build on this machine releases."""
    workdir = tmp_path_factory.mktemp("mini") / "work"
    recipe = load_recipe("mini", ['run.executor="local"', "run.workers=2"])
    assert build(recipe, Store(str(workdir)), Options(), lambda _: None).exit_code == 0
    files = sorted(path for path in (workdir / "release").rglob("*") if path.is_file())
    return {path.relative_to(workdir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(server: FaultyStore, recipe: str, *arguments: str) -> subprocess.Popen[str]:
    overrides = (*(QUICK if recipe == "nano" else ()), "run.lock_beat_s=1.0")
    settings = [part for override in overrides for part in ("--set", override)]
    here = ["run", "--recipe", recipe, "--workdir", "s3://bucket/work", *settings, *arguments]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *here],
        cwd=ROOT, env=server.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], timeout_s: float) -> tuple[int, str]:
    try:
        _, said = process.communicate(timeout=timeout_s)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, said


def keys(server: FaultyStore, prefix: str) -> list[str]:
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def released(server: FaultyStore) -> dict[str, str]:
    client, found = server.client(), {}
    for key in keys(server, "work/release/"):
        body = client.get_object(Bucket="bucket", Key=key)["Body"].read()
        found[key.removeprefix("work/")] = hashlib.sha256(body).hexdigest()
    return found


@pytest.mark.timeout(1800)
def test_the_mini_build_on_a_faulty_s3_is_killed_resumed_and_releases_the_same_bytes(
    server: FaultyStore, local: dict[str, str]
) -> None:
    on_ray, begun = ("--executor", "ray", "--workers", "2"), time.monotonic()
    first = start(server, "mini", *on_ray)
    try:
        wait_for(lambda: len(keys(server, "work/commits/download.fetch")) > 1 or first.poll() is not None, 900)
    finally:
        alive = first.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
        said = ended(first, 30)[1]
        sys.stdout.write(said)
    assert alive, said
    committed = set(keys(server, "work/commits/"))
    code, said = ended(start(server, "mini", *on_ray), 900)
    assert code == 0, said
    assert released(server) == local
    assert committed <= set(keys(server, "work/commits/"))
    assert len(server.faults()) >= 8 or not RATE
    requests, faults = dict(server.requests), sum(server.injected.values())
    told = {"requests": requests, "faults": faults, "commits": len(keys(server, "work/commits/"))}
    sys.stdout.write(f"{json.dumps(told)} in {time.monotonic() - begun:.0f} s\n")


@pytest.mark.timeout(900)
def test_the_second_of_two_drivers_is_refused_and_two_slices_both_finish(
    server: FaultyStore, reference: Snapshot
) -> None:
    alone = ("--executor", "local", "--workers", "1")
    first = start(server, "nano", *alone, "--until", "filter")
    wait_for(lambda: bool(keys(server, "work/locks/run.json")) or first.poll() is not None, 120)
    code, said = ended(start(server, "nano", *alone), 300)
    assert code == 2, said
    assert "this workdir is in use by process" in said
    code, said = ended(first, 300)
    assert code == 0, said
    slices = [start(server, "nano", *alone, "--stage", "download", "--slice", f"{index}/2") for index in range(2)]
    for code, said in [ended(process, 300) for process in slices]:
        assert code == 0, said
    code, said = ended(start(server, "nano", *alone), 300)
    assert code == 0, said
    assert released(server) == dict(reference.release)
    assert keys(server, "work/locks/") == []
