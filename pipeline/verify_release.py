"""The laws of the release: tars hold what was packed, indexes say what tars hold, every survivor stands in one tar."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import pairwise

import polars as pl

from manifests.manifest import Manifest, Receipt
from manifests.schemas import LEDGER, TABLES
from manifests.store import Store
from pipeline.books import Law, committed, law
from pipeline.line import LINE, step_named
from pipeline.planner import Planner
from pipeline.table_scan import scan

SUFFIXES = ("img_name", "img_content", "caption")
"""Members of a sample, in order."""

_OWN_FILES = ("release/checksums.sha256", "release/report/")


def check_release(store: Store, planner: Planner, digests: Mapping[str, str]) -> list[Law]:
    """Check the release folder if it is complete.

    Args:
        store: The workdir.
        planner: Plans over it.
        digests: Path to the sha256 of every file that a commit points at, as read just now.
    """
    names = ("release_tars", "release_sizes", "release_checksums", "survivors_released")
    if not planner.plan(LINE[-1]).complete:
        return [Law(name, None, "not checked: the release is not complete") for name in names]
    packed, faults, held = committed(planner.plan(step_named("shard.pack"))), list[str](), list[str]()
    sizes: dict[str, int] = {}
    for manifest in packed:
        tar = next(output for output in manifest.outputs if output.name == "tar")
        keys, wrong = _read_tar(store, tar, _packed(store, manifest))
        faults += wrong
        held += keys
        sizes[tar.path] = len(keys)
    (index,) = committed(planner.plan(LINE[-1]))
    return [
        law("release_tars", faults),
        law("release_sizes", _size_faults(store, index, sizes)),
        law("release_checksums", _checksum_faults(store, digests)),
        law("survivors_released", _survivor_faults(store, planner, held)),
    ]


def _packed(store: Store, manifest: Manifest) -> dict[str, tuple[int, int, str]]:
    """Return offset, length and digest of every packed image by sample id."""
    tables = [output.path for output in manifest.outputs if output.name == "packed"]
    columns = ["sample_id", "offset", "length", "released_sha256"]
    frames = [scan(store, TABLES["packed"], path, columns=columns) for path in tables]
    return {row[0]: (row[1], row[2], row[3]) for frame in frames for row in frame.iter_rows()}


def _read_tar(store: Store, tar: Receipt, packed: Mapping[str, tuple[int, int, str]]) -> tuple[list[str], list[str]]:
    """Return the keys of a released tar, and what is wrong with it."""
    names: list[tuple[str, str]] = []
    faults: list[str] = []
    try:
        with store.open(tar.path) as file, tarfile.open(fileobj=file, mode="r:") as members:
            for member in members:
                key, _, suffix = member.name.partition(".")
                names.append((key, suffix))
                body = members.extractfile(member)
                if suffix == "img_content" and body is not None:
                    found = (member.offset_data, member.size, hashlib.sha256(body.read()).hexdigest())
                    if packed.get(key) != found:
                        faults.append(f"{tar.path}: the image of {key} is not what was packed")
    except tarfile.TarError as error:
        return [], [f"{tar.path} is no readable tar: {error}"]
    keys = list(dict.fromkeys(key for key, _ in names))
    if names != [(key, suffix) for key in keys for suffix in SUFFIXES]:
        faults.append(f"{tar.path}: a sample does not have the members {', '.join(SUFFIXES)}")
    if any(one >= other for one, other in pairwise(keys)):
        faults.append(f"{tar.path}: the samples are not in order of id")
    if set(keys) != set(packed):
        faults.append(f"{tar.path}: holds other samples than were packed")
    return keys, faults


def _size_faults(store: Store, index: Manifest, sizes: Mapping[str, int]) -> Iterator[str]:
    stated: dict[str, int] = {}
    for output in index.outputs:
        if output.name == "sizes":
            folder = output.path.rpartition("/")[0]
            stated |= {f"{folder}/{name}": rows for name, rows in json.loads(store.read(output.path)).items()}
    for path in sorted({*stated, *sizes}):
        if stated.get(path) != sizes.get(path):
            yield f"{path} holds {sizes.get(path)} samples, sizes.json says {stated.get(path)}"


def _checksum_faults(store: Store, digests: Mapping[str, str]) -> Iterator[str]:
    """Yield where ``checksums.sha256`` is not what the released files are; a file it does not list is a fault too."""
    lines = store.read("release/checksums.sha256").decode().splitlines()
    stated = {f"release/{path}": sha256 for sha256, _, path in (line.partition("  ") for line in lines)}
    there = {entry.path for entry in store.find("release") if not entry.path.startswith(_OWN_FILES)}
    for path in sorted({*stated, *(p for p in there if not p.endswith(".corrupt"))}):
        if path not in stated:
            yield f"{path} is not listed in checksums.sha256"
        elif stated[path] != digests.get(path):
            yield f"{path} is not what checksums.sha256 says"


def _survivor_faults(store: Store, planner: Planner, held: list[str]) -> Iterator[str]:
    """Yield where the survivors that shard.plan did not leave out are not, once each, the samples in the tars."""
    step = step_named("shard.plan")
    given = {(wanted.step, wanted.table) for wanted in step.rows_in}
    inputs = [file for plan in planner.plan(step).partitions for file in plan.inputs]
    paths = [file.file.path for file in inputs if (file.step, file.table) in given]
    frames = [scan(store, TABLES["survivors"], path, columns=["sample_id"]) for path in paths]
    plans = committed(planner.plan(step))
    left = [scan(store, LEDGER, manifest.ledger.path, columns=["sample_id"]) for manifest in plans]
    wanted = pl.concat(frames).join(pl.concat(left), on="sample_id", how="anti")["sample_id"].sort().to_list()
    if wanted != sorted(held):
        missing, strange = len(set(wanted) - set(held)), len(set(held) - set(wanted))
        twice = len(held) - len(set(held))
        yield f"{missing} survivors are in no tar, {strange} samples in tars are no survivors, {twice} stand twice"
