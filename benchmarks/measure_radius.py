"""Which hash radius and thumbnail difference tell copies from other pictures: measured on real pictures.

RS5M_TEST_DATA names a folder with rs-pairs/ (aerial) and photos/ (ordinary). Every picture is re-encoded (JPEG quality
40 to 95) and resized (50 to 150 %); a copy is found at a radius if its hash is that near to the original's. False pairs
are pairs of different originals that near.
"""

import io
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from stages.decode import Decoded, decode
from stages.dedup.near import LOW_TEXTURE_LEVELS
from stages.dedup.pigeonhole import pairs_within
from stages.phash import phash, texture

QUALITIES = (40, 60, 80, 95)
SCALES = (0.5, 0.75, 1.25, 1.5)
RADII = (2, 4, 6, 8)


def variants(body):
    with Image.open(io.BytesIO(body)) as opened:
        image = opened.convert("RGB")
    for quality in QUALITIES:
        yield f"q{quality}", encode(image, quality)
    for scale in SCALES:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        yield f"x{scale:g}", encode(image.resize(size, Image.Resampling.BICUBIC), 85)


def encode(image, quality):
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def difference(a: Decoded, b: Decoded):
    return float(np.abs(a.thumbnail.astype(np.int16) - b.thumbnail.astype(np.int16)).mean())


def quantiles(values):
    if not len(values):
        return "none"
    return "  ".join(
        f"{name} {np.quantile(values, q):.2f}" for name, q in (("min", 0), ("p50", 0.5), ("p99", 0.99), ("max", 1))
    )


def main():
    root = os.environ.get("RS5M_TEST_DATA")
    if not root:
        sys.exit("RS5M_TEST_DATA is unset: name a folder with rs-pairs/ and photos/")
    files = [f for folder in ("rs-pairs", "photos") for f in sorted(Path(root, folder).rglob("*.jpg"))]
    originals, copies = [], {}
    for number, file in enumerate(files):
        body = file.read_bytes()
        originals.append(decode(body, 10**8))
        for name, changed in variants(body):
            copies.setdefault(name, []).append((number, decode(changed, 10**8)))
    hashes = np.array([phash(d.luma32) for d in originals], np.uint64)
    textures = np.array([texture(d.thumbnail) for d in originals])
    print(f"{len(files)} originals, {sum(map(len, copies.values()))} copies; texture {quantiles(textures)}")
    print("copies found at radius      " + "".join(f"{r:>9}" for r in RADII) + "   thumbnail difference of the copies")
    for name, made in [*copies.items(), ("all", [c for some in copies.values() for c in some])]:
        distance = np.array([(phash(d.luma32) ^ int(hashes[n])).bit_count() for n, d in made])
        differences = np.array([difference(originals[n], d) for n, d in made])
        found = "".join(f"{(distance <= r).mean():>9.4f}" for r in RADII)
        print(f"{name:<28}{found}   {quantiles(differences)}")
        if name == "all":
            rough = differences / np.maximum(textures[[n for n, _ in made]], 0.1)
            print(f"{'':<28}difference / texture of the original: {quantiles(rough)}")
            flat = textures[[n for n, _ in made]] < LOW_TEXTURE_LEVELS
            print(f"{'':<28}copies of originals of low texture: {quantiles(differences[flat])}, {flat.sum()} copies")
    report_false_pairs(originals, hashes, textures)


def report_false_pairs(originals, hashes, textures):
    """Different originals: how near their hashes come, and how alike their thumbnails are whatever the hash."""
    print(f"pairs of different originals: {len(hashes) * (len(hashes) - 1) // 2}")
    _, _, distance = pairs_within(hashes, 16)
    print("at distance " + ", ".join(f"{d}: {n}" for d, n in enumerate(np.bincount(distance, minlength=17)) if n))
    for radius in RADII:
        print(f"radius {radius}: {(distance <= radius).sum()} false pairs")
    thumbnails = np.stack([d.thumbnail.ravel() for d in originals]).astype(np.int16)
    alike = {level: [0, 0] for level in (1, 2, 4, 6, 8)}
    for k in range(len(thumbnails) - 1):
        differences = np.abs(thumbnails[k + 1 :] - thumbnails[k]).mean(axis=1)
        low = np.minimum(textures[k + 1 :], textures[k]) < LOW_TEXTURE_LEVELS
        for level, counts in alike.items():
            counts[0] += int(((differences <= level) & ~low).sum())
            counts[1] += int(((differences <= level) & low).sum())
    for level, (textured, low) in alike.items():
        print(
            f"thumbnail difference <= {level}: {textured} textured false pairs, {low} of low texture, any hash distance"
        )


if __name__ == "__main__":
    main()
