"""Is what dedup drops a copy, and does it find the copies? Measured on more than 200,000 distinct overhead tiles.

    RS5M_TEST_DATA=FOLDER python benchmarks/dedup_quality.py [--sample 20000] [--sweep] [--gallery build/pairs]
        [--keep build/q.npz | --use build/q.npz]

Every tile (tile_pool.py) is encoded (JPEG of quality 75 to 95, every tenth PNG) and goes through
`stages.dedup.inspect.inspected`; `stages.dedup.grouping.group` is run with the recipe rs5m's settings.

1. Without copies: whatever leaves as near is wrong. Gate: at most 20.
2. With one copy each of 20,000 tiles, decoded and encoded anew under another url: a third at JPEG quality 30 to 95, a
   third resized by 0.3 to 2 with a filter by chance and saved at quality 90, a third both. Scales are even in their
   logarithm, and bounded so that no copy is below 32 pixels, the side that a hash is made of (smaller ones are listed,
   not gated). Gate: 0.99 of drops right (the row that stays shows the same tile), 0.99 of copies found, in total and
   for each kind and band of at least 100 copies.
3. Told, not gated: other changes; turned and mirrored copies by
   `stages.dedup.leaks.find_leaks`, as of an evaluation set.

Without RS5M_TEST_DATA the 1,500 aerial pictures and the Sentinel-2 patches are missing, which is said. Exit 1 if a gate
fails. --sample N takes N tiles and copies of a tenth of them. --keep writes what was hashed and --use reads it, so that
another rule is tried without hashing; a pool that was kept is used with the same tile_pool.py alone.
"""

from __future__ import annotations

import argparse
import base64
import collections
import hashlib
import io
import itertools
import multiprocessing
import os
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image
from tile_pool import CHANGES, DRAWN, FILTERS, REAL_KINDS, SEED, SMALLEST_COPY, TURNS, TilePool, made

from manifests.recipe_files import load_recipe
from stages.dedup import level_hash
from stages.dedup.grouping import group
from stages.dedup.leaks import find_leaks
from stages.dedup.one_image import inspected
from stages.dedup.pigeonhole import pairs_within
from stages.dedup.second_proof import Looks, SecondProof, confirmed, proof_of

MOST_WRONG, LEAST_SHARE, LEAST_COPIES = 20, 0.99, 100
SOURCES = ("laion2b", "laion400m", "coyo700m", "cc3m", "wit", "laioncoco")
CHUNK = 128
RADII, CORRELATIONS, NOISES = (0, 2, 4, 6, 8), (0.84, 0.86, 0.88, 0.9, 0.92), (0.0, 0.4, 0.6, 0.8)
TEXTURES = (0, 0.5, 1.25, 2, 3, 4, 6, 10, 20, 128)
LOW_TEXTURE = 6.0  # grey levels: below it little is to see


_POOL: list[TilePool] = []
COLUMNS = ("index", "phash", "phash_d4", "thumbnail", "texture", "side", "sha256", "way", "quality", "scale", "filter")


def hash_chunk(job):
    indices, how, kind = job
    rows = []
    for index in indices:
        body, *change = made(_POOL[0], index, how)
        if body is None:
            continue
        seen = inspected(body, kind, 10**8)
        rows.append(
            (index, seen["phash"], seen["phash_d4"], seen["thumbnail"], seen["texture"],
             min(seen["width"], seen["height"]),
             hashlib.sha256(body).hexdigest(), *change)
        )  # fmt: skip
    return rows


def hashed(workers, indices, how, kind):
    """What is known of the tiles as arrays by name; those that are no tile are left out."""
    jobs = [(indices[at : at + CHUNK], how, kind) for at in range(0, len(indices), CHUNK)]
    rows = [row for part in workers.imap(hash_chunk, jobs) for row in part]
    types = (np.int64, np.uint64, np.uint64, np.uint8, np.float32, np.int32, str, str, np.int32, np.float32, str)
    return {name: np.array([row[at] for row in rows], types[at]) for at, name in enumerate(COLUMNS)}


def joined(*parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


def frame(seen, what):
    """The rows that `group` asks for: ids, sources and urls say nothing of which tile it is."""
    names = [f"{label}/{index}" for label, index in zip(what, seen["index"], strict=True)]
    ids = [hashlib.sha256(name.encode()).hexdigest()[:32] for name in names]
    return pl.DataFrame(
        {
            "sample_id": ids, "source": [SOURCES[int(key[:4], 16) % len(SOURCES)] for key in ids],
            "url": [f"http://{key[:3]}.example/{key}.jpg" for key in ids], "sha256": seen["sha256"],
            "phash": seen["phash"], "thumbnail": pl.Series(seen["thumbnail"], dtype=pl.Array(pl.UInt8, 256)),
            "texture": seen["texture"],
        }
    )  # fmt: skip


class Rule:
    """The shipped recipe's settings, as `dedup.cluster` reads them."""

    def __init__(self):
        recipe = load_recipe("rs5m")
        self.kind, self.radius, self.order = recipe.dedup.hash, recipe.dedup.radius, recipe.dedup.order
        self.proof = proof_of(recipe.flat())

    def leaders(self, seen, what):
        """For every row the row that stays for it, and by which proof."""
        rows = frame(seen, what)
        ids = rows["sample_id"]
        found = group(rows, self.radius, self.proof, self.order)
        groups = ids.to_frame().join(found, on="sample_id", maintain_order="left")
        place = pl.DataFrame({"cluster_id": ids, "leader": np.arange(len(ids))})
        groups = groups.join(place, on="cluster_id", maintain_order="left")
        return groups["leader"].to_numpy(), groups["proof"].to_numpy(), groups["distance"], groups["confirm"]


def apart(thumbnails, first, second):
    """Mean absolute differences of thumbnails, grey levels."""
    differ = np.empty(len(first), np.float32)
    for start in range(0, len(first), 65536):
        part = slice(start, start + 65536)
        differ[part] = np.abs(thumbnails[first[part]].astype(np.int16) - thumbnails[second[part]]).mean(axis=1)
    return differ


def without_copies(rule, pool, seen, chosen):
    """Prints what leaves of a pool without copies; returns the dropped rows, whom they joined, and pairs by hash."""
    kinds = np.array([tile.kind for tile in pool.tiles])
    given, of = collections.Counter(kinds[chosen].tolist()), kinds[seen["index"]]
    del given[DRAWN]
    leader, proof, distance, confirm = rule.leaders(seen, ["tile"] * len(of))
    gone = np.flatnonzero(leader != np.arange(len(leader)))
    first, second, bits = pairs_within(seen["phash"], rule.radius)
    same = of[first] == of[second]
    more, others, _ = pairs_within(level_hash.level_hashes(seen["thumbnail"]), level_hash.RADIUS)
    alike = of[more] == of[others]
    low = seen["texture"] < LOW_TEXTURE
    print(f"\n{len(of):,} distinct tiles; radius {rule.radius}, {rule.proof}; low texture: below {LOW_TEXTURE}\n")
    columns = "number", "blank or no data", "low texture", "texture p10", "p50", "p90", "pairs by hash", "by level hash"
    print("| tiles | " + " | ".join(columns) + " | dropped |")
    print("| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |")
    for kind in [*given, "all"]:
        here = (of == kind) | (kind == "all")
        if not here.any():
            continue
        left_out = (given.total() if kind == "all" else given[kind]) - here.sum()
        middle = " | ".join(f"{value:.1f}" for value in np.quantile(seen["texture"][here], (0.1, 0.5, 0.9)))
        pairs = ((of[first] == kind) & same).sum() if kind != "all" else len(first)
        level = ((of[more] == kind) & alike).sum() if kind != "all" else len(more)
        print(
            f"| {kind} | {here.sum():,} | {left_out:,} | {low[here].mean():.0%} | {middle} | {pairs:,} | {level:,} | "
            f"{here[gone].sum()} |"
        )
    print(
        f"\nproofs of the dropped: {dict(collections.Counter(proof[gone].tolist()))}; "
        f"pairs of two kinds: {(~same).sum():,} and {(~alike).sum():,}"
    )
    sizes = np.histogram(seen["side"], (0, 64, 65, 96, 97, 128, 150, 151))[0]
    print(
        "sides: "
        + ", ".join(
            f"{name} {n:,}"
            for name, n in zip(("<64", "64", "65-95", "96", "97-127", "128-149", "150"), sizes, strict=True)
        )
    )
    return gone, leader, (first, second, bits), (distance, confirm)


def share(part, whole):
    return f"{part / whole:.4f}" if whole else "-"


def bands(pool, base, planted, kinds):
    """Names and masks of the groups of copies that are looked at on their own."""
    real = np.isin(kinds, REAL_KINDS)
    texture = base["texture"]
    yield "all", np.ones(len(kinds), bool)
    yield "real", real
    yield "rendered", ~real
    low = texture < LOW_TEXTURE
    small = planted["side"] < 64
    yield "real, not low texture", real & ~low
    yield "rendered, not low texture", ~real & ~low
    yield "not low texture, copy of 64 pixels or more", ~low & ~small
    yield "texture from 1.25, copy of 64 pixels or more", (texture >= 1.25) & ~small
    yield "real, low texture", real & low
    yield "rendered, low texture", ~real & low
    for kind in dict.fromkeys(tile.kind for tile in pool.tiles):
        yield kind, kinds == kind
    for way in ("re-encoded", "resized", "both"):
        yield way, planted["way"] == way
    for low, high in ((30, 40), (40, 50), (50, 60), (60, 70), (70, 80), (80, 96)):
        yield f"quality {low}-{high - 1}", (planted["quality"] >= low) & (planted["quality"] < high)
    resized = planted["way"] != "re-encoded"
    for low, high in ((0.3, 0.5), (0.5, 0.7), (0.7, 1.0), (1.0, 1.5), (1.5, 2.01)):
        yield f"scale {low}-{min(high, 2.0)}", resized & (planted["scale"] >= low) & (planted["scale"] < high)
    for resampling in FILTERS:
        yield f"filter {resampling.lower()}", planted["filter"] == resampling
    for low, high in itertools.pairwise(TEXTURES):
        yield f"texture {low}-{high}", (texture >= low) & (texture < high)


def with_copies(rule, pool, seen, planted):
    """Prints precision and recall of planted copies; returns the gates that fail."""
    everything = joined(seen, planted)
    what = ["tile"] * len(seen["index"]) + ["copy"] * len(planted["index"])
    leader, proof, _, _ = rule.leaders(everything, what)
    tile = everything["index"]
    gone = leader != np.arange(len(leader))
    right = gone & (tile[leader] == tile)
    place = np.searchsorted(seen["index"], planted["index"])
    copies = np.arange(len(seen["index"]), len(leader))
    found = (leader[copies] == leader[place]) & (tile[leader[copies]] == planted["index"])
    base = {name: values[place] for name, values in seen.items()}
    of_tile = np.full(len(pool.tiles), -1)
    of_tile[planted["index"]] = np.arange(len(planted["index"]))
    kinds = np.array([tile.kind for tile in pool.tiles])[planted["index"]]
    failed, proofs = [], dict(collections.Counter(proof[gone].tolist()))
    print(f"\n{len(copies):,} planted copies, {gone.sum():,} rows dropped: {proofs}\n")
    print(
        "| copies | number | found | recall | dropped rows right | precision |\n| --- | --: | --: | --: | --: | --: |"
    )
    for name, mask in bands(pool, base, planted, kinds):
        here = np.zeros(len(pool.tiles), bool)
        here[planted["index"][mask]] = True
        if name == "all":
            here[:] = True  # with the drops of tiles that have no copy: all wrong
        total, drops, good, number = (
            mask.sum(),
            (gone & here[tile]).sum(),
            (right & here[tile]).sum(),
            found[mask].sum(),
        )
        if not total:
            continue
        print(
            f"| {name} | {total:,} | {number:,} | {share(number, total)} | "
            f"{good:,} of {drops:,} | {share(good, drops)} |"
        )
        if total >= LEAST_COPIES:
            failed += [f"recall of {name}: {share(number, total)}"] if number / total < LEAST_SHARE else []
            failed += [f"precision of {name}: {share(good, drops)}"] if drops and good / drops < LEAST_SHARE else []
    return failed


def told(rule, workers, pool, seen, number):
    """Prints what is found of copies changed in other ways; no gate."""
    some = np.sort(
        np.random.default_rng([SEED, 4]).choice(seen["index"], min(number, len(seen["index"])), replace=False)
    )
    base = {name: values[np.searchsorted(seen["index"], some)] for name, values in seen.items()}
    real = np.isin([pool.tiles[index].kind for index in some], REAL_KINDS)
    rich = base["texture"] >= LOW_TEXTURE
    groups = (np.ones(len(some), bool), real, rich)
    print(f"\nother changes, {len(some):,} tiles each, saved at quality 90: share found\n")
    print("| change | all | real | not low texture | wrong |\n| --- | --: | --: | --: | --: |")
    turned = []
    for how in ("tiny copy", "chroma 4:4:4", *CHANGES):
        changed = hashed(workers, some, how, rule.kind)
        turned += [changed] if how in TURNS else []
        leader, _, _, _ = rule.leaders(joined(base, changed), ["tile"] * len(some) + [how] * len(some))
        same = leader[: len(some)] == leader[len(some) :]
        wrong = (np.concatenate([some, some])[leader] != np.concatenate([some, some])).sum()
        small = changed["side"] < SMALLEST_COPY
        masks = [mask & small for mask in groups] if how == "tiny copy" else groups
        name = f"resized, below {SMALLEST_COPY} pixels ({small.sum()})" if how == "tiny copy" else how
        print(f"| {name} | " + " | ".join(share(same[mask].sum(), mask.sum()) for mask in masks) + f" | {wrong} |")
    masks = (np.concatenate([mask] * len(turned)) for mask in (real, rich))
    leaks(rule, pool, seen, joined(*turned), *masks)


def leaks(rule, pool, seen, turned, real, rich):
    """Prints what `find_leaks` finds of turned copies, the whole pool being the evaluation set."""
    kind = pl.lit(f"phash64-{rule.kind}").alias("hash_kind")
    columns = {"thumbnail": pl.Array(pl.UInt8, 256), "phash_d4": pl.Array(pl.UInt64, 8)}

    def table(rows, name, keys, *more):
        named = {
            column: pl.Series(rows[column], dtype=columns.get(column))
            for column in ("sha256", "phash", "texture", "thumbnail", *more)
        }
        return pl.DataFrame({name: keys, **named}).with_columns(kind)

    begun = time.perf_counter()
    images = table(turned, "sample_id", [f"{number}" for number in range(len(turned["index"]))])
    items = table(seen, "item", [f"{index}" for index in seen["index"]], "phash_d4")
    found = find_leaks(images, items, rule.radius, rule.proof)
    image, item = found["sample_id"].cast(pl.Int64).to_numpy(), found["item"].cast(pl.Int64).to_numpy()
    right = turned["index"][image] == item
    gradients = sum(pool.tiles[index].kind == "gradient" for index in item[~right].tolist())
    hit = np.zeros(len(turned["index"]), bool)
    hit[image[right]] = True
    print(
        f"\nleak check, {len(hit):,} turned or mirrored copies against {len(seen['index']):,} items in eight views "
        f"({time.perf_counter() - begun:.0f} s): found {share(hit.sum(), len(hit))}, "
        f"real {share(hit[real].sum(), real.sum())}, "
        f"not low texture {share(hit[rich].sum(), rich.sum())}; matches with another tile {(~right).sum():,}, "
        f"{gradients:,} of them gradients (one turned by 90 degrees is another one of the pool)"
    )


def looks_of(seen):
    return Looks.of(seen["phash"], seen["texture"], seen["thumbnail"])


def level_bits(one, other):
    hashes = level_hash.level_hashes(one["thumbnail"]), level_hash.level_hashes(other["thumbnail"])
    return np.bitwise_count(hashes[0] ^ hashes[1])


def sweep(seen, planted):
    """Prints, by pairs, what other settings would do: wrong is at most that many rows, found the share of copies."""
    loosest = SecondProof(max(NOISES), min(CORRELATIONS))
    place = np.searchsorted(seen["index"], planted["index"])
    looks, theirs = looks_of(seen), looks_of(planted)
    one, other, _ = pairs_within(seen["phash"], max(RADII))
    more, others, _ = pairs_within(level_hash.level_hashes(seen["thumbnail"]), level_hash.RADIUS)
    first, second = np.unique(np.stack([np.append(one, more), np.append(other, others)]), axis=1)
    agrees, differ = confirmed(looks, looks, first, second, loosest)
    first, second, differ = first[agrees], second[agrees], differ[agrees]
    copies = np.arange(len(place))
    agreeing, copies_differ = confirmed(looks, theirs, place, copies, loosest)
    base = {name: values[place] for name, values in seen.items()}
    sides = (
        (*of_pairs(looks, looks, first, second), differ, level_bits(rows_of(seen, first), rows_of(seen, second))),
        (*of_pairs(looks, theirs, place, copies), np.where(agreeing, copies_differ, np.inf), level_bits(base, planted)),
    )

    def cell(radius, by_levels, noise, correlation):
        proof, passed = SecondProof(noise, correlation), []
        for one_texture, other_texture, bits, difference, steps in sides:
            rivals = (bits <= radius) | (by_levels & (steps <= level_hash.RADIUS))
            passed.append(rivals & (difference <= proof.limit(one_texture, other_texture, bits)))
        return f"{len(np.unique(second[passed[0]])):,} / {passed[1].mean():.4f}"

    print("\nwrong rows by pairs, an upper bound / share of copies found\n")
    print("| radius | level hash | noise | " + " | ".join(f"correlation {c}" for c in CORRELATIONS) + " |")
    print("| --: | --- | --: |" + " --: |" * len(CORRELATIONS))
    for by_levels in (False, True):
        for radius in RADII:
            for noise in NOISES if by_levels and radius == 4 else (0.6,):
                cells = [cell(radius, by_levels, noise, correlation) for correlation in CORRELATIONS]
                print(f"| {radius} | {'and' if by_levels else 'no'} | {noise} | " + " | ".join(cells) + " |")


def rows_of(seen, places):
    return {name: values[places] for name, values in seen.items()}


def of_pairs(ours, theirs, one, other):
    """Textures and distances of pairs."""
    bits = np.bitwise_count(ours.phash[one] ^ theirs.phash[other]).astype(np.int64)
    return ours.texture[one], theirs.texture[other], bits


def gallery(folder, pool, seen, gone, leader, pairs):
    """Writes index.html: every dropped pair (300 at most), then the nearest pairs that stay."""
    folder.mkdir(parents=True, exist_ok=True)
    first, second, _ = pairs
    dropped = {(min(a, b), max(a, b)) for a, b in zip(gone.tolist(), leader[gone].tolist(), strict=True)}
    differ = apart(seen["thumbnail"], first, second)
    stay = [n for n in np.argsort(differ)[:400].tolist() if (first[n], second[n]) not in dropped][:200]
    shown = [("dropped", a, b) for a, b in sorted(dropped)[:300]] + [
        ("stays", int(first[n]), int(second[n])) for n in stay
    ]
    parts = [
        "<!doctype html><meta charset=utf-8><title>pairs</title>",
        "<style>body{font:14px sans-serif}img{height:150px}.small{image-rendering:pixelated}</style>",
    ]
    for verdict, a, b in shown:
        images = "".join(
            f"<img src='data:image/png;base64,{png(pool.pixels(int(seen['index'][row])))}'> "
            f"<img class=small src='data:image/png;base64,{png(seen['thumbnail'][row].reshape(16, 16))}'> "
            for row in (a, b)
        )
        distance = int(np.bitwise_count(seen["phash"][a] ^ seen["phash"][b]))
        differs = apart(seen["thumbnail"], np.array([a]), np.array([b]))[0]
        names = ", ".join(name(pool, int(seen["index"][row])) for row in (a, b))
        textures = f"{seen['texture'][a]:.1f}, {seen['texture'][b]:.1f}"
        parts.append(f"<p>{verdict}: {names}; {distance} bits, {differs:.2f} levels, texture {textures}<br>{images}")
    (folder / "index.html").write_text("\n".join(parts))
    print(f"\n{len(dropped)} dropped pairs and the nearest {len(stay)} that stay: {folder / 'index.html'}")


def name(pool, index):
    tile = pool.tiles[index]
    if tile.picture < 0:
        return f"{tile.kind} {tile.number}"
    return f"{tile.kind} {pool.names[tile.picture]} y {tile.top} x {tile.left} of {tile.footprint}"


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=0, help="tiles to look at; 0: all")
    parser.add_argument("--copies", type=int, default=20_000)
    parser.add_argument("--told", type=int, default=1_000, help="tiles a change that is not gated")
    parser.add_argument("--gallery", type=Path)
    parser.add_argument("--sweep", action="store_true", help="other radii, levels and bounds of low texture")
    parser.add_argument("--keep", type=Path, help="where to write what was hashed")
    parser.add_argument("--use", type=Path, help="what an earlier run kept, instead of hashing")
    return parser.parse_args()


def main():
    given, rule, begun = arguments(), Rule(), time.perf_counter()
    data = os.environ.get("RS5M_TEST_DATA")
    if not data:
        print("RS5M_TEST_DATA is unset: no aerial pictures, no Sentinel-2 patches; the mini world's and rendered tiles")
    pool = TilePool(Path(data) if data else None, print)
    _POOL.append(pool)
    chosen = np.random.default_rng([SEED, 3]).permutation(len(pool.tiles))
    indices = np.sort(chosen[: given.sample]) if given.sample else np.arange(len(pool.tiles))
    if given.sample:
        given.copies = min(given.copies, given.sample // 10)
    with multiprocessing.get_context("fork").Pool(2) as workers:
        if given.use:
            kept = np.load(given.use)
            everything, planted = ({n: kept[f"{side}_{n}"] for n in COLUMNS} for side in ("seen", "copy"))
        else:
            everything = hashed(workers, indices.tolist(), "original", rule.kind)
        kinds = np.array([tile.kind for tile in pool.tiles])
        imagery = np.flatnonzero(kinds[everything["index"]] != DRAWN)
        seen = rows_of(everything, imagery)
        if not given.use:
            picked = np.random.default_rng([SEED, 5]).choice(
                seen["index"], min(given.copies, len(imagery)), replace=False
            )
            planted = hashed(workers, np.sort(picked).tolist(), "copy", rule.kind)
        print(f"hashed in {time.perf_counter() - begun:.0f} s with 2 processes")
        if given.keep:
            np.savez(
                given.keep,
                kinds=kinds,
                **{f"seen_{n}": v for n, v in everything.items()},
                **{f"copy_{n}": v for n, v in planted.items()},
            )
        gone, leader, pairs, _ = without_copies(rule, pool, seen, indices)
        left, _, _, _ = rule.leaders(everything, ["tile"] * len(everything["index"]))
        print(
            f"with {len(everything['index']) - len(imagery):,} windows of drawn relief beside them (not gated): "
            f"{(left != np.arange(len(left))).sum()} dropped"
        )
        failed = [f"{len(gone)} of the distinct tiles dropped, {MOST_WRONG} allowed"] if len(gone) > MOST_WRONG else []
        failed += with_copies(rule, pool, seen, planted)
        if given.sweep:
            sweep(seen, planted)
        if given.gallery:
            gallery(given.gallery, pool, seen, gone, leader, pairs)
        if given.told:
            told(rule, workers, pool, seen, given.told)
    print(f"\n{time.perf_counter() - begun:.0f} s")
    for line in failed:
        print(f"GATE FAILS: {line}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
