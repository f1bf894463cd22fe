import hashlib

import numpy as np
import polars as pl
import pytest

import pipeline.page.near_survivors
from manifests.fingerprint import Parts
from manifests.manifest import LedgerReceipt, Manifest, Receipt
from manifests.schemas import TABLES
from manifests.store import Store
from manifests.tables import empty_frame, write_table
from pipeline.page.near_survivors import near_survivors
from stages.dedup.second_proof import CALM, CORRELATION_PER_BIT, NOTHING_TO_SEE

SETTINGS = {
    "dedup.radius": 4,
    "dedup.confirm": "thumbnail",
    "dedup.confirm_noise": 0.8,
    "dedup.confirm_correlation": 0.86,
    "dedup.subsets": ["pub11"],
}


def stored(folder, rows, settings=SETTINGS):
    """Write tables of two partitions and their commits: (dedup.cluster, [dedup.inspect ..])."""
    inspected, survivors = [], []
    for partition in ("web-0000", "web-0001"):
        mine = rows.filter(pl.col("partition") == partition)
        blank = {"sha256": "", "width": 1, "height": 1, "mode": "L", "frames": 1, "exif_orientation": 0,
                 "exif_lon": None, "exif_lat": None, "hash_kind": "exact", "phash_d4": None}  # fmt: skip
        table = mine.with_columns(pl.lit(value).alias(name) for name, value in blank.items())
        table = table.select(TABLES["inspected"].schema.names).cast(dict(empty_frame(TABLES["inspected"]).schema))
        inspected.append(
            _commit("dedup.inspect", partition, [_receipt(folder, "inspected", table, partition, None)], {})
        )
        stayed = mine.filter("stays").select("sample_id", "source", split_group="sample_id")
        survivors.append(_receipt(folder, "survivors", stayed, partition, partition))
    return _commit("dedup.cluster", "all", survivors, settings), inspected


def _receipt(folder, name, frame, partition, output_partition):
    path = f"{name}-{partition}.parquet"
    written = write_table(TABLES[name], frame, folder / path)
    return Receipt(name=name, partition=output_partition, path=path, sha256=written.sha256,
                   rows_digest=written.rows_digest, bytes=written.bytes, rows=written.rows)  # fmt: skip


def _commit(step, partition, outputs, settings):
    parts = Parts(inputs=[], recipe=settings, code=1, models={}, pins={}, profile={})
    ledger = LedgerReceipt(path="none", sha256="0" * 64, bytes=0, rows=0)
    return Manifest(step=step, partition=partition, fingerprint="0" * 32, row_fingerprint="0" * 32, parts=parts,
                    open=False, outputs=outputs, ledger=ledger, rows={}, facts={})  # fmt: skip


def some_rows(count, seed, bits=10):
    """Rows whose hashes differ in a few bits alone, so that many are near each other."""
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "sample_id": [hashlib.blake2b(f"{seed}{n}".encode(), digest_size=16).hexdigest() for n in range(count)],
            "phash": (rng.integers(0, 1 << bits, count, np.uint64) << np.uint64(7)) * np.uint64(3),
            "texture": rng.choice([0.25, 1.0, 20.0], count).astype(np.float32),
            "thumbnail": rng.integers(100, 100 + rng.integers(1, 20, count)[:, None], (count, 256)).astype(np.uint8),
            "source": rng.choice(["sbu", "vg", "fmow"], count),
            "partition": rng.choice(["web-0000", "web-0001"], count),
            "stays": rng.random(count) < 0.8,
        }
    )


def by_hand(rows, radius, reach):
    """Every pair of the compared rows, by comparing all with all."""
    lines = rows.filter(pl.col("stays") & (pl.col("source") != "fmow")).sort("sample_id").to_dicts()
    pairs = {}
    for place, one in enumerate(lines):
        for other in lines[place + 1 :]:
            bits = (one["phash"] ^ other["phash"]).bit_count()
            if bits <= reach:
                differ = (np.array(one["thumbnail"], int) - np.array(other["thumbnail"], int)).std()
                least, textures = min(one["texture"], other["texture"]), one["texture"] * other["texture"]
                explained = 2 * textures * max(0, 0.14 - CORRELATION_PER_BIT * bits)
                limit = ((0.8**2 if least >= CALM else 0) + explained) ** 0.5 if least >= NOTHING_TO_SEE else -1
                pairs[one["sample_id"], other["sample_id"]] = (bits, differ, limit)
    return pairs, lines


@pytest.mark.parametrize("seed", range(4))
def test_every_pair_of_distinct_hashes_is_found(tmp_path, seed):
    rows = some_rows(60, seed, bits=16).unique("phash", maintain_order=True)
    cluster, inspected = stored(tmp_path, rows)
    found = near_survivors(Store(str(tmp_path)), cluster, inspected, ["sbu", "vg"])
    wanted, lines = by_hand(rows, 4, 6)
    assert found.rows == found.compared == len(lines)
    told = {
        (p.first, p.second): (p.distance, p.confirm, p.limit) for p in [*found.outside, *found.disagreed, *found.agreed]
    }
    assert {
        pair: (bits, pytest.approx(differ), pytest.approx(limit)) for pair, (bits, differ, limit) in wanted.items()
    } == told
    assert wanted
    assert all(pair.distance > 4 for pair in found.outside)
    assert all(pair.distance <= 4 and not pair.agrees for pair in found.disagreed)
    assert all(pair.distance <= 4 and pair.agrees and pair.confirm <= pair.limit for pair in found.agreed)
    assert [p.distance for p in found.outside] == sorted(p.distance for p in found.outside)


def test_of_many_pairs_the_nearest_are_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.page.near_survivors, "_JUDGED_PAIRS", 3)
    rows = some_rows(60, 1, bits=16).unique("phash", maintain_order=True)
    cluster, inspected = stored(tmp_path, rows)
    found = near_survivors(Store(str(tmp_path)), cluster, inspected, ["sbu", "vg"])
    bits = sorted(bits for bits, _, _ in by_hand(rows, 4, 6)[0].values())
    inside, outside = [b for b in bits if b <= 4], [b for b in bits if b > 4]
    assert min(len(inside), len(outside)) > 3
    assert sorted(pair.distance for pair in [*found.disagreed, *found.agreed]) == inside[:3]
    assert [pair.distance for pair in found.outside] == outside[:3]


def test_rows_of_one_hash_stand_for_the_others(tmp_path):
    rows = some_rows(400, 9).with_columns(phash=pl.lit(5, pl.UInt64), stays=True, source=pl.lit("sbu"))
    cluster, inspected = stored(tmp_path, rows)
    found = near_survivors(Store(str(tmp_path)), cluster, inspected, ["sbu"])
    assert found.compared == 400
    assert len(found.disagreed) + len(found.agreed) == 1
    assert found.outside == []


def test_more_rows_than_are_compared_are_drawn_by_id(tmp_path):
    rows = some_rows(300, 3)
    cluster, inspected = stored(tmp_path, rows)
    found = near_survivors(Store(str(tmp_path)), cluster, inspected, ["sbu", "vg"], most_rows=40)
    stayed = rows.filter(pl.col("stays") & (pl.col("source") != "fmow"))["sample_id"].sort()
    assert (found.rows, found.compared) == (len(stayed), 40)
    first = set(stayed[:40])
    assert found.outside
    assert {name for pair in found.outside for name in (pair.first, pair.second)} <= first


def test_hashes_that_lie_close_together_are_drawn_more_thinly(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.page.near_survivors, "_PROBE_ROWS", 100)
    monkeypatch.setattr(pipeline.page.near_survivors, "_MOST_PAIRS", 3_000)
    rows = some_rows(2_000, 5, bits=14).with_columns(stays=True, source=pl.lit("sbu"))
    cluster, inspected = stored(tmp_path, rows)
    found = near_survivors(Store(str(tmp_path)), cluster, inspected, ["sbu"])
    assert found.rows == 2_000
    assert 10 < found.compared < 500


def test_without_a_second_proof_no_pair_disagrees(tmp_path):
    rows = some_rows(100, 7)
    cluster, inspected = stored(tmp_path, rows, SETTINGS | {"dedup.confirm": "none"})
    found = near_survivors(Store(str(tmp_path)), cluster, inspected, ["sbu", "vg"])
    assert found.disagreed == []
    assert found.agreed


def test_nothing_stayed(tmp_path):
    cluster, inspected = stored(tmp_path, some_rows(5, 1).with_columns(stays=False))
    found = near_survivors(Store(str(tmp_path)), cluster, inspected, ["sbu"])
    assert (found.rows, found.compared, found.outside, found.disagreed, found.agreed) == (0, 0, [], [], [])
